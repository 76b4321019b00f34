-- Invariant: a checkpoint is saved only by the holder of the run's claim, once per key; the first save wins and whoever
-- comes later is told what is on record. A failed try is recorded once, and always gets the same answer.
-- Lock order: worker (fence), dispatch by run_id without waiting (key share: parallel steps of one run do not collide),
-- then inserts. save_transaction_step alone may wait for the dispatch row, for 2 s at most, before its insert.

create or replace function perdure._checkpoint(step perdure.step)
returns jsonb
language plpgsql
stable
parallel safe
as $$
begin
  return jsonb_strip_nulls(jsonb_build_object(
      'ordinal', _checkpoint.step.ordinal,
      'key', _checkpoint.step.key,
      'kind', _checkpoint.step.kind,
      'name', _checkpoint.step.name,
      'fingerprint', encode(_checkpoint.step.fingerprint, 'hex'),
      'attempt', _checkpoint.step.attempt,
      'saved_at', _checkpoint.step.saved_at))
    -- apart from the rest: JSON null is a result, SQL null is none
    || case when _checkpoint.step.result is null then '{}' else jsonb_build_object('result', _checkpoint.step.result) end
    || case when _checkpoint.step.error is null then '{}' else jsonb_build_object('error', _checkpoint.step.error) end;
end;
$$;
comment on function perdure._checkpoint(perdure.step) is 'Show a checkpoint as the object that a worker reads.';

create or replace function perdure._unmixed(inout run_ids uuid[], inout claims uuid[])
returns record
language plpgsql
immutable
parallel safe
as $$
declare
  v_is_mixed boolean;
begin
  select array_agg(g.run_id), array_agg(g.claim), bool_or(g.is_mixed) into run_ids, claims, v_is_mixed
  from (
    select
      a.run_id, min(a.claim::text)::uuid as claim,
      min(a.claim::text) <> max(a.claim::text) or count(a.claim) not in (0, count(*)) as is_mixed
    from unnest(_unmixed.run_ids, _unmixed.claims) as a (run_id, claim)
    group by a.run_id
  ) as g;
  if v_is_mixed then  -- else what comes by a lost claim would pass with what comes by the valid one
    raise exception 'a batch names a run by two claims' using errcode = '22023', hint = 'Send them in two calls.';
  end if;
end;
$$;
comment on function perdure._unmixed(uuid[], uuid[]) is
'List each run of a batch once, with its claim. Raises 22023 for one that is named by two claims.';

create or replace function perdure._lock_runs(
  worker_id uuid, claims jsonb, is_shared boolean, out held uuid[], out others jsonb
)
returns record
language plpgsql
volatile
as $$
declare
  v_run_ids pg_catalog.uuid[];
  v_claims pg_catalog.uuid[];
  v_count bigint;
