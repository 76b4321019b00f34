-- Invariant: the state of an unfinished run is what _run_state says. It is spelt out here once more
-- because a call costs 6 microseconds a row: seconds for a million runs. A test compares the two.

create or replace view perdure._unfinished as
select
  d.run_id,
  d.workflow,
  d.queue,
  d.priority,
  case
    when d.worker_id is not null then 'running'
    when d.is_paused then 'paused'
    when d.cancel is not null then 'cancelling'
    when d.ready_at <= (select perdure._clock()) then 'ready'
    when d.begun_at is null then 'scheduled'
    when d.waits is null or d.waits @? '$[*] ? (@.kind == "retry")' then 'backing_off'
    when d.waits @? '$[*] ? (@.kind == "signal")' then 'waiting'
    else 'sleeping'
  end as state,
  d.ready_at,
  d.ends_at,
  d.worker_id,
  d.claim,
  d.claimed_at,
  -- what cannot be read, after damage, would hide all runs in every view that reads it
  jsonb_path_query_array(
    d.waits,
    '$[*] ? (@.type() == "object" && (!exists (@.until) || @.until == null
      || @.until like_regex "^(-?infinity|[0-9]{4,6}-[01][0-9]-[0-3][0-9]T[0-9:.+-]+)$"))'
  ) as waits,
  d.cancel,
  d.recoveries,
  d.is_paused,
  d.predecessor_id
from perdure.dispatch as d;

comment on view perdure._unfinished is 'Unfinished runs with their state: dispatch, for other views.';
comment on column perdure._unfinished.run_id is 'The run.';
comment on column perdure._unfinished.workflow is 'Its workflow.';
comment on column perdure._unfinished.queue is 'Its queue.';
comment on column perdure._unfinished.priority is '1 (first) to 5 (last).';
comment on column perdure._unfinished.state is 'As _run_state says.';
comment on column perdure._unfinished.ready_at is 'When a worker may take it.';
comment on column perdure._unfinished.ends_at is 'Its deadline, or the end of its grace.';
comment on column perdure._unfinished.worker_id is 'Worker that holds it.';
comment on column perdure._unfinished.claim is 'Token of its latest claim.';
comment on column perdure._unfinished.claimed_at is 'When it was claimed last.';
comment on column perdure._unfinished.waits is 'What it waits for, as far as it can be read.';
comment on column perdure._unfinished.cancel is 'How it has to end, if it has to.';
comment on column perdure._unfinished.recoveries is 'Deaths of its workers in a row.';
comment on column perdure._unfinished.is_paused is 'Whether nobody may take it.';
comment on column perdure._unfinished.predecessor_id is 'Run that has to end first.';

-- Two ways to read it. By run, the latest first, each with its one row of dispatch or outcome: it is an outer join, and
-- begins with run. By state, or what else run does not know: it is an inner join then, and begins with dispatch and
-- outcome; each is an arm of one table, so that it is read by its indexes, and not at all where a constant or a check
-- says that nothing of the kind is there.
create or replace view perdure.runs as
select
  r.run_id,
  r.workflow,
  r.key,
  s.state,
  r.queue,
  r.priority,
  r.tags,
  r.created_at,
  r.created_by,
  r.start_at,
  case when s.worker_id is null then nullif(s.ready_at, 'infinity') end as ready_at,
  case when s.cancel is null then coalesce(s.ends_at, r.deadline) end as deadline,
  s.cancel,
  case when s.cancel is not null then s.ends_at end as grace_ends_at,
  s.worker_id,
  w.name as worker,
  s.claimed_at,
  coalesce(s.recoveries, 0) as recoveries,
  r.max_recoveries,
  coalesce(s.is_paused, false) as is_paused,
  case
    when s.is_paused then (
      select a.reason
      from perdure.act as a
      where a.run_id = r.run_id and a.act = 'pause' and a.answer = 'accepted'
      order by a.applied_at desc, a.act_id desc
      limit 1
    )
  end as pause_reason,
  s.predecessor_id,
  case
    when s.finished_at is not null then s.error ->> 'message'
    else (
      select t.error ->> 'message'
      from perdure.step_attempt as t
      where t.run_id = r.run_id
      order by t.failed_at desc
      limit 1
    )
  end as last_error,
  s.finished_at,
  greatest(
    coalesce(s.finished_at, (select perdure._clock()))
    - greatest(r.created_at, case when isfinite(r.start_at) then r.start_at end),
    interval '0'
  ) as duration,
  r.input,
  s.result,
  s.error,
  r.headers
