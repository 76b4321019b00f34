-- Invariant: a run that is ready does not wait for the clock. Its ready_at is its place in the line and nothing that it
-- asked for; so where the clock was set back it moves to the present, while a time that was asked for stays what it is.
-- Lock order: timeline without waiting, then dispatch by run_id without waiting.

create or replace function perdure._is_in_line(dispatch perdure.dispatch, now timestamptz)
returns boolean
language plpgsql
stable
parallel safe
as $$
begin
  return (
    select case
      when d.worker_id is not null or d.predecessor_id is not null or d.ready_at = 'infinity' then false
      -- after a second death in a row it may have to wait, for so long at most
      when d.recoveries > 0 and d.ready_at <= _is_in_line.now + interval '5 minutes' then false
      when d.cancel is not null then true
      -- told before its time: its message is there
      when d.waits is not null then w.until <= _is_in_line.now or w.until > d.ready_at
      when d.begun_at is not null then true
      else coalesce(
        (select r.start_at from perdure.run as r where r.run_id = d.run_id) <= _is_in_line.now, true)
    end
    from (select (_is_in_line.dispatch).*) as d
    cross join lateral (select perdure._ready_at(d.waits) as until) as w
  );
end;
$$;
comment on function perdure._is_in_line(perdure.dispatch, timestamptz) is
'Tell whether a run stands in line for a worker, whatever its ready_at says: nothing that it asked for is still to come.';

create or replace function perdure._bring_back(now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_timeline constant integer := perdure._timeline();
  v_reached_at pg_catalog.timestamptz;
  v_run_ids pg_catalog.uuid[];
  v_count integer;
begin
  select t.reached_at into v_reached_at
  from perdure.timeline as t
  where t.timeline = v_timeline and t.reached_at is not null
    -- a tick that read the time before the clock was set would find nobody ahead of it, and call it done
    and t.ticked_at between _bring_back.now - interval '10 seconds' and _bring_back.now + interval '10 seconds'
  for no key update skip locked;
  if not found then
    return 0;
  end if;
  select array_agg(c.run_id order by c.ready_at, c.run_id) into v_run_ids
  from (
    select o.run_id, o.ready_at
    from perdure.queue as q
    cross join generate_series(1, 5) as p (priority)
    cross join lateral (
      select d.run_id, d.ready_at
      from perdure.dispatch as d
      where d.queue = q.name
        and d.priority = p.priority
        and d.worker_id is null
        and not d.is_paused
        and d.ready_at > _bring_back.now
        -- those who came between the last tick and the set-back, and whom a death delayed
        and d.ready_at <= v_reached_at + interval '10 minutes'
        and perdure._is_in_line(d, _bring_back.now)
      order by d.ready_at, d.run_id
      limit 10000
    ) as o
    limit 10000
  ) as c;
  if v_run_ids is null then
    update perdure.timeline as t set reached_at = null where t.timeline = v_timeline;
    return 0;
  end if;
  with locked as materialized (
    select d.run_id from perdure.dispatch as d where d.run_id = any(v_run_ids) order by d.run_id for update skip locked
  )
  update perdure.dispatch as d
  set ready_at = s.ready_at
  from (
    select
      b.run_id,
      _bring_back.now - row_number() over (order by b.position desc) * interval '1 microsecond' as ready_at
    from unnest(v_run_ids) with ordinality as b (run_id, position)
    inner join locked as l on l.run_id = b.run_id
  ) as s
  where d.run_id = s.run_id and d.worker_id is null and d.ready_at > _bring_back.now;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;
comment on function perdure._bring_back(timestamptz) is
'Let runs that were ready when the clock was set back be ready now, in their order, at most 10,000; notes when none is left.
Returns how many. Does nothing while somebody else does it.';
