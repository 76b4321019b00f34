-- Invariant: a step has one row, whether it is on record or has only failed so far.

create or replace view perdure.steps as
select
  s.run_id,
  s.ordinal,
  s.key,
  s.kind,
  case when s.error is null then 'completed' else 'failed' end as state,
  s.name,
  s.result,
  s.error,
  s.attempt as attempts,
  null::timestamptz as retry_at,
  s.started_at,
  s.saved_at,
  case when isfinite(s.started_at) then s.saved_at - s.started_at end as duration,
  s.signal_id,
  encode(s.fingerprint, 'hex') as fingerprint
from perdure.step as s
union all
select
  f.run_id,
  null,
  f.key,
  null,
  'backing_off',
  null,
  null,
  f.error,
  f.attempt,
  f.retry_at,
  f.started_at,
  null,
  null,
  null,
  null
from (
  select distinct on (t.run_id, t.key) t.*
  from perdure.step_attempt as t
  order by t.run_id asc, t.key asc, t.attempt desc
) as f
where not exists (
    select from perdure.step as s
    where s.run_id = f.run_id and s.key = f.key
  );

comment on view perdure.steps is
'Steps of runs: what is on record, and what has failed and will be tried again.';
comment on column perdure.steps.run_id is 'The run.';
comment on column perdure.steps.ordinal is
'Order in which results were delivered to the run; null while the step is not on record.';
comment on column perdure.steps.key is 'Name of the step within the run.';
comment on column perdure.steps.kind is
'step, transaction, sql, value, signal, sleep, timer, cancel or started; null while not on record.';
comment on column perdure.steps.state is
'completed, failed (for good), or backing_off (it failed and will be tried again).';
comment on column perdure.steps.name is 'Name of the value or signal; null for other kinds.';
comment on column perdure.steps.result is
'What it returned. SQL null where it failed, slept, or waited for a signal until the time-out.';
comment on column perdure.steps.error is 'Object with type, message, details of its last failed try.';
comment on column perdure.steps.attempts is 'Number of tries so far.';
comment on column perdure.steps.retry_at is 'When it may be tried again; null unless backing_off.';
comment on column perdure.steps.started_at is 'When the last try began, by the worker''s clock.';
comment on column perdure.steps.saved_at is 'When it was saved: as its worker says, which follows the database''s clock, else by that.';
comment on column perdure.steps.duration is 'Time between the two: of the last try, not of all.';
comment on column perdure.steps.signal_id is 'Signal that this wait consumed.';
comment on column perdure.steps.fingerprint is 'Hex of the fingerprint of its arguments.';
