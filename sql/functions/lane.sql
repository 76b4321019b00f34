-- Invariant: a claim reads its lanes, one queue and one priority each, in the order of their priority, but for the
-- probes.
-- Lock order: dispatch in the order of the lanes, without waiting.
-- Lanes are read by equality: one ORDER BY over all priorities would read every sleeper before them.

create or replace function perdure._lanes(queues text[], heads jsonb, now timestamptz)
returns table (queue text, priority smallint, is_probe boolean, head timestamptz)
language plpgsql
volatile
as $$
begin
  -- each lower priority gets one probe in eight even when the higher ones are full
  return query
  select
    q.name as queue, p.priority, p.is_probe,
    case when _lanes.heads is null then '-infinity' else perdure._head(_lanes.heads -> q.name ->> (p.priority - 1), _lanes.now) end
  from unnest(_lanes.queues) as q (name)
  cross join (
    select g.n::smallint as priority, false as is_probe from generate_series(1, 5) as g (n)
    union all
    select g.n::smallint, true from generate_series(2, 5) as g (n) where random() < 0.125
  ) as p
  order by p.is_probe desc, p.priority, random();
end;
$$;
comment on function perdure._lanes(text[], jsonb, timestamptz) is
'List the lanes of queues in the order in which a claim reads them: first the probes, then by priority; and from where on.';

create or replace function perdure._lane_heads(queues text[], workflows text[], heads jsonb, now timestamptz)
returns jsonb
language plpgsql
stable
as $$
begin
  return (
    select jsonb_object_agg(q.queue, q.heads)
    from (
      select l.queue, jsonb_agg(coalesce(f.ready_at, _lane_heads.now) order by l.priority) as heads
      from (
        select
          n.queue, p.priority::smallint as priority,
          perdure._head(_lane_heads.heads -> n.queue ->> (p.priority - 1), _lane_heads.now) as head
        from unnest(_lane_heads.queues) as n (queue)
        cross join generate_series(1, 5) as p (priority)
      ) as l
      left join lateral (
        -- also what somebody holds whose transaction is open: rolled back, it is there again
        select d.ready_at
        from perdure.dispatch as d
        where d.queue = l.queue
          and d.priority = l.priority
          and d.worker_id is null
          and not d.is_paused
          and d.ready_at >= l.head
          and d.ready_at <= _lane_heads.now
          and d.recoveries < 2
          and d.workflow = any(_lane_heads.workflows)
        order by d.ready_at, d.run_id
        limit 1
      ) as f on true
      group by l.queue
    ) as q
  );
end;
$$;
comment on function perdure._lane_heads(text[], text[], jsonb, timestamptz) is
'Find the head of each lane of queues, for workflows, behind the heads given: when the first run that is due became ready.
Returns an object with an array of five times, by priority, for each queue.';

create or replace function perdure._lock_lanes(queues text[], workflows text[], max_runs integer, now timestamptz)
returns uuid[]
language plpgsql
volatile
as $$
declare
  v_kept constant pg_catalog.jsonb := case when current_setting('perdure.lane_heads', true) <> '' then
    perdure._recall_heads('perdure.lane_heads', _lock_lanes.workflows::text, _lock_lanes.now) end;
  v_read bigint := pg_stat_get_xact_tuples_returned('perdure.dispatch_claim_idx'::regclass);
  v_run_ids pg_catalog.uuid[];
begin
  with lane as materialized (
    select l.queue, l.priority, l.is_probe, l.head
    from perdure._lanes(_lock_lanes.queues, v_kept -> 'heads', _lock_lanes.now) as l
  ),
  got as materialized (
    select c.run_id, row_number() over () as position
    from lane as l
    cross join lateral (
      select d.run_id
      from perdure.dispatch as d
      where d.queue = l.queue
        and d.priority = l.priority
        and d.worker_id is null
        and not d.is_paused
        and d.ready_at >= l.head
        and d.ready_at <= _lock_lanes.now
        and d.recoveries < 2
        and d.workflow = any(_lock_lanes.workflows)
      order by d.ready_at, d.run_id
      limit case when l.is_probe then 1 else _lock_lanes.max_runs end
      for update skip locked
    ) as c
    -- a probed row is met again in its lane; without a probe not one more is locked than is taken
    limit _lock_lanes.max_runs + (select count(*) from lane as p where p.is_probe)
  )
  select array_agg(g.run_id) into v_run_ids
  from (
    select o.run_id
    from got as o
    group by o.run_id
    order by min(o.position)
    limit _lock_lanes.max_runs
  ) as g;
  v_read := pg_stat_get_xact_tuples_returned('perdure.dispatch_claim_idx'::regclass) - v_read;
  if v_read - coalesce(cardinality(v_run_ids), 0) > 100 then
    perform perdure._keep_heads(
      'perdure.lane_heads', _lock_lanes.workflows::text, v_kept,
      perdure._lane_heads(_lock_lanes.queues, _lock_lanes.workflows, v_kept -> 'heads', _lock_lanes.now),
      _lock_lanes.now, 20);
  end if;
  return v_run_ids;
end;
$$;
comment on function perdure._lock_lanes(text[], text[], integer, timestamptz) is
'Lock the first due runs of queues and workflows, at most max_runs, in the order of their lanes. Returns their ids.
Where it read many entries in vain the session keeps heads for its next calls.';
