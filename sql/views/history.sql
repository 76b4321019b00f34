-- Invariant: every line has the time at which the database recorded it. Payloads are left to the
-- views runs, steps and signals.

create or replace view perdure.history as
select
  r.run_id,
  r.created_at as at,
  'run started' as what,
  r.key,
  jsonb_strip_nulls(jsonb_build_object(
    'workflow', r.workflow, 'queue', r.queue, 'by', r.created_by, 'start_at', r.start_at
  )) as detail
from perdure.run as r
union all
select
  d.run_id,
  d.claimed_at,
  'run claimed',
  null,
  jsonb_strip_nulls(jsonb_build_object(
    'worker', w.name, 'worker_id', d.worker_id, 'recoveries', nullif(d.recoveries, 0)
  ))
from perdure.dispatch as d
left join perdure.worker as w on d.worker_id = w.worker_id
where d.claimed_at is not null
union all
select
  s.run_id,
  s.saved_at,
  case
    when s.kind = 'signal' and s.signal_id is null then 'wait timed out'
    when s.kind = 'signal' then 'signal consumed'
    when s.kind in ('sleep', 'timer') then s.kind || ' ended'
    when s.kind = 'cancel' then 'cancel delivered'
    when s.kind = 'started' then 'step began'
    when s.error is not null then 'step failed'
    else case s.kind when 'value' then 'value' else 'step' end || ' saved'
  end,
  s.key,
  jsonb_strip_nulls(jsonb_build_object(
    'ordinal', s.ordinal, 'kind', s.kind, 'name', s.name, 'attempt', nullif(s.attempt, 1),
    'signal_id', s.signal_id, 'started_at', s.started_at,
    'type', s.error ->> 'type', 'message', s.error ->> 'message'
  ))
from perdure.step as s
union all
select
  t.run_id,
  t.failed_at,
  'try failed',
  t.key,
  jsonb_strip_nulls(jsonb_build_object(
    'attempt', t.attempt, 'type', t.error ->> 'type', 'message', t.error ->> 'message',
    'started_at', t.started_at, 'retry_at', t.retry_at
  ))
from perdure.step_attempt as t
union all
select
  s.run_id,
  s.sent_at,
  'signal sent',
  s.name,
  jsonb_build_object('id', s.id, 'by', s.sent_by)
from perdure.signal as s
union all
select
  a.run_id,
  a.asked_at,
  a.act || ' asked',
  null,
  jsonb_strip_nulls(jsonb_build_object(
    'reason', a.reason, 'by', a.asked_by, 'grace', a.grace
  ))
from perdure.act as a
union all
select
  a.run_id,
  a.applied_at,
  a.act || ' answered',
  null,
  jsonb_build_object('answer', a.answer)
from perdure.act as a
where a.applied_at is not null
union all
select
  a.run_id,
  a.done_at,
  a.act,
  null,
  jsonb_strip_nulls(jsonb_build_object(
    'reason', a.reason, 'by', a.done_by, 'was', a.detail -> 'outcome' ->> 'status'
  ) || (a.detail - 'outcome' - 'steps'))
from perdure.audit as a
-- acts have their own lines above; without a run it is no run's history
where a.run_id is not null and a.act not in ('cancel', 'terminate', 'pause', 'resume')
union all
select
  o.run_id,
  o.finished_at,
  'run ' || o.status,
  null,
  coalesce(o.error, '{}')
from perdure.outcome as o;

comment on view perdure.history is
'What happened to a run, one line each: where run_id = ... order by at.';
comment on column perdure.history.run_id is 'The run.';
comment on column perdure.history.at is 'When it was recorded, by the database''s clock; of a step, when its result was there, as its worker says.';
comment on column perdure.history.what is
'run started, run claimed (the latest claim of an unfinished run), step saved, step failed, step began,
value saved, try failed, sleep ended, timer ended, signal sent, signal consumed, wait timed out,
cancel delivered; an act asked or answered; retry and other operators'' acts; run completed, run failed ...';
comment on column perdure.history.key is 'Key of the run, step or wait, or name of the signal.';
comment on column perdure.history.detail is 'Object with what else there is to say; no payloads.';
