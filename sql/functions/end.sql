-- Invariant: one function, _end_runs, ends runs, whatever the way: the dispatch row goes and the outcome comes in
-- one statement.
-- Lock order: worker (fence), dispatch by run_id without waiting (for update), then inserts, then wake.

create or replace function perdure._end_runs(ends perdure.outcome[])
returns void
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
  v_successors pg_catalog.uuid[];
  v_queues pg_catalog.text[];
begin
  if _end_runs.ends is null then
    return;
  end if;
  with gone as (
    delete from perdure.dispatch as d
    using unnest(_end_runs.ends) as e
    where d.run_id = e.run_id
    returning d.run_id, d.claim, d.begun_at, e.status, e.result, e.error
  )
  insert into perdure.outcome (run_id, status, result, error, begun_at, finished_at, claim)
  select
    g.run_id, g.status,
    case when g.status = 'completed' then coalesce(g.result, 'null') end,  -- an absent result is JSON null
    case when g.status <> 'completed' then g.error end,
    g.begun_at, v_now, g.claim
  from gone as g;
  select array_agg(d.run_id), array_agg(distinct d.queue) into v_successors, v_queues
  from perdure.dispatch as d
  inner join unnest(_end_runs.ends) as e on e.run_id = d.predecessor_id;
  if v_successors is not null then
    insert into perdure.wake (run_id, told_at) select s.run_id, v_now from unnest(v_successors) as s (run_id);
    perform perdure._notify(q.queue) from unnest(v_queues) as q (queue);
  end if;
end;
$$;
comment on function perdure._end_runs(perdure.outcome[]) is
'End runs whose dispatch rows the caller holds, and wake those that replace them.
ends has the run_id, the status, and the result or error of each, the rest is put in here; nothing happens for null.';

create or replace function perdure._outcome(run_id uuid, status text, result jsonb, error jsonb)
returns perdure.outcome
language sql  -- without a SET clause: so it is inlined
immutable
parallel safe
as $$
  select row(_outcome.run_id, _outcome.status, _outcome.result, _outcome.error, null, null, null)::perdure.outcome
$$;
comment on function perdure._outcome(uuid, text, jsonb, jsonb) is 'Make the outcome that _end_runs takes.';

create or replace function perdure._reason_error(run_id uuid, status text)
returns jsonb
language plpgsql
volatile  -- else it would read by a snapshot that is older than its locks
as $$
begin
  return (
    select jsonb_build_object('type', _reason_error.status, 'message', (
      select a.reason
      from perdure.act as a
      where a.run_id = _reason_error.run_id
        and a.act = case _reason_error.status when 'cancelled' then 'cancel' when 'terminated' then 'terminate' end
        and (a.answer = 'accepted' or a.answer is null)  -- null: the one that is being applied
      order by a.applied_at desc nulls first, a.asked_at
      limit 1))
  );
end;
$$;
comment on function perdure._reason_error(uuid, text) is
'Make the error of a run that an act or its deadline ended, with the reason given for the act.';

create or replace function perdure._end_claimed(worker_id uuid, ends jsonb, status text)
returns table (run_id uuid, answer text)
language plpgsql
volatile
as $$
declare
  v_limit constant bigint := perdure._limit_for(_end_claimed.ends);
  v_lock pg_catalog.record;
  v_ends perdure.outcome[];
  v_is_as_asked boolean;
begin
  v_lock := perdure._lock_and_save(_end_claimed.worker_id, _end_claimed.ends);
  if v_lock.on_record is not null then  -- maybe another result than the one by which the run came to its end
    v_lock.held := array(select h.run_id from unnest(v_lock.held) as h (run_id) where h.run_id <> all(v_lock.on_record));
    v_lock.others := v_lock.others || (
      select jsonb_object_agg(r.run_id, 'on_record') from unnest(v_lock.on_record) as r (run_id));
  end if;
  if perdure._is_above(_end_claimed.ends, v_limit) then
    perform perdure._check_payload('result', p.value)
    from jsonb_to_recordset(_end_claimed.ends) as a (result jsonb, error jsonb)
    cross join lateral (values (a.result), (a.error)) as p (value)
    where pg_column_size(p.value) > v_limit;
  end if;

  -- look: an act that was asked first decides how the run ends
  perform perdure._apply_acts(v_lock.held);
  select
    array_agg(perdure._outcome(
      a.run_id,
      coalesce(d.cancel, _end_claimed.status),
      a.result,
      case
        when d.cancel is not null then
          perdure._reason_error(d.run_id, d.cancel) || jsonb_strip_nulls(jsonb_build_object('raised', a.error))
        when _end_claimed.status = 'failed' then
          coalesce(a.error, jsonb_build_object('type', 'unknown', 'message', null))
      end)),
    bool_and(d.cancel is null)
  into v_ends, v_is_as_asked
  from jsonb_to_recordset(_end_claimed.ends) as a (run_id uuid, result jsonb, error jsonb)
  inner join perdure.dispatch as d on d.run_id = a.run_id
  where a.run_id = any(v_lock.held);
  perform perdure._end_runs(v_ends);
  if v_is_as_asked and cardinality(v_ends) = jsonb_array_length(_end_claimed.ends) then
    return query select e.run_id, 'done' from unnest(v_ends) as e;
    return;
  end if;

  return query
  select
    a.run_id,
    case
      when v_lock.others ->> a.run_id::text <> 'done' then v_lock.others ->> a.run_id::text
      when o.status = _end_claimed.status then 'done'
      else coalesce(o.status, 'lost')
    end
  from jsonb_to_recordset(_end_claimed.ends) as a (run_id uuid)
  left join perdure.outcome as o on o.run_id = a.run_id;
