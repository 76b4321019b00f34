-- Invariant: a message is written once per (run, id) and stays in the mailbox; the wait that consumes it names its id.

create sequence perdure.signal_sequence;
comment on sequence perdure.signal_sequence is
'Orders the signals of one session that were sent within the same microsecond.';

create table perdure.signal (
  run_id uuid not null,
  id text collate "C" not null,
  name text collate "C" not null,
  payload jsonb not null,
  sent_at timestamptz not null,
  sequence bigint not null,
  sent_by text not null,
  constraint signal_pkey primary key (run_id, id),
  constraint signal_id_is_short_and_not_empty check (length(id) between 1 and 200)
) partition by range (run_id);

comment on table perdure.signal is 'Mailboxes: what a run was told, one row per message, written once.';
comment on column perdure.signal.run_id is 'Run that it was sent to.';
comment on column perdure.signal.id is 'Idempotency id of the message within the run; made by the database where none was given.';
comment on column perdure.signal.name is 'Name by which a run waits for it.';
comment on column perdure.signal.payload is 'Its content; never SQL null.';
comment on column perdure.signal.sent_at is 'When it was sent; consumed in this order, then by sequence.';
comment on column perdure.signal.sequence is 'Breaks ties of sent_at.';
comment on column perdure.signal.sent_by is 'Role that sent it.';

create table perdure.act (
  run_id uuid not null,
  act_id uuid not null,
  act text not null,
  reason text,
  grace interval,
  asked_by text not null,
  asked_at timestamptz not null,
  applied_at timestamptz,
  answer text,
  constraint act_pkey primary key (run_id, act_id),
  constraint act_is_known check (act in ('cancel', 'terminate', 'pause', 'resume')),
  constraint act_answer_comes_when_it_is_applied check ((answer is null) = (applied_at is null))
) partition by range (run_id);

comment on table perdure.act is
'What operators and clients asked of a run; written once, then answered once by the engine under the run''s lock.';
comment on column perdure.act.run_id is 'Run that it concerns.';
comment on column perdure.act.act_id is 'UUIDv7.';
comment on column perdure.act.act is 'cancel, terminate, pause or resume.';
comment on column perdure.act.reason is 'Why, in the words of who asked.';
comment on column perdure.act.grace is 'Time for clean-up that a cancel grants.';
comment on column perdure.act.asked_by is
'Role that asked; a worker''s own pause names the worker''s role, one by the engine itself perdure.';
comment on column perdure.act.asked_at is 'When it was asked.';
comment on column perdure.act.applied_at is 'When the engine answered it; null while it is pending.';
comment on column perdure.act.answer is
'accepted, duplicate or finished; failed where the engine could not apply it and paused the run; null while pending.';

create index act_pending_idx on perdure.act (run_id, asked_at, act_id)
where applied_at is null;
comment on index perdure.act_pending_idx is '_apply_acts: what was asked and not answered yet.';
