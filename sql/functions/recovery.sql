-- Invariant: a dead worker's runs go back to ready, once; a live one is left alone. Deaths without progress in
-- between are counted, so that the run which kills its workers is found and ended, and its neighbours are not.
-- Lock order: worker (for update, without waiting), then dispatch by run_id without waiting, then inserts.

create or replace function perdure._watch(
  now timestamptz, out calm_since timestamptz, out watched_since timestamptz, out looked_at timestamptz
)
returns record
language plpgsql
volatile
as $$
declare
  v_timeline constant integer := perdure._timeline();
  v_started_at constant pg_catalog.timestamptz := perdure._sessions_since();
  v_last perdure.timeline;
  v_is_mine boolean;
  v_reached_at pg_catalog.timestamptz;
begin
  select t.* into v_last from perdure.timeline as t where t.timeline = v_timeline for no key update skip locked;
  v_is_mine := found;
  if not v_is_mine then  -- somebody is looking, in a transaction that may stay open: what is on record will do, but where
    -- that is old his may be the first look after a pause, and no silence counts until he has told
    select t.* into v_last from perdure.timeline as t where t.timeline = v_timeline;
  end if;
  looked_at := v_last.ticked_at;
  -- the workers reconnect only now after a failover, a restart or a crash, however long the server needed to come back
  calm_since := case
    when v_last.calm_since >= v_started_at or v_started_at > _watch.now then least(v_last.calm_since, _watch.now)
    else _watch.now
  end;
  watched_since := case
    when v_last.ticked_at between _watch.now - interval '10 seconds' and _watch.now + interval '10 seconds'
      then least(v_last.watched_since, _watch.now)
    else _watch.now
  end;
  v_reached_at := greatest(
    v_last.reached_at, case when v_last.ticked_at > _watch.now + interval '10 seconds' then v_last.ticked_at end);
  if v_is_mine then
    update perdure.timeline as t
    set calm_since = _watch.calm_since, watched_since = _watch.watched_since, ticked_at = _watch.now, reached_at = v_reached_at
    where t.timeline = v_timeline;
  elsif v_last.timeline is null then
    begin
      -- excludes another note, not the looks that update a row
      lock table perdure.timeline in share update exclusive mode nowait;
      insert into perdure.timeline (timeline, since, calm_since, watched_since, ticked_at)
      values (v_timeline, _watch.now, _watch.now, _watch.now, _watch.now)
      on conflict on constraint timeline_pkey do nothing;
      if found and exists (select from perdure.timeline as t where t.timeline <> v_timeline) then
        perform perdure._audit('timeline', null, format(
          'the server failed over or was restored: it is on timeline %s now; what was acknowledged before may be lost',
          v_timeline));
      end if;
    exception
      when lock_not_available then
        null;
    end;
  end if;
end;
$$;
comment on function perdure._watch(timestamptz) is
'Note that somebody looks for deaths now, and on which timeline.
Tells since when the server has been seen on it since it last ended all sessions, since when somebody has looked without a
pause of 10 seconds, neither of them ahead of now, and when somebody looked last. How far the clock was ahead is noted for
_bring_back. Never waits.';

create or replace function perdure._is_dead(
  worker_id uuid, now timestamptz, calm_since timestamptz, watched_since timestamptz, looked_at timestamptz
)
returns boolean
language plpgsql
volatile
as $$
begin
  return (
    select
      _is_dead.now >= _is_dead.calm_since + least(w.lease, interval '5 seconds')
      and (
        b.beat_at is null
        or (
          _is_dead.now - b.beat_at > w.lease
          -- a frozen host or a clock that jumps is no silence of the workers: it is one that was watched for long enough,
          -- or was there already when somebody looked before, however far apart the looks are
          and (
            _is_dead.now >= _is_dead.watched_since + least(w.lease, interval '5 seconds')
            or _is_dead.looked_at between b.beat_at + w.lease and _is_dead.now - least(w.lease, interval '5 seconds')
          )
        )
        or (
          w.is_direct
          and _is_dead.now - b.beat_at > interval '1.5 seconds'
          and not exists (
            select from pg_locks as l
            where l.locktype = 'advisory' and l.granted and l.objsubid = 1
              and l.database = (select d.oid from pg_database as d where d.datname = current_database())
              and l.classid::bigint << 32 | l.objid::bigint = perdure._lock_key(w.worker_id)
          )
        )
      )
    from perdure.worker as w
    left join perdure.worker_beat as b on b.worker_id = w.worker_id
    where w.worker_id = _is_dead.worker_id
  );
end;
$$;
comment on function perdure._is_dead(uuid, timestamptz, timestamptz, timestamptz, timestamptz) is
'Judge a worker: its last beat is older than its lease, or its session''s lock is free and it has not beaten for 1.5 s.
For min(lease, 5 s) after calm_since, when a restart or a failover was first seen, nobody is dead: all reconnect first.
And a silence counts only after so long a watch, or at the second look.';

