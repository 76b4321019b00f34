-- Invariant: a tick may be called by anybody at any time, by many at once: each part locks without waiting and does
-- a bounded amount of work; what it leaves is done by the next one. It is one transaction.
-- Lock order: as each part says.

create or replace function perdure._end_overdue(run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_ends_at constant pg_catalog.timestamptz := _end_overdue.now + interval '5 minutes';
begin
  -- one that never began has nothing to clean up, and with cancel set the grace is over
  perform perdure._end_runs((
    select array_agg(perdure._outcome(
      d.run_id, coalesce(d.cancel, 'timed_out'), null,
      perdure._reason_error(d.run_id, coalesce(d.cancel, 'timed_out'))))
    from perdure.dispatch as d
    where d.run_id = any(_end_overdue.run_ids) and (d.begun_at is null or d.cancel is not null)
  ));
  update perdure.dispatch as d
  set
    cancel = 'timed_out',
    ends_at = v_ends_at,
    is_paused = false,
    ready_at = _end_overdue.now,
    told_at = case when d.worker_id is not null then _end_overdue.now end
  where d.run_id = any(_end_overdue.run_ids);
end;
$$;
comment on function perdure._end_overdue(uuid[], timestamptz) is
'Tell runs past their deadline to end, with 5 minutes for clean-up; end those whose grace is over.
The caller holds the dispatch rows.';

create or replace function perdure._meet_deadlines(now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_overdue pg_catalog.uuid[];
begin
  select array_agg(l.run_id) into v_overdue
  from (
    select d.run_id
    from perdure.dispatch as d
    where d.ends_at <= _meet_deadlines.now
    order by d.ends_at, d.run_id
    limit 1000
    for update skip locked
  ) as l;
  return cardinality(perdure._isolate('deadlines', v_overdue, _meet_deadlines.now));
end;
$$;
comment on function perdure._meet_deadlines(timestamptz) is 'End what is past its deadline. Returns how many runs.';

create or replace function perdure.truncate_wake()
returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- dead rows before the first live one make each drain slower; small tables are not worth the lock
  if pg_relation_size('perdure.wake') < 1048576 then
    return false;
  end if;
  begin
    lock table perdure.wake in access exclusive mode nowait;
  exception
    when lock_not_available then
      return false;
  end;
  if exists (select from perdure.wake) then
    return false;
  end if;
  truncate perdure.wake;
  return true;
end;
$$;
comment on function perdure.truncate_wake() is
'Truncate the wakes when all are drained and nobody is about to add one. Returns whether it did.
Locks the table exclusively, without waiting, until the transaction ends: every sender and every claim waits for that, so
only run_ticks calls it, which commits at once.';

create or replace function perdure.tick()
returns jsonb
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
  v_drained record;
  v_held text;
begin
  perform perdure._check_isolation();
  v_held := perdure._note_hold(v_now);
  if v_held is not null then
    return jsonb_build_object('held', v_held);
  end if;
  select d.applied, d.skipped into strict v_drained from perdure._drain(1000) as d;
  return jsonb_build_object(
    'drained', v_drained.applied,
    'skipped', v_drained.skipped,
    'overdue', perdure._meet_deadlines(v_now),
    'recovered', perdure.recover(),
    'freed', perdure._free_forgotten(v_now),
    'brought_back', perdure._bring_back(v_now));
end;
$$;
comment on function perdure.tick() is
'Do one round of the engine''s housekeeping: drain, deadlines, deaths, successors, a clock that was set back.
Returns an object with what it did: drained, skipped, overdue, recovered, freed, brought_back. On hold it notes that, does
nothing else, and returns an object with held: the reason. May be called by anybody at any time; each part locks without
waiting, until the transaction ends. Raises 55000 outside READ COMMITTED.';
