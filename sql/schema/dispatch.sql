-- Invariant: one narrow row per unfinished run, the only row of a run that changes again and again. Clients only
-- insert it.
-- Lock order: worker, then dispatch by run_id, never waiting (skip locked), then inserts, then wake.
-- The state is derived: worker_id set = running; else ready_at says it (due = ready, ahead = asleep or backing off,
-- infinity = waits to be told), and waits says for what.

create table perdure.dispatch (
  run_id uuid not null,
  workflow text collate "C" not null,
  queue text collate "C" not null,
  priority smallint not null,
  ready_at timestamptz not null,
  ends_at timestamptz,
  timeout interval,
  worker_id uuid,
  claim uuid,
  begun_at timestamptz,
  claimed_at timestamptz,
  told_at timestamptz,
  waits jsonb,
  cancel text,
  recoveries integer not null default 0,
  max_recoveries integer not null,
  is_paused boolean not null default false,
  predecessor_id uuid,
  constraint dispatch_pkey primary key (run_id)  -- the rest is in violations: each statement would plan a check anew
);

comment on table perdure.dispatch is
'Where a run stands: one narrow row per unfinished run, changed as it goes on and deleted at its end.';
comment on column perdure.dispatch.run_id is 'The unfinished run.';
comment on column perdure.dispatch.workflow is 'Copied from run, so that a claim reads one table.';
comment on column perdure.dispatch.queue is 'Copied from run; with priority it names the lane.';
comment on column perdure.dispatch.priority is 'Copied from run; 1 (first) to 5 (last).';
comment on column perdure.dispatch.ready_at is
'When a worker may take the run: due, in the future (sleep, back-off, time-out), or infinity (waits until told).';
comment on column perdure.dispatch.ends_at is
'Deadline of the run, or end of the grace once cancel is set; null without either.';
comment on column perdure.dispatch.timeout is
'Copied from run, so that it need not be read to begin one: from the first claim to the deadline; null for none.';
comment on column perdure.dispatch.worker_id is 'Worker that holds the run; null while nobody does.';
comment on column perdure.dispatch.claim is
'Random token of the latest claim. It stays after the worker let go, so that a repeated call gets the same answer.';
comment on column perdure.dispatch.begun_at is
'When the run was claimed first, for good: its clock starts there. Null while it never began.';
comment on column perdure.dispatch.claimed_at is 'When the run was claimed last; null while nobody has claimed it.';
comment on column perdure.dispatch.told_at is 'When a claimed run was told something that its worker has not looked at yet.';
comment on column perdure.dispatch.waits is
'What a suspended run waits for: array of objects with key, kind (signal, sleep, timer, retry), name, until.';
comment on column perdure.dispatch.cancel is
'cancelled or timed_out once the run has to end so; null otherwise.';
comment on column perdure.dispatch.recoveries is 'Deaths of its workers in a row without progress in between.';
comment on column perdure.dispatch.max_recoveries is 'Copied from run: one more death than this and the run is dead.';
comment on column perdure.dispatch.is_paused is 'Nobody may claim a paused run.';
comment on column perdure.dispatch.predecessor_id is 'Run that has to end first (start with on_duplicate => replace).';

create index dispatch_claim_idx on perdure.dispatch (queue, priority, ready_at, run_id)
where worker_id is null and not is_paused;
comment on index perdure.dispatch_claim_idx is 'claim_runs: the first due rows of a lane.';

create index dispatch_suspect_idx on perdure.dispatch (queue, ready_at, run_id)
where worker_id is null and not is_paused and recoveries >= 2;
comment on index perdure.dispatch_suspect_idx is 'claim_runs: the one suspect that a worker without a suspect may take.';

create index dispatch_worker_idx on perdure.dispatch (worker_id, claimed_at)
where worker_id is not null;
comment on index perdure.dispatch_worker_idx is
'recover, beat, worker_runs: what a worker holds; beat: from the oldest claim that it still holds on.';

create index dispatch_ends_idx on perdure.dispatch (ends_at)
where ends_at is not null;
comment on index perdure.dispatch_ends_idx is 'tick: runs past their deadline or their grace.';

create index dispatch_predecessor_idx on perdure.dispatch (predecessor_id)
where predecessor_id is not null;
comment on index perdure.dispatch_predecessor_idx is '_end_runs and tick: runs that wait for another one to end.';

create table perdure.wake (
  run_id uuid not null,
  told_at timestamptz not null
);

comment on table perdure.wake is
'Who must look: inserted by whoever tells a run something, in the same transaction; drained by the engine.';
comment on column perdure.wake.run_id is 'Run that was told something.';
comment on column perdure.wake.told_at is 'When; drained in this order.';

create index wake_drain_idx on perdure.wake (told_at, run_id);
comment on index perdure.wake_drain_idx is 'drain: the oldest wakes.';

create index wake_run_idx on perdure.wake (run_id);
comment on index perdure.wake_run_idx is 'drain: all wakes of the rows it locked.';
