-- Invariant: a run is in one worker's hands at a time, named by a random token that is never used again.
-- Lock order: worker (fence), dispatch in the order of its lanes without waiting, then inserts.

create or replace function perdure._read_steps(run_id uuid, after integer, max_bytes integer)
returns table (steps jsonb, has_more boolean)
language plpgsql
stable
strict
as $$
declare
  v_failed pg_catalog.jsonb;
begin
  select
    jsonb_agg(perdure._checkpoint(p.step) order by p.position) filter (where p.is_in),
    bool_or(not p.is_in)
  into steps, has_more
  from (
    select
      s as step,
      row_number() over w as position,
      rank() over w = 1 or sum(
        200 + coalesce(pg_column_size(s.result), 0) + coalesce(pg_column_size(s.error), 0)) over w <= _read_steps.max_bytes
        as is_in
    from perdure.step as s
    where s.run_id = _read_steps.run_id and s.ordinal > _read_steps.after
    window w as (order by s.ordinal)
  ) as p;

  if _read_steps.after = 0 then
    select jsonb_agg(jsonb_build_object(
      'ordinal', 0, 'key', f.key, 'kind', 'attempt', 'attempt', f.attempt, 'retry_at', f.retry_at)) || coalesce(steps, '[]')
    into v_failed
    from (
      select t.key, max(t.attempt) as attempt, max(t.retry_at) as retry_at
      from perdure.step_attempt as t
      where t.run_id = _read_steps.run_id
        and not exists (select from perdure.step as s where s.run_id = t.run_id and s.key = t.key)
      group by t.key
    ) as f;
  end if;
  steps := coalesce(v_failed, steps, '[]');
  has_more := coalesce(has_more, false);
  return next;
end;
$$;
comment on function perdure._read_steps(uuid, integer, integer) is
'Read a page of a run''s checkpoints in their order, first of all the failed tries of steps without one.';

create or replace function perdure.read_steps(run_id uuid, after integer default 0, max_bytes integer default 262144)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
begin
  -- held from here on, the table cannot be cut anew before it is read: a page without its steps would be the last
  perform from perdure.step as s where s.run_id = read_steps.run_id limit 1;
  perform perdure._check_snapshot(array[read_steps.run_id]);
  return (
    select r.steps from perdure._read_steps(read_steps.run_id, read_steps.after, read_steps.max_bytes) as r
  );
end;
$$;
comment on function perdure.read_steps(uuid, integer, integer) is
'Read a run''s checkpoints with an ordinal above after, up to about max_bytes, one at least.
Returns an array of objects with ordinal, key, kind, name, fingerprint, attempt, saved_at, and result or error; from the
start it begins with objects of kind attempt: failed tries of steps that have no checkpoint yet. Empty at the end.
Raises 40001 where an older snapshot cannot tell. Locks nothing.';

create or replace function perdure._lock_suspect(worker_id uuid, queues text[], workflows text[], now timestamptz)
returns uuid
language plpgsql
volatile
as $$
declare
  v_run_id pg_catalog.uuid;
begin
  -- suspects first: there are few, while what a worker held is many entries where an old snapshot keeps them
  if not exists (
    select from perdure.dispatch as d
    where d.queue = any(_lock_suspect.queues) and d.worker_id is null and not d.is_paused
      and d.ready_at <= _lock_suspect.now and d.recoveries >= 2
  ) or exists (
    select from perdure.dispatch as h where h.worker_id = _lock_suspect.worker_id and h.recoveries >= 2
  ) then
    return null;
  end if;
  select d.run_id into v_run_id
  from perdure.dispatch as d
  where d.queue = any(_lock_suspect.queues)
    and d.worker_id is null
    and not d.is_paused
    and d.ready_at <= _lock_suspect.now
    and d.recoveries >= 2
    and d.workflow = any(_lock_suspect.workflows)
  order by d.ready_at, d.run_id
  limit 1
  for update skip locked;
  return v_run_id;
end;
$$;
comment on function perdure._lock_suspect(uuid, text[], text[], timestamptz) is
'Lock a due suspect, a run that was in a worker''s hands at two deaths, for a worker that holds no other one.
Returns its id; null where there is none.';

create or replace function perdure._lock_claimable(worker_id uuid, max_runs integer, now timestamptz)
returns uuid[]
language plpgsql
volatile
as $$
declare
  v_worker perdure.worker;
  v_run_ids pg_catalog.uuid[];
  v_suspect pg_catalog.uuid;
  v_is_probe constant boolean := random() < 0.125;
begin
  select w.* into strict v_worker from perdure.worker as w where w.worker_id = _lock_claimable.worker_id;

  -- suspects come last, and in one claim of eight first: a queue that is never empty must not starve them
  if v_is_probe then
    v_suspect := perdure._lock_suspect(
      v_worker.worker_id, v_worker.queues, v_worker.workflows, _lock_claimable.now);
    if v_suspect is not null and _lock_claimable.max_runs = 1 then
      return array[v_suspect];
    end if;
  end if;
  v_run_ids := perdure._lock_lanes(
    v_worker.queues, v_worker.workflows, _lock_claimable.max_runs - (v_suspect is not null)::integer, _lock_claimable.now);
  if v_suspect is null and coalesce(cardinality(v_run_ids), 0) < _lock_claimable.max_runs then
    v_suspect := perdure._lock_suspect(
      v_worker.worker_id, v_worker.queues, v_worker.workflows, _lock_claimable.now);
  end if;
  return array_remove(v_run_ids || v_suspect, null);
