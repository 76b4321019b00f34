-- Invariant: a checkpoint is written once per (run, key); the first save wins. Retry of an ended run alone removes
-- some. A failed try is written once per (run, key, attempt).

create table perdure.step (
  run_id uuid not null,
  key text collate "C" not null,
  kind text not null,
  ordinal integer not null,
  name text collate "C",
  fingerprint bytea,
  result jsonb,
  error jsonb,
  signal_id text collate "C",
  attempt integer not null default 1,
  started_at timestamptz,
  saved_at timestamptz not null,
  constraint step_pkey primary key (run_id, key),
  constraint step_kind_is_known check (
    kind in ('step', 'transaction', 'sql', 'value', 'signal', 'sleep', 'timer', 'cancel', 'started')
  ),
  constraint step_key_has_1_to_1000_bytes check (octet_length(key) between 1 and 1000),
  constraint step_has_a_result_or_an_error_not_both check (result is null or error is null),
  constraint step_without_result_and_error_is_a_wait check (
    result is not null or error is not null or kind in ('signal', 'sleep', 'timer')
  ),
  constraint step_consumes_a_signal_only_as_a_wait check (signal_id is null or kind = 'signal'),
  constraint step_fingerprint_has_16_bytes check (octet_length(fingerprint) = 16)
) partition by range (run_id);

comment on table perdure.step is 'Checkpoints: what a run saved, one row per key, written once.';
comment on column perdure.step.run_id is 'Run that saved it.';
comment on column perdure.step.key is 'Name of the step within the run: name, name#2 ..., prefixed by its scope.';
comment on column perdure.step.kind is
'step, transaction, sql, value; signal, sleep, timer (what a wait returned); cancel (where it was delivered); started (at most once).';
comment on column perdure.step.ordinal is 'Order in which results were delivered to the run; replay follows it.';
comment on column perdure.step.name is 'Name of the value or signal; null for other kinds.';
comment on column perdure.step.fingerprint is 'First 16 bytes of the sha256 of the encoded arguments; null without any.';
comment on column perdure.step.result is
'What the step returned. JSON null is a result; SQL null in a signal means that the wait timed out.';
comment on column perdure.step.error is 'Object with type, message, details: why the step failed in the end.';
comment on column perdure.step.signal_id is 'Signal that this wait consumed.';
comment on column perdure.step.attempt is 'Try that succeeded or failed for good, from 1.';
comment on column perdure.step.started_at is 'When that try began, by the worker''s clock; null for waits.';
comment on column perdure.step.saved_at is 'When it was saved: as its worker says, which follows the database''s clock, else by that.';

create unique index step_consumed_idx on perdure.step (run_id, signal_id)
where signal_id is not null;
comment on index perdure.step_consumed_idx is 'A signal is consumed by one wait at most.';

create table perdure.step_attempt (
  run_id uuid not null,
  key text collate "C" not null,
  attempt integer not null,
  error jsonb not null,
  started_at timestamptz,
  failed_at timestamptz not null,
  retry_at timestamptz,
  constraint step_attempt_pkey primary key (run_id, key, attempt),
  constraint step_attempt_counts_from_1 check (attempt >= 1)
) partition by range (run_id);

comment on table perdure.step_attempt is 'Failed tries of steps, one row each, written once.';
comment on column perdure.step_attempt.run_id is 'Run whose step failed.';
comment on column perdure.step_attempt.key is 'Key of the step.';
comment on column perdure.step_attempt.attempt is 'Number of the try, from 1.';
comment on column perdure.step_attempt.error is 'Object with type, message, details, traceback.';
comment on column perdure.step_attempt.started_at is 'When the try began, by the worker''s clock.';
comment on column perdure.step_attempt.failed_at is 'When the failure was recorded, by the database''s clock.';
comment on column perdure.step_attempt.retry_at is 'When the step may be tried again; null: it was the last try.';
