-- Invariant: a run that replaces another begins when that one has ended, and whoever that one waited for as well. An
-- end tells the successors that it sees; what committed in the same instant is found by the tick.
-- Lock order: dispatch by run_id without waiting.

create or replace function perdure._unfinished_predecessor(run_id uuid)
returns uuid
language sql
volatile
as $$
  -- one that was replaced before it began had not waited to the end for its own predecessor, which may be at work still
  with recursive chain as (
    select r.run_id, r.predecessor_id, o.run_id is not null as is_ended, o.begun_at is not null as has_begun
    from perdure.run as r
    left join perdure.outcome as o on o.run_id = r.run_id
    where r.run_id = _unfinished_predecessor.run_id
    union all
    select r.run_id, r.predecessor_id, o.run_id is not null, o.begun_at is not null
    from chain as c
    inner join perdure.run as r on r.run_id = c.predecessor_id
    left join perdure.outcome as o on o.run_id = r.run_id
    where c.is_ended and not c.has_begun
  )
  select c.run_id from chain as c where not c.is_ended
$$;
comment on function perdure._unfinished_predecessor(uuid) is
'Find the run whose end a successor of this one waits for; null where nothing is in its way.';

create or replace function perdure._free_successors(run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  update perdure.dispatch as d
  set predecessor_id = s.predecessor_id, ready_at = s.ready_at
  from (
    select
      k.run_id, p.predecessor_id,
      case when p.predecessor_id is null then greatest(r.start_at, _free_successors.now) else 'infinity' end as ready_at
    from perdure.dispatch as k
    -- offset 0: one by one, by index; a plan of the join reads all of a partition that was empty when it was made
    cross join lateral (select from perdure.outcome as e where e.run_id = k.predecessor_id offset 0) as o
    cross join lateral (select s.start_at from perdure.run as s where s.run_id = k.run_id offset 0) as r
    cross join lateral (
      select perdure._unfinished_predecessor(k.predecessor_id) as predecessor_id offset 0
    ) as p
    where k.run_id = any(_free_successors.run_ids) and k.predecessor_id is not null
  ) as s
  where d.run_id = s.run_id;
end;
$$;
comment on function perdure._free_successors(uuid[], timestamptz) is
'Make runs ready whose predecessor has ended. The caller holds the dispatch rows.';

create or replace function perdure._free_forgotten(now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_forgotten pg_catalog.uuid[];
begin
  -- first the candidates, in any order: in that of run_id the planner would read every unfinished run
  with forgotten as materialized (
    select k.run_id
    from perdure.dispatch as k
    cross join lateral (select from perdure.outcome as e where e.run_id = k.predecessor_id offset 0) as o
    where k.predecessor_id is not null and not k.is_paused
    limit 10000
  )
  select array_agg(l.run_id) into v_forgotten
  from (
    select d.run_id
    from forgotten as f
    inner join perdure.dispatch as d on d.run_id = f.run_id
    order by d.run_id
    for update of d skip locked
  ) as l;
  return cardinality(perdure._isolate('successors', v_forgotten, _free_forgotten.now));
end;
$$;
comment on function perdure._free_forgotten(timestamptz) is
'Free the successors that were told nothing: an end that committed while its successor was being started told nobody.
Returns how many. A paused one is looked at when it is resumed.';