begin
  if jsonb_typeof(_lock_runs.claims) is distinct from 'array' then
    perform perdure._check_array('the batch', _lock_runs.claims);
  end if;
  perform perdure._fence(_lock_runs.worker_id);
  select array_agg(a.run_id), array_agg(a.claim), count(distinct a.run_id) into v_run_ids, v_claims, v_count
  from jsonb_to_recordset(_lock_runs.claims) as a (run_id uuid, claim uuid);
  if v_count < cardinality(v_run_ids) then  -- runs that it names more than once
    select u.run_ids, u.claims into v_run_ids, v_claims from perdure._unmixed(v_run_ids, v_claims) as u;
  end if;
  -- each by its id: by worker_id (no index serves "is not distinct from") all that the worker ever held would be read
  -- where an old snapshot keeps it, and compared with each claim
  if _lock_runs.is_shared then
    select array_agg(l.run_id) into held
    from (select u.* from unnest(v_run_ids, v_claims) as u (run_id, claim) order by u.run_id) as c
    cross join lateral (
      select d.run_id
      from perdure.dispatch as d
      where d.run_id = c.run_id
        and d.claim = c.claim
        and d.worker_id is not distinct from _lock_runs.worker_id
      for key share skip locked
    ) as l;
  else
    select array_agg(l.run_id) into held
    from (select u.* from unnest(v_run_ids, v_claims) as u (run_id, claim) order by u.run_id) as c
    cross join lateral (
      select d.run_id
      from perdure.dispatch as d
      where d.run_id = c.run_id
        and d.claim = c.claim
        and d.worker_id is not distinct from _lock_runs.worker_id
      for update skip locked
    ) as l;
  end if;

  others := '{}';
  if cardinality(held) = cardinality(v_run_ids) then
    return;
  end if;
  -- a later statement, hence a later snapshot: what was not got is judged by what is committed now
  select coalesce(jsonb_object_agg(a.run_id, case
    when o.claim = a.claim then 'done'
    when d.claim is distinct from a.claim then 'lost'
    when d.worker_id is null then 'done'
    when d.worker_id = _lock_runs.worker_id then 'busy'
    else 'lost'
  end), '{}') into others
  from unnest(v_run_ids, v_claims) as a (run_id, claim)
  left join perdure.dispatch as d on d.run_id = a.run_id
  left join perdure.outcome as o on o.run_id = a.run_id
  where (a.run_id = any(held)) is not true;
end;
$$;
comment on function perdure._lock_runs(uuid, jsonb, boolean) is
'Take the fence, then lock the dispatch rows that a worker holds by these claims, in order, without waiting.
claims is an array of objects with run_id and claim. Returns the runs that are locked now, and an object with an answer
for each other one: done (this claim let go of the run or ended it), busy (somebody holds the row for a moment: send
again) or lost. is_shared takes FOR KEY SHARE. Raises PD002, 22023 for a batch that names a run by two claims, 55000.';

create or replace function perdure._check_saves(saves jsonb)
returns void
language plpgsql
stable
as $$
declare
  v_limit constant bigint := perdure._limit_for(_check_saves.saves);
  v_bad pg_catalog.text;
begin
  if perdure._is_above(_check_saves.saves, v_limit) then
    perform perdure._check_payload(format('result of step "%s"', s.key), coalesce(s.error, s.result))
    from jsonb_to_recordset(_check_saves.saves) as s (key text, result jsonb, error jsonb)
    where pg_column_size(coalesce(s.error, s.result)) > v_limit;  -- of the two the error is kept
  end if;
  -- A constraint would refuse most of it too, but by a detail with the whole row, whose payload then stands in the log.
  -- An ordinal is counted on from in claims of many runs. Waits and cancels are the engine's alone to record.
  select format('%s of step "%s"', v.what, left(v.key, 200)) into v_bad
  from (
    select
      s.key,
      case
        when coalesce(octet_length(s.key), 0) not between 1 and 1000 or s.key like '~%' then 'key'
        when coalesce(s.kind, '') not in ('step', 'transaction', 'sql', 'value', 'started') then 'kind'
        when s.ordinal is null or s.ordinal not between 1 and 1000000000 then 'ordinal'
        when s.attempt < 1 then 'attempt'
        when s.fingerprint !~ '^[0-9a-fA-F]{32}$' then 'fingerprint'
        when s.saved_at not between '0001-01-02 UTC' and '9999-12-30 UTC' then 'saved_at'  -- clients could not read it
      end as what
    from jsonb_to_recordset(_check_saves.saves) as s (
      key text, kind text, ordinal bigint, attempt bigint, fingerprint text, saved_at timestamptz)
  ) as v
  where v.what is not null
  limit 1;
  if v_bad is not null then
    raise exception 'a save is not complete'
      using errcode = '22023',
            detail = format('It is the %s.', v_bad),
            hint = 'key has 1 to 1000 bytes and no ~ in front, kind is step, transaction, sql, value or started, ordinal'
                   ' is between 1 and 1,000,000,000, attempt from 1, fingerprint 32 hex digits, saved_at of year 1 to 9999.';
  end if;
