-- Invariant: all invariants are looked at in one snapshot, and each has its row, broken or not.
-- Locks nothing.

create or replace function perdure.selftest()
returns table (
  invariant text,
  violations bigint
)
language sql
volatile  -- as run_results
security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.invariant, count(v.invariant)
  from perdure._invariants as i
  left join perdure.violations as v on v.invariant = i.invariant
  group by i.invariant
  order by count(v.invariant) desc, i.invariant
$$;

comment on function perdure.selftest() is
'Count what is broken: how often each invariant of the engine does not hold.
Returns one row per invariant, the broken ones first; the view violations has the details.
Reads all tables. Raises nothing. Locks nothing.';
