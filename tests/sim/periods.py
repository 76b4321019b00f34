"""Periods that come and go under a whole install: rows move, and to everybody it must look as if nothing had happened.

Invariants:

* Nobody is waited for: who has a lock on the tables leaves them as they are, which is no matter of speed here.
* Each simulation begins with the same two partitions. Names end in milliseconds, since all happens on one day.
* A copy is begun only while nobody is at work, as the engine waits for, and finished some steps later.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.world import World

PREPARE = """
do $do$
declare
  v_text text;
begin
  for v_text in
    select pg_get_functiondef(p.oid) from pg_proc as p
    where p.pronamespace = 'perdure'::regnamespace and p.prosrc like '%YYYYMMDD%'
  loop
    execute replace(v_text, '_YYYYMMDD', '_YYYYMMDDHH24MISSMS');
  end loop;
end;
$do$;

create table sim.copying (suffix text, begins uuid, ends uuid, began timestamptz, seen jsonb);

create function sim.begin_periods() returns void language plpgsql as $$
declare
  v_part regclass;
  v_table text;
  v_bound constant uuid := perdure._bound_at('2030-01-01');
begin
  perform perdure._abandon_copy();
  for v_part in
    select i.inhrelid from pg_inherits as i
    where i.inhparent in (select format('perdure.%I', t)::regclass from unnest(perdure._run_tables()) as t)
  loop
    execute format('drop table %s', v_part);
  end loop;
  perform perdure._make_parts('_old'), perdure._make_parts('_20300101');
  foreach v_table in array perdure._run_tables() loop
    perform perdure._attach(v_table, '_old', null, v_bound), perdure._attach(v_table, '_20300101', v_bound, null);
  end loop;
  truncate sim.copying;
end;
$$;

create function sim.turn_periods(what text) returns text language plpgsql as $$
declare
  v_cut perdure._cuts;
  v_copy sim.copying;
  v_now constant timestamptz := perdure._now();
  v_table text;
  v_kept uuid[];
  v_seen jsonb;
begin
  for v_table in
    select c.relname from pg_class as c where c.relnamespace = 'perdure'::regnamespace and c.relname ~ '^run_dropped_[0-9]+$'
  loop
    execute format('drop table perdure.%I', v_table);  -- a list of keys to free: here no run is over
  end loop;
  select c.* into v_copy from sim.copying as c;
  if perdure._holders(perdure._parts(array[''])) is not null then
    return 'busy';
  elsif v_copy.began is not null then
    truncate sim.copying;
    return perdure._finish_copy(array[v_copy.suffix], v_copy.begins, v_copy.ends, v_copy.began, v_copy.seen);
  elsif what = 'cut' then
    select c.* into v_cut from perdure._cuts as c where c.ends is null;
    if v_now <= v_cut.begins_at + interval '10 milliseconds' then
      return 'early';
    end if;
    perform perdure._split(v_cut.suffix, v_cut.begins, perdure._bound_at(v_now));
    return 'cut';
  end if;
  select c.* into v_cut from perdure._cuts as c where c.begins is not null and c.ends is not null order by c.begins limit 1;
  if not found then
    return 'none';
  elsif what = 'merge' then
    v_kept := array(select r.run_id from perdure.run as r where r.run_id >= v_cut.begins and r.run_id < v_cut.ends);
    v_seen := perdure._what_was_seen(v_cut.begins, v_cut.ends);
    return 'merged ' || perdure._merge(v_cut.suffix, v_cut.begins, v_cut.ends, v_kept, v_seen);
  end if;
  perform perdure._make_parts('_staged');
  foreach v_table in array perdure._run_tables() loop
    execute format('alter table perdure.%I add constraint %I check (run_id >= %L and run_id < %L)',
      v_table || '_staged', v_table || '_staged_is_of_its_period', v_cut.begins, v_cut.ends);
  end loop;
  insert into sim.copying values (v_cut.suffix, v_cut.begins, v_cut.ends, v_now, perdure._what_was_seen(v_cut.begins, v_cut.ends));
  perform perdure._copy_some(v_cut.begins, v_cut.ends, v_now);
  return 'copied';
exception
  when lock_not_available then
    return 'busy';
end;
$$;
"""


def turn(world: World, chance: random.Random) -> None:
    """Cut the tables anew: one of the things that the housekeeping does, at any moment."""
    what = chance.choice(("cut", "cut", "merge", "copy"))
    world.set_clock()
    [[did]] = world.arena.onlooker.execute("select sim.turn_periods($1)", [what])
    if did == "busy":
        return
    world.say(f"*** periods: {what}: {did}")
    world.counted[f"periods {did}"] += 1
    world.check([])


def forget_copy(world: World) -> None:
    """Give a copy up: what it was made of was replaced by somebody else than the engine."""
    world.arena.onlooker.execute("select perdure._abandon_copy() from sim.copying")
    world.arena.onlooker.execute("truncate sim.copying")