end;
$$;
comment on function perdure._check_saves(jsonb) is
'Refuse checkpoints that a worker may not record, without a word of what is in them. Raises 22023 and PD010.';

create or replace function perdure._insert_saves(saves jsonb, run_ids uuid[])
returns perdure.step[]
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
  v_new perdure.step[];
begin
  perform perdure._check_saves(_insert_saves.saves);
  with saved as (
    insert into perdure.step as s (
      run_id, key, kind, ordinal, name, fingerprint, result, error, attempt, started_at, saved_at)
    select
      a.run_id, a.key, a.kind, a.ordinal, a.name, decode(a.fingerprint, 'hex'),
      case when a.error is null then coalesce(a.result, 'null') end,  -- an absent result is JSON null
      a.error, coalesce(a.attempt, 1), a.started_at, coalesce(a.saved_at, v_now)
    from jsonb_to_recordset(_insert_saves.saves) as a (
      run_id uuid, key text, kind text, ordinal integer, name text, fingerprint text, result jsonb, error jsonb,
      attempt integer, started_at timestamptz, saved_at timestamptz)
    where a.run_id = any(_insert_saves.run_ids)
    order by a.run_id, a.key
    on conflict on constraint step_pkey do nothing
    returning s.*
  )
  select array_agg(n::perdure.step) into v_new from saved as n;
  if exists (
    select from perdure.dispatch as d where d.run_id = any(_insert_saves.run_ids) and d.recoveries <> 0
  ) then
    perform perdure._note_progress(array(select n.run_id from unnest(v_new) as n));
  end if;
  return coalesce(v_new, '{}');
end;
$$;
comment on function perdure._insert_saves(jsonb, uuid[]) is
'Insert the checkpoints of runs whose dispatch rows the caller holds.
Returns those that were new. Raises as _check_saves does. Sets recoveries to 0 where one was new.';

create or replace function perdure._lock_and_save(
  worker_id uuid, batch jsonb, out held uuid[], out others jsonb, out on_record uuid[]
)
returns record
language plpgsql
volatile
as $$
declare
  v_lock pg_catalog.record;
  v_saves pg_catalog.jsonb;
  v_new perdure.step[];
begin
  v_lock := perdure._lock_runs(_lock_and_save.worker_id, _lock_and_save.batch, false);
  held := v_lock.held;
  others := v_lock.others;
  if not _lock_and_save.batch @? '$[*].saves[*]' then
    return;
  end if;
  select jsonb_agg(s.save || jsonb_build_object('run_id', a.run_id)) into v_saves
  from jsonb_to_recordset(_lock_and_save.batch) as a (run_id uuid, saves jsonb)
  cross join lateral jsonb_array_elements(a.saves) as s (save)
  where a.run_id = any(held) and jsonb_typeof(a.saves) = 'array';
  if v_saves is null then
    return;
  end if;
  v_new := perdure._insert_saves(v_saves, held);
  if cardinality(v_new) < jsonb_array_length(v_saves) then
    on_record := (
      select array_agg(a.run_id) from jsonb_to_recordset(v_saves) as a (run_id uuid, key text)
      where (a.run_id, a.key) not in (select n.run_id, n.key from unnest(v_new) as n));
  end if;
end;
$$;
comment on function perdure._lock_and_save(uuid, jsonb) is
'Begin what lets go of runs: lock them as _lock_runs does, alone, and insert the last saves that the batch carries.
Returns and raises as these do; on_record has the runs of which a save was on record before, null for none.';

