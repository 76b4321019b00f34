-- Invariant: a signal is consumed by the one wait that names its id.

create or replace view perdure.signals as
select
  s.run_id,
  s.id,
  s.name,
  s.payload,
  s.sent_at,
  s.sent_by,
  c.run_id is not null as is_consumed,
  c.key as consumed_by,
  c.saved_at as consumed_at
from perdure.signal as s
left join perdure.step as c on s.run_id = c.run_id and s.id = c.signal_id;

comment on view perdure.signals is 'Messages that runs were sent, consumed or still in the mailbox.';
comment on column perdure.signals.run_id is 'Run that it was sent to.';
comment on column perdure.signals.id is 'Idempotency id of the message within the run.';
comment on column perdure.signals.name is 'Name by which a run waits for it.';
comment on column perdure.signals.payload is 'Its content.';
comment on column perdure.signals.sent_at is 'When it was sent.';
comment on column perdure.signals.sent_by is 'Role that sent it.';
comment on column perdure.signals.is_consumed is 'Whether the run has received it.';
comment on column perdure.signals.consumed_by is 'Key of the wait that consumed it.';
comment on column perdure.signals.consumed_at is 'When that was.';

create or replace view perdure.waits with (security_barrier) as
select
  u.run_id,
  u.workflow,
  u.queue,
  u.state,
  w.key,
  w.kind,
  w.name,
  w.until,
  coalesce(w.until <= (select perdure._clock()), false) as is_due
from perdure._unfinished as u
cross join lateral jsonb_to_recordset(u.waits) as w (
  key text, kind text, name text, until timestamptz
);

comment on view perdure.waits is
'What suspended runs wait for: one row per open wait; a run goes on with the first that is answered.';
comment on column perdure.waits.run_id is 'The run.';
comment on column perdure.waits.workflow is 'Its workflow.';
comment on column perdure.waits.queue is 'Its queue.';
comment on column perdure.waits.state is 'Its state: waiting, sleeping, backing_off, or ready once told.';
comment on column perdure.waits.key is 'Key under which the answer will be saved.';
comment on column perdure.waits.kind is
'signal (a message), sleep, timer (of a race or time-out) or retry (of a failed step).';
comment on column perdure.waits.name is 'Name of the signal; null for other kinds.';
comment on column perdure.waits.until is
'When the wait ends by itself; null: it waits for as long as it takes.';
comment on column perdure.waits.is_due is 'Whether that time has come.';