end;
$$;
comment on function perdure._end_claimed(uuid, jsonb, text) is
'End runs that the worker holds as completed or failed, or as an act that came first says. Raises as save_steps does.';

create or replace function perdure.complete_runs(worker_id uuid, ends jsonb)
returns table (run_id uuid, answer text)
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
begin
  return query
  select e.run_id, e.answer from perdure._end_claimed(complete_runs.worker_id, complete_runs.ends, 'completed') as e;
end;
$$;
comment on function perdure.complete_runs(uuid, jsonb) is
'End runs that have returned.
ends is an array of objects with run_id, claim, result and saves (the run''s last, as in save_steps). Returns for each:
done; cancelled, timed_out or terminated where that came first; on_record (one of its saves was on record before, so the
run has not ended: see by save_steps what there is); busy (send again alone); lost (drop the run). The same call again gets
the same answer.
Raises as save_steps does. Locks the worker''s row shared, the dispatch rows without waiting.';

create or replace function perdure.fail_runs(worker_id uuid, ends jsonb)
returns table (run_id uuid, answer text)
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
begin
  return query
  select e.run_id, e.answer from perdure._end_claimed(fail_runs.worker_id, fail_runs.ends, 'failed') as e;
end;
$$;
comment on function perdure.fail_runs(uuid, jsonb) is
'End runs that have raised.
ends is an array of objects with run_id, claim, error (type, message; step: key of the step that failed, if one did) and
saves. Answers, raises and locks as complete_runs does.';

create or replace function perdure.release_runs(worker_id uuid, releases jsonb)
returns table (run_id uuid, answer text)
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
  v_now constant timestamptz := perdure._now();
  v_lock record;
begin
  v_lock := perdure._lock_and_save(release_runs.worker_id, release_runs.releases);

  insert into perdure.act (run_id, act_id, act, reason, asked_by, asked_at, applied_at, answer)
  select a.run_id, perdure._uuid7(v_now), 'pause', left(a.pause_reason, 10000), perdure._caller(), v_now, v_now, 'accepted'
  from jsonb_to_recordset(release_runs.releases) as a (run_id uuid, pause_reason text)
  where a.run_id = any(v_lock.held) and a.pause_reason is not null;
  update perdure.dispatch as d
  set
    worker_id = null,
    ready_at = a.ready_at,
    told_at = null,
    is_paused = d.is_paused or a.is_paused
  from (
    select
      r.run_id, r.pause_reason is not null as is_paused,
      v_now + (row_number() over () - 1) * interval '1 microsecond' as ready_at
    from jsonb_to_recordset(release_runs.releases) as r (run_id uuid, pause_reason text)
    where r.run_id = any(v_lock.held)
  ) as a
  where d.run_id = a.run_id;
  perform perdure._notify_of(v_lock.held);

  return query
  select a.run_id, coalesce(v_lock.others ->> a.run_id::text, 'done')
  from jsonb_to_recordset(release_runs.releases) as a (run_id uuid);
end;
$$;
comment on function perdure.release_runs(uuid, jsonb) is
'Give runs back, unfinished: another worker may take them at once. It counts as no death.
releases is an array of objects with run_id, claim, saves (the run''s last, as in save_steps) and, to pause the run,
pause_reason. Returns for each: done, busy (send again alone) or lost (drop the run).
Raises as save_steps does. Locks the worker''s row shared, the dispatch rows without waiting.';