from perdure.run as r
left join ( -- a common table expression would be read as a whole  -- noqa: ST05
  select
    u.run_id,
    u.state,
    u.ready_at,
    u.ends_at,
    u.worker_id,
    u.claimed_at,
    u.cancel,
    u.recoveries,
    u.is_paused,
    u.predecessor_id,
    null::timestamptz as finished_at,
    null::jsonb as result,
    null::jsonb as error
  from perdure._unfinished as u
  union all
  select
    o.run_id,
    o.status,
    null,
    null,
    null,
    null,
    null,
    0,
    false,
    null,
    o.finished_at,
    o.result,
    o.error
  from perdure.outcome as o
) as s on r.run_id = s.run_id
left join perdure.worker as w on s.worker_id = w.worker_id;

comment on view perdure.runs is
'All runs, unfinished and ended. Newest first: order by run_id desc, which is the order of time; the next page: and
run_id < the last one. By run_id, key, or a state in which runs end badly: by index. Add finished_at is not null to a state
in which runs end, finished_at is null to another, worker_id is not null to running: then no more is read than there are of
those. Any other question (workflow, queue, tags, created_at) looks at run after run until it has enough: where few are
wanted among millions, bound it by time: and run_id > a run of that time.';
comment on column perdure.runs.run_id is 'The run: a UUIDv7, so ordered by the time of its start.';
comment on column perdure.runs.workflow is 'Workflow that it executes.';
comment on column perdure.runs.key is 'Idempotency key that it was started with; null without one.';
comment on column perdure.runs.state is
'scheduled, ready, running, sleeping, waiting, backing_off, paused, cancelling; or how it ended:
completed, failed, cancelled, timed_out, terminated, dead, continued.';
comment on column perdure.runs.queue is 'Queue from which workers take it.';
comment on column perdure.runs.priority is '1 (first) to 5 (last).';
comment on column perdure.runs.tags is 'Object of strings given at the start.';
comment on column perdure.runs.created_at is 'When it was started.';
comment on column perdure.runs.created_by is 'Role that started it.';
comment on column perdure.runs.start_at is 'Time before which it was not to begin; null: at once.';
comment on column perdure.runs.ready_at is
'Since when or from when a worker may take it: null while one holds it, once it has ended, and while
it waits for as long as it takes.';
comment on column perdure.runs.deadline is 'When it will be told to end; null without a deadline.';
comment on column perdure.runs.cancel is
'cancelled or timed_out once an unfinished run has been told to end so; null otherwise.';
comment on column perdure.runs.grace_ends_at is 'When a run that was told to end is ended the hard way.';
comment on column perdure.runs.worker_id is 'Worker that holds it; null while nobody does.';
comment on column perdure.runs.worker is 'Name of that worker.';
comment on column perdure.runs.claimed_at is
'When a worker took it last; null before the first time and once it has ended.';
comment on column perdure.runs.recoveries is 'Deaths of its workers in a row without progress.';
comment on column perdure.runs.max_recoveries is 'How many of them it survives.';
comment on column perdure.runs.is_paused is 'Whether nobody may take it until it is resumed.';
comment on column perdure.runs.pause_reason is 'Why it is paused, in the words of who asked.';
comment on column perdure.runs.predecessor_id is 'Run that has to end before this one begins.';
comment on column perdure.runs.last_error is
'Message of the error that it ended with; of its latest failed try while it is unfinished.';
comment on column perdure.runs.finished_at is 'When it ended; null while it is unfinished.';
comment on column perdure.runs.duration is
'Time from its start, or from start_at if that was later, to its end or until now.';
comment on column perdure.runs.input is 'Input of the workflow.';
comment on column perdure.runs.result is 'What it returned; null unless completed.';
comment on column perdure.runs.error is 'Object with type, message and more: why it did not complete.';
comment on column perdure.runs.headers is 'Object carried along for whoever started it.';
