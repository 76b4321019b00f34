-- Invariant: a row of worker is a live worker, written once; what changes is its row of worker_beat.
-- Lock order: worker, then dispatch by run_id without waiting.

create or replace function perdure._lock_key(worker_id uuid)
returns bigint
language plpgsql
immutable
parallel safe
as $$
begin
  return hashtextextended('perdure' || ':' || _lock_key.worker_id::text, 0);
end;
$$;
comment on function perdure._lock_key(uuid) is 'Name the advisory lock that a direct worker holds while it is connected.';

create or replace function perdure.register_worker(
  queues text[],
  workflows text[],
  name text default null,
  version text default null,
  lease interval default '30 seconds',
  is_direct boolean default false
)
returns uuid
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_worker_id constant uuid := perdure._uuid7(v_now);
begin
  if coalesce(cardinality(register_worker.queues), 0) = 0
    or coalesce(cardinality(register_worker.workflows), 0) = 0 then
    raise exception 'a worker needs at least one queue and one workflow'
      using errcode = '22023',
            hint = 'Pass the queues it takes runs from and the workflows it knows.';
  end if;
  if register_worker.lease is null or register_worker.lease not between interval '1 second' and interval '1 day' then
    raise exception 'lease must be between 1 second and 1 day'
      using errcode = '22023',
            detail = format('It is %s.', coalesce(register_worker.lease::text, 'null')),
            hint = 'Leave it out for 30 seconds.';
  end if;
  perform perdure._check_name('queue', q.name) from unnest(register_worker.queues) as q (name);
  perform perdure._check_name('workflow', w.name) from unnest(register_worker.workflows) as w (name);
  perform perdure._know_queues(register_worker.queues collate "C", v_now);
  insert into perdure.workflow as w (name, queue, max_recoveries, registered_at)
  select distinct a.name, register_worker.queues[1], 10, v_now
  from unnest(register_worker.workflows collate "C") as a (name)
  where not exists (select from perdure.workflow as k where k.name = a.name)
  order by a.name
  on conflict on constraint workflow_pkey do nothing;

  perform perdure._note_hold(v_now);
  insert into perdure.worker (
    worker_id, name, version, queues, workflows, lease, is_direct, timeline, registered_at, registered_by)
  values (
    v_worker_id, coalesce(register_worker.name, v_worker_id::text), register_worker.version, register_worker.queues,
    register_worker.workflows, register_worker.lease, register_worker.is_direct, perdure._timeline(),
    v_now, perdure._caller());
  insert into perdure.worker_beat (worker_id, beat_at) values (v_worker_id, v_now);
  if register_worker.is_direct then
    perform perdure.worker_lock(v_worker_id);
  end if;
  return v_worker_id;
end;
$$;
comment on function perdure.register_worker(text[], text[], text, text, interval, boolean) is
'Make a worker known: it may claim runs of these queues and workflows from now on. Makes unknown names known.
is_direct: this session holds an advisory lock for the worker from now on, so that its end tells of a death early; pass
false behind a pooler. On hold it is registered, and claims nothing until the hold is ended.
A call made again after a lost answer registers another worker; the first is buried after its lease, having claimed
nothing. Returns the worker''s id. Raises 22023 for empty lists, bad names or a bad lease, 55P03 after 5 s behind an
open transaction that makes one of the names known too.';

create or replace function perdure.worker_lock(worker_id uuid)
returns boolean
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$ select pg_try_advisory_lock(perdure._lock_key(worker_lock.worker_id)) $$;
comment on function perdure.worker_lock(uuid) is
'Take the worker''s advisory lock in this session again, after a reconnect on a direct connection.
Returns false where another session holds it. Locks nothing else.';

create or replace function perdure._read_held(worker_id uuid, now timestamptz)
returns table (runs integer, told jsonb)
language plpgsql
volatile
as $$
declare
  v_kept constant pg_catalog.jsonb := case when current_setting('perdure.held_head', true) <> '' then
    perdure._recall_heads('perdure.held_head', _read_held.worker_id::text, _read_held.now) end;
  v_head constant pg_catalog.timestamptz :=
    case when v_kept is null then '-infinity' else perdure._head(v_kept ->> 'heads', _read_held.now) end;
  v_read bigint := pg_stat_get_xact_tuples_returned('perdure.dispatch_worker_idx'::regclass);
  v_first pg_catalog.timestamptz;
begin
  select
    count(*)::integer,
    jsonb_agg(jsonb_build_object(
      'run_id', d.run_id, 'claim', d.claim, 'cancel', d.cancel, 'is_paused', d.is_paused,
      'is_told', d.told_at is not null)) filter (where d.told_at is not null or d.is_paused),
    min(d.claimed_at)
  into runs, told, v_first
  from perdure.dispatch as d
  where d.worker_id = _read_held.worker_id and d.claimed_at >= v_head;
  v_read := pg_stat_get_xact_tuples_returned('perdure.dispatch_worker_idx'::regclass) - v_read;
  if v_read - runs > 100 then
    -- a claim commits soon: to read from the bottom may take a two-hundredth of the time, one beat in many
    perform perdure._keep_heads('perdure.held_head', _read_held.worker_id::text, v_kept,
      to_jsonb(coalesce(v_first, _read_held.now)), _read_held.now, 200);
  end if;
  return next;