create or replace function perdure._bury_workers(now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_watch pg_catalog.record;
  v_dead pg_catalog.uuid[];
begin
  select w.* into strict v_watch from perdure._watch(_bury_workers.now) as w;
  -- the clock was set back: a beat from the future would never be old
  update perdure.worker_beat as b
  set beat_at = _bury_workers.now
  where b.worker_id in (
    select o.worker_id
    from perdure.worker_beat as o
    where o.beat_at > _bury_workers.now + interval '10 seconds'
    for update skip locked
  );
  select array_agg(l.worker_id) into v_dead
  from (
    select w.worker_id
    from perdure.worker as w
    where perdure._is_dead(
      w.worker_id, _bury_workers.now, v_watch.calm_since, v_watch.watched_since, v_watch.looked_at)
    order by w.worker_id
    for update skip locked  -- a worker at work holds its row: it is asked again at the next tick
  ) as l;
  -- again, in a statement later than the lock: it may have beaten meanwhile
  delete from perdure.worker as w
  where w.worker_id = any(v_dead)
    and perdure._is_dead(
      w.worker_id, _bury_workers.now, v_watch.calm_since, v_watch.watched_since, v_watch.looked_at);
  delete from perdure.worker_beat as b
  where b.worker_id in (
    select o.worker_id
    from perdure.worker_beat as o
    where not exists (select from perdure.worker as w where w.worker_id = o.worker_id)
    for update skip locked
  );
end;
$$;
comment on function perdure._bury_workers(timestamptz) is 'Forget dead workers.';

create or replace function perdure._note_progress(run_ids uuid[])
returns void
language plpgsql
volatile
as $$
begin
  update perdure.dispatch as d
  set recoveries = 0
  where d.run_id in (
    select l.run_id
    from perdure.dispatch as l
    where l.run_id = any(_note_progress.run_ids) and l.recoveries <> 0
    order by l.run_id
    for no key update skip locked  -- beside the key share that another save of the run may hold
  );
end;
$$;
comment on function perdure._note_progress(uuid[]) is
'Note that runs got on: they saved a checkpoint or recorded a try, so the deaths before it count no more.';

create or replace function perdure._take_back(run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  update perdure.dispatch as d
  set worker_id = null, told_at = null, recoveries = s.recoveries, ready_at = s.ready_at
  from (
    select
      o.run_id,
      -- beside a known suspect nobody else dies of the worker's death; charged they are, for one of them may be the killer
      case
        when o.recoveries < 2 and bool_or(o.recoveries >= 2) over (partition by o.worker_id)
          then least(o.recoveries + 1, greatest(o.max_recoveries, o.recoveries))
        else o.recoveries + 1
      end as recoveries,
      -- a first death delays nothing; a suspect comes back after 1, 2, 4 ... seconds, 5 minutes at most
      _take_back.now + (row_number() over (order by o.run_id) - 1) * interval '1 microsecond'
      + make_interval(secs => case when o.recoveries = 0 then 0 else least(2 ^ least(o.recoveries - 1, 20), 300) end)
        as ready_at
    from perdure.dispatch as o
    where o.run_id = any(_take_back.run_ids)
  ) as s
  where d.run_id = s.run_id;
  perform perdure._notify_of(_take_back.run_ids);
  perform perdure._end_runs((
    select array_agg(perdure._outcome(d.run_id, 'dead', null, jsonb_build_object(
      'type', 'dead',
      'message', format('its worker died %s times in a row without progress', d.recoveries))))
    from perdure.dispatch as d
    where d.run_id = any(_take_back.run_ids) and d.recoveries > d.max_recoveries
  ));
end;
$$;
comment on function perdure._take_back(uuid[], timestamptz) is
'Make runs ready again whose worker is gone, or end them as dead. The caller holds the dispatch rows.';

create or replace function perdure._take_back_orphans(now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_orphans pg_catalog.uuid[];
begin
  -- Between the ids of those who are there: what they ever held is many entries under an old snapshot. And first the
  -- candidates, in any order: in that of run_id the planner would read every unfinished run.
  with gap as materialized (
    select
      w.worker_id as above,
      lead(w.worker_id, 1, 'ffffffff-ffff-ffff-ffff-ffffffffffff') over (order by w.worker_id) as below
    from (
      select '00000000-0000-0000-0000-000000000000'::pg_catalog.uuid as worker_id
      union all
      select k.worker_id from perdure.worker as k
    ) as w
  ),
  orphan as materialized (
    select o.run_id, o.worker_id
    from gap as g
    cross join lateral (
      select h.run_id, h.worker_id
      from perdure.dispatch as h
      where h.worker_id > g.above and h.worker_id < g.below
      limit 10000
    ) as o
    limit 10000
  )
  select array_agg(l.run_id) into v_orphans
  from (
    select d.run_id
    from orphan as o
    inner join perdure.dispatch as d on d.run_id = o.run_id
    where d.worker_id = o.worker_id
    order by d.run_id
    for update of d skip locked
  ) as l;
  return cardinality(perdure._isolate('orphans', v_orphans, _take_back_orphans.now));
end;
$$;
comment on function perdure._take_back_orphans(timestamptz) is
'Take back the runs whose worker is gone. Returns how many.';

create or replace function perdure.recover()
returns integer
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
begin
  perform perdure._check_isolation();
  if perdure._hold() is not null then
    return 0;
  end if;
  perform perdure._bound_idleness('30 seconds');
  perform perdure._bury_workers(v_now);
  return perdure._take_back_orphans(v_now);
end;
$$;
comment on function perdure.recover() is
'Take runs back from dead workers: any worker may claim them again.
A worker is dead when its last beat is older than its lease, or when its session is gone and it has not beaten for 1.5 s.
A run whose workers died more often than max_recoveries in a row without progress ends as dead.
Returns how many runs were taken back; on hold none. Raises 55000 outside READ COMMITTED. Locks dead workers'' rows and their runs without waiting; never waits for
anybody. In a transaction that is left open they stay locked; the server ends it after 30 s of idleness.';