end;
$$;
comment on function perdure._lock_claimable(uuid, integer, timestamptz) is
'Lock the first due runs that a worker may take, at most max_runs, lower priorities last. Returns their ids.';

create or replace function perdure._hand_over(worker_id uuid, run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  update perdure.dispatch as d
  set
    worker_id = _hand_over.worker_id,
    claim = c.claim,
    begun_at = c.begun_at,
    claimed_at = _hand_over.now,
    ends_at = c.ends_at,
    waits = null
  from (
    select
      o.run_id,
      perdure._random_uuid() as claim,
      coalesce(o.begun_at, _hand_over.now) as begun_at,
      coalesce(o.ends_at, case when o.begun_at is null then _hand_over.now + o.timeout end) as ends_at
    from perdure.dispatch as o
    where o.run_id = any(_hand_over.run_ids)
    offset 0  -- computed once per row, before the update
  ) as c
  where d.run_id = c.run_id;
end;
$$;
comment on function perdure._hand_over(uuid, uuid[], timestamptz) is
'Give runs whose dispatch rows the caller holds to a worker, each with a new token; begin those that never began.';

create or replace function perdure._answer_waiting(run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_cancelled pg_catalog.uuid[];
  v_suspended pg_catalog.jsonb;
begin
  select array_agg(c.run_id) into v_cancelled
  from perdure._deliver_cancels(_answer_waiting.run_ids, _answer_waiting.now) as c;
  select jsonb_agg(jsonb_build_object('run_id', d.run_id, 'waits', d.waits)) into v_suspended
  from perdure.dispatch as d
  where d.run_id = any(_answer_waiting.run_ids) and d.waits is not null
    and d.run_id <> all(coalesce(v_cancelled, '{}'));
  if v_suspended is not null then
    perform perdure._answer_waits(v_suspended, _answer_waiting.now);
  end if;
end;
$$;
comment on function perdure._answer_waiting(uuid[], timestamptz) is
'Save what ended the wait of runs that are claimed: a cancel, a message, a time. The caller holds the dispatch rows.';

create or replace function perdure.claim_runs(worker_id uuid, max_runs integer default 1)
returns table (
  run_id uuid,
  claim uuid,
  workflow text,
  input jsonb,
  key text,
  tags jsonb,
  headers jsonb,
  begun_at timestamptz,
  scheduled_at timestamptz,
  deadline timestamptz,
  cancel text,
  recoveries integer,
  steps jsonb,
  has_more boolean
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now timestamptz;
  v_run_ids uuid[];
  v_begun uuid[];
  v_waited uuid[];
  v_sound uuid[];
begin
  if claim_runs.max_runs is null or claim_runs.max_runs not between 1 and 10000 then
    raise exception 'max_runs must be between 1 and 10000'
      using errcode = '22023',
            detail = format('It is %s.', coalesce(claim_runs.max_runs::text, 'null')),
            hint = 'Pass how many runs the worker has room for.';
  end if;
  perform perdure._fence(claim_runs.worker_id);
  if perdure._hold() is not null then
    return;
  end if;
  perform perdure._drain(1000);
  v_now := perdure._now();  -- after the drain: what it made ready is due
  v_run_ids := perdure._lock_claimable(claim_runs.worker_id, claim_runs.max_runs, v_now);
  if coalesce(cardinality(v_run_ids), 0) = 0 then
    return;
  end if;

  -- look, in a statement later than the lock: what ended the wait of each; most runs have not waited
  select
    array_agg(d.run_id) filter (where d.begun_at is not null),
    array_agg(d.run_id) filter (where d.cancel is not null or d.waits is not null)
  into v_begun, v_waited
  from perdure.dispatch as d
  where d.run_id = any(v_run_ids);
  if v_waited is not null then
    v_sound := perdure._isolate('claim', v_waited, v_now);
    v_run_ids := array(
      select a.run_id from unnest(v_run_ids) as a (run_id)
      where a.run_id <> all(v_waited) or a.run_id = any(v_sound));
  end if;
  perform perdure._hand_over(claim_runs.worker_id, v_run_ids, v_now);

  return query
  select
    d.run_id, d.claim, d.workflow, r.input, r.key, r.tags, r.headers, d.begun_at, r.scheduled_at,
    case when d.cancel is null then d.ends_at end, d.cancel, d.recoveries,
    coalesce(s.steps, '[]'), coalesce(s.has_more, false)
  from perdure.dispatch as d
  inner join perdure.run as r on r.run_id = d.run_id
  left join lateral (
    -- strict: a run that never began has nothing to read, and the function is not entered
    select p.steps, p.has_more
    from perdure._read_steps(case when d.run_id = any(v_begun) then d.run_id end, 0, 262144) as p
  ) as s on true
  where d.run_id = any(v_run_ids);
end;
$$;
comment on function perdure.claim_runs(uuid, integer) is
'Take due runs of the worker''s queues and workflows, at most max_runs, and bring what they need to go on.
A wait whose message came or whose time is due is answered here: its checkpoint is among the steps, which are as
read_steps returns them, up to 256 kB; has_more: fetch the rest with read_steps. begun_at is the time of the run''s
first claim, where its own clock starts. deadline is when the run will be told to
end, cancel is set once it was. Execute nothing until the commit is acknowledged. On hold it brings nothing.
After a lost answer ask worker_runs and give back with release_runs what is held unknown: the same call claims other runs.
Raises PD002 where the worker is not registered, 22023 for a bad max_runs, 55000 outside READ COMMITTED. Locks the
worker''s row shared, the runs'' dispatch rows without waiting.';
