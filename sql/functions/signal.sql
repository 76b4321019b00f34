-- Invariant: a message and its wake commit together with the caller's transaction; the receiver's dispatch row is
-- never touched.
-- Lock order: the message's id (a rival with the same id waits, at most 5 s), then the insert into wake.

create or replace function perdure.signal(
  run_id uuid,
  name text,
  payload jsonb default '{}',
  id text default null
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_queue text;
begin
  perform perdure._check_name('signal', signal.name);
  perform perdure._check_payload('payload', signal.payload);
  if signal.id is not null then
    perform perdure._check_name('signal id', signal.id);
  end if;

  if exists (select from perdure.signal as s where s.run_id = signal.run_id and s.id = signal.id collate "C") then
    return 'duplicate';
  elsif exists (select from perdure.outcome as o where o.run_id = signal.run_id) then
    return 'finished';
  end if;
  select r.queue into v_queue from perdure.run as r where r.run_id = signal.run_id;
  if not found then
    perform perdure._check_snapshot(array[signal.run_id]);
    return 'unknown';
  end if;

  insert into perdure.signal as s (run_id, id, name, payload, sent_at, sequence, sent_by)
  values (
    signal.run_id, coalesce(signal.id, perdure._uuid7(v_now)::text), signal.name, signal.payload,
    v_now, nextval('perdure.signal_sequence'), perdure._caller())
  on conflict on constraint signal_pkey do nothing;
  if not found then
    return 'duplicate';
  end if;
  insert into perdure.wake (run_id, told_at) values (signal.run_id, v_now);
  perform perdure._notify(v_queue);
  return 'accepted';
end;
$$;
comment on function perdure.signal(uuid, text, jsonb, text) is
'Send a message to one run; it is kept until the run waits for its name.
id makes it idempotent. Without it each call sends another message. Returns accepted, duplicate (this id was sent before), finished (the run has ended) or unknown
(no such run), instead of raising, so that a late webhook does not abort its transaction.
Raises 22023 for a bad name or a null payload, PD010 for a too large one, 55P03 after 5 s behind an open transaction
that sent the same id. Locks nothing of the run.';

create or replace function perdure.signal_key(
  workflow text,
  key text,
  name text,
  payload jsonb default '{}',
  id text default null,
  start_input jsonb default null
)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
declare
  v_run_id uuid;
begin
  perform perdure._check_name('key', signal_key.key);
  v_run_id := perdure.find_run(signal_key.workflow, signal_key.key);
  if v_run_id is null and signal_key.start_input is not null then
    begin
      v_run_id := perdure.start(signal_key.workflow, signal_key.start_input, signal_key.key);
    exception
      when sqlstate 'PD005' then  -- somebody else started it meanwhile, with another input: the message is for that run
        v_run_id := perdure.find_run(signal_key.workflow, signal_key.key);
    end;
  end if;
  return perdure.signal(v_run_id, signal_key.name, signal_key.payload, signal_key.id);
end;
$$;
comment on function perdure.signal_key(text, text, text, jsonb, text, jsonb) is
'Send a message to the run that a key of a workflow names.
With start_input the run is started first where the key names none, and finds the message in its mailbox.
Without id each call sends another message.
Returns and raises as signal does, and as start does where it starts. Locks the key''s row only when it starts.';