create or replace function perdure.save_steps(worker_id uuid, saves jsonb)
returns table (
  run_id uuid,
  key text,
  answer text,
  result jsonb,
  error jsonb,
  ordinal integer,
  kind text,
  fingerprint text,
  saved_at timestamptz
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
  v_lock record;
  v_new perdure.step[];
begin
  v_lock := perdure._lock_runs(save_steps.worker_id, save_steps.saves, true);
  v_new := perdure._insert_saves(save_steps.saves, v_lock.held);

  return query
  select n.run_id, n.key, 'saved', null::jsonb, null::jsonb, n.ordinal, null, null, n.saved_at
  from unnest(v_new) as n;
  if cardinality(v_new) = jsonb_array_length(save_steps.saves) then
    return;
  end if;
  return query
  select
    a.run_id,
    a.key,
    case when s.run_id is not null then 'on_record' when v_lock.others ->> a.run_id::text = 'busy' then 'busy' else 'lost' end,
    s.result,
    s.error,
    s.ordinal,
    s.kind,
    encode(s.fingerprint, 'hex'),
    s.saved_at
  from jsonb_to_recordset(save_steps.saves) as a (run_id uuid, key text)
  left join perdure.step as s on s.run_id = a.run_id and s.key = a.key and a.run_id = any(v_lock.held)
  where (a.run_id, a.key) not in (select n.run_id, n.key from unnest(v_new) as n);
end;
$$;
comment on function perdure.save_steps(uuid, jsonb) is
'Save checkpoints of runs that the worker holds.
saves is an array of objects with run_id, claim, key, kind, ordinal, and result or error; optional: name, fingerprint
(hex), attempt, started_at, saved_at (now, for who knows no better). Returns for each key, in no order: saved; on_record (it was saved before); busy (send again
alone); lost (drop the run). With the first two come ordinal and saved_at, with on_record all that is on record: result,
error, kind, fingerprint (hex); what was saved now is on record as it was sent.
Raises PD002 where the worker is not registered, 22023 for what is not complete or names a run by two claims, PD010 for
a too large result, 55000 outside READ COMMITTED. Locks the worker''s row and the runs'' dispatch rows shared, those of
runs with deaths on record for update, without waiting.';

create or replace function perdure.save_transaction_step(worker_id uuid, save jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '2s'
as $$
declare
  v_run_id constant uuid := (save_transaction_step.save ->> 'run_id')::uuid;
  v_key constant text := save_transaction_step.save ->> 'key';
  v_new perdure.step[];
begin
  perform perdure._fence(save_transaction_step.worker_id, true);  -- the user's transaction may have any isolation
  -- FOR SHARE, not KEY SHARE: in REPEATABLE READ the latter returns a row whose token was replaced
  perform from perdure.dispatch as d
  where d.run_id = v_run_id
    and d.worker_id is not distinct from save_transaction_step.worker_id
    and d.claim = (save_transaction_step.save ->> 'claim')::uuid
  for share;
  if not found then
    raise exception 'worker "%" no longer holds run "%"', save_transaction_step.worker_id, v_run_id
      using errcode = 'PD002',  -- claim_lost
            detail = 'Another worker claimed the run, or the run ended.',
            hint = 'Roll back and drop the run.';
  end if;
  v_new := perdure._insert_saves(jsonb_build_array(save_transaction_step.save), array[v_run_id]);
  if cardinality(v_new) = 0 then
    raise exception 'step "%" of run "%" is on record already', v_key, v_run_id
      using errcode = 'PD002',  -- claim_lost
            detail = 'The transaction that saved it took effect; this one must not take effect as well.',
            hint = 'Roll back and read the step with perdure.read_steps.';
  end if;
  return perdure._checkpoint(v_new[1]);
end;
$$;
comment on function perdure.save_transaction_step(uuid, jsonb) is
'Save a checkpoint in the user''s own transaction, so that the step''s writes and its checkpoint are one commit.
save is one object as save_steps takes it. Returns the checkpoint, as in read_steps.
Raises PD002 where the claim is lost or the step on record, 22023 and PD010 as save_steps does, 40001 or 55P03 where the
row is being changed: roll back, ask worker_runs, and run the step again from its beginning.
Locks the worker''s row and the run''s dispatch row shared until the transaction ends; waits for them 2 s at most. Not for a
transaction that will be prepared (PREPARE TRANSACTION): until that one ends its worker cannot be declared dead, and nobody
takes over any of its runs.';