end;
$$;
comment on function perdure._read_held(uuid, timestamptz) is
'Count the runs that a worker holds, and list those that were told something since they were claimed; null where none was.
Where it read many entries in vain the session keeps a head for its next calls.';

create or replace function perdure.beat(
  worker_id uuid,
  runs_held integer default null,
  activity jsonb default '[]'
)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_activity jsonb;
  v_held integer;
  v_told jsonb;
  v_disagreements integer;
  v_timeline integer;
  v_registered integer;
begin
  if beat.activity is distinct from '[]' then
    perform perdure._check_array('activity', beat.activity);
    perform perdure._check_payload('activity', beat.activity);
    -- read here, where a misprint is its worker's own trouble and its DateStyle counts: explain reads it for others
    select jsonb_agg(jsonb_build_object('run_id', a.run_id, 'key', a.key, 'since', a.since, 'progress', a.progress))
    into v_activity
    from jsonb_to_recordset(beat.activity) as a (run_id uuid, key text, since timestamptz, progress jsonb);
  end if;
  select h.runs, h.told into strict v_held, v_told from perdure._read_held(beat.worker_id, v_now) as h;

  -- a sign of life that waits for a standby which is gone is a death; nobody misses one that a crash takes back
  if pg_current_xact_id_if_assigned() is null then  -- nothing else was written yet
    perform set_config('perdure.before_beat', current_setting('synchronous_commit'), true);
    perform set_config('synchronous_commit', 'off', true);
  end if;
  update perdure.worker_beat as b
  set
    beat_at = v_now,
    runs_held = beat.runs_held,
    activity = coalesce(v_activity, '[]'),
    disagreements = case when beat.runs_held <> v_held then b.disagreements + 1 else 0 end
  where b.worker_id = beat.worker_id
  returning b.disagreements into v_disagreements;
  v_timeline := perdure._timeline();
  v_registered := (select w.timeline from perdure.worker as w where w.worker_id = beat.worker_id);
  if v_disagreements is null or v_registered is distinct from v_timeline then
    perform perdure._raise_unregistered(beat.worker_id, case when v_disagreements is not null then v_registered end);
  end if;
  return jsonb_build_object(
    'timeline', v_timeline,
    'clock', extract(epoch from v_now),
    'reconcile', v_disagreements >= 2,
    'hold', perdure._hold(),
    'runs', coalesce(v_told, '[]'));
end;
$$;
comment on function perdure.beat(uuid, integer, jsonb) is
'Show that a worker is alive, how many runs it holds and which steps it has been running for long.
activity is an array of objects with run_id, key, since, progress. Returns an object: timeline of the server; clock, its time in seconds since 1970; reconcile,
true after two beats in a row that disagree about the number held (ask worker_runs then); hold, the reason why the
install is on hold, null while it is not: begin no step, and give back all runs (release_runs); runs that were told
something since they were claimed, each with run_id, claim, cancel, is_paused, is_told.
Raises PD002 where the worker is not registered, or was so on another timeline, 22023 for activity that is no array,
PD010 for too much of it. Locks its own heartbeat only. To be called in a transaction of its own, which then commits
asynchronously.';

create or replace function perdure.worker_runs(worker_id uuid)
returns table (run_id uuid, claim uuid)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  return query
  select d.run_id, d.claim from perdure.dispatch as d where d.worker_id = worker_runs.worker_id;
end;
$$;
comment on function perdure.worker_runs(uuid) is
'List what the database says a worker holds: to be asked after a broken connection.
Returns run_id and claim of each. Locks nothing.';

create or replace function perdure.stop_worker(worker_id uuid)
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_count integer;
  v_released integer := 0;
  v_queues text[];
begin
  select w.queues into v_queues from perdure.worker as w where w.worker_id = stop_worker.worker_id for update;
  if not found then
    return 0;
  end if;
  for v_round in 1..50 loop
    update perdure.dispatch as d
    set worker_id = null, ready_at = v_now, told_at = null
    where d.run_id in (
      select h.run_id from perdure.dispatch as h
      where h.worker_id = stop_worker.worker_id
      order by h.run_id
      for update skip locked
    );
    get diagnostics v_count = row_count;
    v_released := v_released + v_count;
    -- a drain holds some for a moment: to leave them behind would count as a death
    exit when not exists (select from perdure.dispatch as d where d.worker_id = stop_worker.worker_id);
    perform pg_sleep(0.02);
  end loop;
  delete from perdure.worker as w where w.worker_id = stop_worker.worker_id;
  -- a beat locks its row before it looks at the worker's: one that is under way leaves it to the next tick
  delete from perdure.worker_beat as b
  where b.worker_id in (
    select o.worker_id from perdure.worker_beat as o where o.worker_id = stop_worker.worker_id for update skip locked);
  if v_released > 0 then
    perform perdure._notify(q.queue) from unnest(v_queues) as q (queue);
  end if;
  return v_released;
end;
$$;
comment on function perdure.stop_worker(uuid) is
'Forget a worker that has stopped; runs that it still holds go back to ready, which counts as no death.
Returns how many those were, 0 where it was stopped before; what is locked for longer than a second is recovered by the next tick.
Locks the worker''s row, waiting for its own open transactions, then its runs without waiting.';
