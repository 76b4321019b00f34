-- Invariant: what was asked for is written once and never changed; how a run ended is written once.
-- A row of run has exactly one of: a row in dispatch (unfinished) or a row in outcome (ended).

create table perdure.run (
  run_id uuid not null,
  workflow text collate "C" not null,
  queue text collate "C" not null,
  priority smallint not null,
  input jsonb not null,
  key text collate "C",
  tags jsonb not null,
  headers jsonb not null,
  start_at timestamptz,
  deadline timestamptz,
  timeout interval,
  max_recoveries integer not null,
  scheduled_at timestamptz,
  predecessor_id uuid,
  created_at timestamptz not null,
  created_by text not null,
  constraint run_pkey primary key (run_id)  -- the rest is in violations: each statement would plan a check anew
) partition by range (run_id);

comment on table perdure.run is
'What was asked: one row per run, written once. Partitioned by run_id, which is a UUIDv7, so by time.';
comment on column perdure.run.run_id is 'UUIDv7 made by the database from its own clock.';
comment on column perdure.run.workflow is 'Name of the definition that the run executes.';
comment on column perdure.run.queue is 'Queue in which the run waits for a worker.';
comment on column perdure.run.priority is '1 (first) to 5 (last).';
comment on column perdure.run.input is 'The one input of the workflow.';
comment on column perdure.run.key is 'Idempotency key, unique per workflow while the run is kept; null without one.';
comment on column perdure.run.tags is 'Object of strings by which people find the run.';
comment on column perdure.run.headers is 'Object carried along for the caller, such as a trace context.';
comment on column perdure.run.start_at is 'Not before this time; null means at once.';
comment on column perdure.run.deadline is 'When the run is timed out, whatever it does; null without a deadline.';
comment on column perdure.run.timeout is 'How long after its first claim the run is timed out; null without one.';
comment on column perdure.run.max_recoveries is 'Deaths in a row without progress that the run survives.';
comment on column perdure.run.scheduled_at is 'Tick of the schedule that started the run; null otherwise.';
comment on column perdure.run.predecessor_id is
'Run that this one replaced while that was unfinished (start with on_duplicate => replace); null otherwise.';
comment on column perdure.run.created_at is 'When the run was started.';
comment on column perdure.run.created_by is 'Role that started the run.';

create index run_lookup_idx on perdure.run (key, run_id)
where key is not null;
comment on index perdure.run_lookup_idx is 'runs: by key, all runs that ever had it, the latest first.';

create table perdure.outcome (
  run_id uuid not null,
  status text collate "C" not null,
  result jsonb,
  error jsonb,
  begun_at timestamptz,
  finished_at timestamptz not null,
  claim uuid,
  constraint outcome_pkey primary key (run_id),
  constraint outcome_status_is_known check (
    status in ('completed', 'failed', 'cancelled', 'timed_out', 'terminated', 'dead', 'continued')
  ),
  constraint outcome_has_a_result_only_when_completed check ((result is not null) = (status = 'completed')),
  constraint outcome_has_an_error_unless_completed check (status in ('completed', 'continued') or error is not null)
) partition by range (run_id);

comment on table perdure.outcome is 'How a run ended: one row per ended run, written once.';
comment on column perdure.outcome.run_id is 'The run that ended.';
comment on column perdure.outcome.status is
'completed, failed, cancelled, timed_out, terminated, dead or continued.';
comment on column perdure.outcome.result is 'What the workflow returned; null unless completed.';
comment on column perdure.outcome.error is 'Object with type and message: why the run did not complete.';
comment on column perdure.outcome.begun_at is 'When the run was claimed first; null where it never began.';
comment on column perdure.outcome.finished_at is 'When the run ended.';
comment on column perdure.outcome.claim is
'Claim that ended the run, so that the same call after a lost answer gets the same answer.';

create index outcome_bad_idx on perdure.outcome (status, run_id, finished_at)
where status <> 'completed';
comment on index perdure.outcome_bad_idx is
'runs: by a state in which runs end, the latest first, of a time; those that complete have no entry.';

create table perdure.run_key (
  workflow text collate "C" not null,
  key text collate "C" not null,
  run_id uuid not null,
  fingerprint bytea not null,
  constraint run_key_pkey primary key (workflow, key),
  constraint run_key_fingerprint_has_16_bytes check (octet_length(fingerprint) = 16)
);

comment on table perdure.run_key is
'Idempotency keys: which run a key of a workflow names. Lives outside the time partitions, so its rows are deleted one by one.';
comment on column perdure.run_key.workflow is 'Workflow within which the key is unique.';
comment on column perdure.run_key.key is 'Key chosen by the caller.';
comment on column perdure.run_key.run_id is 'Run that the key names now.';
comment on column perdure.run_key.fingerprint is 'First 16 bytes of the sha256 of the input''s jsonb text.';
