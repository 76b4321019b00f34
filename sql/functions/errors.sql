-- Invariant: every SQLSTATE of class PD that a body raises stands here, and every one here is raised somewhere.

create or replace view perdure.errors as
select
  e.sqlstate,
  e.name,
  e.meaning
from (
  values
  ('PD001', 'run_not_found', 'No run has this id or key.'),
  ('PD002', 'claim_lost', 'The worker lost the run, or is not registered any more; it must drop what it holds.'),
  ('PD003', 'run_finished', 'The run has ended, so the act has no effect.'),
  ('PD004', 'held', 'The install is on hold, and what was asked for cannot be done on hold.'),
  ('PD005', 'key_conflict', 'The key is taken: by a run with another input, or it was asked to be new.'),
  ('PD007', 'not_finished', 'The run has no result yet.'),
  ('PD008', 'run_failed', 'The run failed; the detail holds its error.'),
  ('PD009', 'illegal_act', 'The act does not fit the state of the run.'),
  ('PD010', 'limit_exceeded', 'A payload is larger than the install allows.'),
  ('PD012', 'run_cancelled', 'The run was cancelled.'),
  ('PD013', 'run_timed_out', 'The run ran into its deadline.'),
  ('PD014', 'run_terminated', 'The run was terminated.'),
  ('PD015', 'run_dead', 'The run was given up after too many deaths of its workers.')
) as e (sqlstate, name, meaning);

comment on view perdure.errors is 'Error codes of the engine, on which clients branch.';
comment on column perdure.errors.sqlstate is 'Five characters, as in the diagnostics of Postgres.';
comment on column perdure.errors.name is 'Name of the condition.';
comment on column perdure.errors.meaning is 'What it tells the caller.';
