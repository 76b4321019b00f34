-- Invariant: rotate does a bounded piece of work; whatever it leaves is done by a later call. It changes the tables
-- themselves, so its transaction must end with it: run_ticks sees to that.
-- Lock order: chore without waiting, then as period.sql says; of a round in _old or of keys: the keys' rows, then
-- outcomes, without waiting.

create or replace function perdure._take_over(suffix text, begins uuid, ends uuid, now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_seen pg_catalog.jsonb;
  v_needed pg_catalog.uuid[];
  v_kept pg_catalog.uuid[];
  v_did pg_catalog.text;
begin
  if perdure._has_key_list(_take_over.suffix) then
    return 'busy';  -- it was made anew, and the keys of what was dropped then are still being freed
  end if;
  v_did := perdure._guard_old(_take_over.ends);
  if v_did is not null then
    return v_did;
  elsif perdure._is_in_use(array['_old', _take_over.suffix]) then
    return 'busy';
  end if;

  v_seen := perdure._what_was_seen(_take_over.begins, _take_over.ends);
  -- the unfinished first: one that ends meanwhile is among them or among the ended
  v_needed := perdure._needed(_take_over.begins, _take_over.ends, 3001);
  perform set_config('enable_seqscan', 'on', true);  -- these two read the whole period
  v_kept := v_needed
    || perdure._unexpired(_take_over.begins, _take_over.ends, _take_over.now, 3001 - least(cardinality(v_needed), 3000))
    || perdure._needed_predecessors(_take_over.begins, _take_over.ends, 3001);
  perform set_config('enable_seqscan', 'off', true);
  if cardinality(v_kept) > 3000 or not perdure._is_light(v_kept, 10000, 16777216) then
    return null;
  elsif perdure._merge(_take_over.suffix, _take_over.begins, _take_over.ends, v_kept, v_seen) then
    return 'dropped';
  end if;
  return 'busy';
end;
$$;
comment on function perdure._take_over(text, uuid, uuid, timestamptz) is
'Drop the period after _old, which takes over the few of its runs that are to be kept.
Returns dropped; guarded as _guard_old does; busy while somebody is at work, or former keys are being freed; null where they are too many, or too large, to be moved at once.
Raises as _stop_all does.';

create or replace function perdure._drop_period(now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_since constant pg_catalog.timestamptz := _drop_period.now - (select min(k.completed) from perdure._retentions as k);
  v_first pg_catalog.record;
  v_did pg_catalog.text;
  v_detail pg_catalog.jsonb;
begin
  select c.detail into v_detail from perdure.chore as c where c.name = 'copy';
  if v_detail <> '{}' then
    return perdure._go_on_copying(v_detail, _drop_period.now);
  end if;
  select c.suffix, c.begins, c.ends, c.ends_at into v_first from perdure._cuts as c
  where c.begins is not null and c.ends is not null
  order by c.begins
  limit 1;
  if not found or v_first.ends_at > v_since then
    return null;
  end if;
  v_did := coalesce(
    perdure._take_over(v_first.suffix, v_first.begins, v_first.ends, _drop_period.now),
    perdure._begin_copy(v_first.suffix, v_since, _drop_period.now));
  if v_did = 'waits' then
    v_detail := jsonb_build_object('waits', v_first.suffix, 'since', _drop_period.now);
    update perdure.chore as c
    set detail = v_detail || case when c.detail -> 'waits' = v_detail -> 'waits' then c.detail else '{}' end
    where c.name = 'periods';
  end if;
  return v_did;
exception
  when lock_not_available or deadlock_detected then
    return 'busy';
end;
$$;
comment on function perdure._drop_period(timestamptz) is
'Drop the oldest period once the time of its runs is over, or make those that are due anew without such runs.
Returns dropped, copying, rewritten; guarded and busy as _guard_old does; kept where most of it is to be kept, waits where
too many of its runs are unfinished, and null where none is due.';

create or replace function perdure._expire(now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_old_ends constant pg_catalog.uuid := (select c.ends from perdure._cuts as c where c.begins is null);
  v_expired pg_catalog.uuid[];
  v_locked pg_catalog.uuid[];
begin
  select array_agg(x.run_id) into v_expired
  from (
    select e.run_id
    from perdure._ended('00000000-0000-0000-0000-000000000000', v_old_ends, _expire.now) as e
    cross join lateral (select r.predecessor_id from perdure.run as r where r.run_id = e.run_id offset 0) as r
    where e.is_over
      and not exists (select from perdure.dispatch as d where d.predecessor_id = e.run_id)
      and (r.predecessor_id is null or perdure._unfinished_predecessor(r.predecessor_id) is null)
    limit 1000
  ) as x;
  if v_expired is null then
    return 0;
  end if;
  select array_agg(l.run_id) into v_locked
  from (
    select k.run_id from perdure.run as r
    inner join perdure.run_key as k on k.workflow = r.workflow and k.key = r.key
    where r.run_id = any(v_expired) and k.run_id = r.run_id
    for update of k skip locked
  ) as l;
  select array_agg(l.run_id) into v_expired
  from (
    select o.run_id from perdure.outcome as o
    where o.run_id = any(v_expired)
      and (o.run_id = any(v_locked) or not exists (  -- else somebody is about to retry it, or to move its key
        select from perdure.run as r
        inner join perdure.run_key as k on k.workflow = r.workflow and k.key = r.key
        where r.run_id = o.run_id and k.run_id = r.run_id))
    for update skip locked
  ) as l;
  delete from perdure.run_key as k using perdure.run as r
  where r.run_id = any(v_expired) and k.workflow = r.workflow and k.key = r.key and k.run_id = r.run_id;
  delete from perdure.outcome as o where o.run_id = any(v_expired);
  delete from perdure.step as s where s.run_id = any(v_expired);
  delete from perdure.step_attempt as t where t.run_id = any(v_expired);
  delete from perdure.signal as s where s.run_id = any(v_expired);
  delete from perdure.act as a where a.run_id = any(v_expired);
  delete from perdure.run as r where r.run_id = any(v_expired);
  return coalesce(cardinality(v_expired), 0);
end;
$$;
comment on function perdure._expire(timestamptz) is
'Delete runs in _old whose time is over, a thousand at most, with their keys.
Returns how many. Locks their keys and outcomes without waiting.';

create or replace function perdure._free_keys()
returns integer
language plpgsql
volatile
as $$
declare
  v_dropped pg_catalog.name;
  v_after constant pg_catalog.uuid := (select (c.detail ->> 'after')::uuid from perdure.chore as c where c.name = 'keys');
  v_ids pg_catalog.uuid[];
  v_workflows pg_catalog.text[];
  v_keys pg_catalog.text[];
  v_left bigint;
  v_detail pg_catalog.jsonb;
begin
  select c.relname into v_dropped from pg_class as c
  where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'r' and c.relname ~ format('^%s$', perdure._key_list('_[0-9]{8}'))
  order by c.relname
  limit 1;
  if not found then
    return 0;
  end if;
  execute format(
    'select array_agg(r.run_id order by r.run_id), array_agg(r.workflow order by r.run_id), array_agg(r.key order by r.run_id)'
    ' from (select run_id, workflow, key from perdure.%I where key is not null and run_id > $1 order by run_id limit 1000) as r',
    v_dropped) into v_ids, v_workflows, v_keys using coalesce(v_after, '00000000-0000-0000-0000-000000000000');
  if v_ids is null then
    begin
      execute format('drop table perdure.%I', v_dropped);
    exception
      when lock_not_available or deadlock_detected then
        return 0;  -- a dump reads it, say: later
    end;
    update perdure.chore as c set detail = '{}' where c.name = 'keys';
    return 1;
  end if;
  delete from perdure.run_key as k
  where k.ctid = any(array(
    select f.ctid from unnest(v_ids, v_workflows, v_keys) as g (run_id, workflow, key)
    inner join perdure.run_key as f on f.workflow = g.workflow and f.key = g.key and f.run_id = g.run_id
    where not exists (select from perdure.run as r where r.run_id = g.run_id)
    for update of f skip locked));
  select count(*) into v_left from unnest(v_ids, v_workflows, v_keys) as g (run_id, workflow, key)
  inner join perdure.run_key as f on f.workflow = g.workflow and f.key = g.key and f.run_id = g.run_id
  where not exists (select from perdure.run as r where r.run_id = g.run_id);
  if v_left > 0 then
    return 0;  -- somebody is about to use one of them: the same round again, later
  end if;
  v_detail := jsonb_build_object('after', v_ids[cardinality(v_ids)]);
  update perdure.chore as c set detail = v_detail where c.name = 'keys';
  return cardinality(v_ids);
end;
$$;
comment on function perdure._free_keys() is
'Free keys of a dropped period''s runs, a thousand at most.
That period''s table run is kept as a list of them until all are free. Returns 0 where nothing is to be done, or somebody is about to use one of them. Locks the keys'' rows without waiting.';

create or replace function perdure._do_chore(name text, due text[], now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_count integer;
begin
  if not _do_chore.name = any(_do_chore.due) then
    return 0;
  end if;
  v_count := case _do_chore.name when 'keys' then perdure._free_keys() else perdure._expire(_do_chore.now) end;
  update perdure.chore as c
  set next_at = _do_chore.now + case when v_count = 0 then interval '1 minute' else interval '0' end
  where c.name = _do_chore.name;
  return v_count;
end;
$$;
comment on function perdure._do_chore(text, text[], timestamptz) is
'Do a round of keys or expired where it is due; what found nothing to do is due again in a minute. Returns how many rows.';

create or replace function perdure.rotate()
returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set default_tablespace = ''
set enable_seqscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_due text[];
  v_did text;
  v_count integer;
begin
  perform perdure._check_isolation();
  v_due := array(  -- a clock that was ahead may have left a time far in the future
    select c.name from perdure.chore as c
    where c.name not in ('dropped', 'copy') and (c.next_at <= v_now or c.next_at > v_now + interval '1 day'));
  if cardinality(v_due) = 0 or perdure._hold() is not null then
    return '{}'::jsonb;
  end if;
  perform from perdure.chore as c where c.name = 'periods' for update skip locked;
  if not found then
    return '{}'::jsonb;  -- somebody else is at it
  end if;
  perform perdure._bound_idleness('1 second');
  if 'periods' = any(v_due) then
    v_did := coalesce(perdure._make_ahead(v_now), perdure._drop_period(v_now));
    if v_did is null or v_did in ('waits', 'kept') then
      update perdure.chore as c
      set
        next_at = v_now + case when v_did is null then interval '1 minute' else interval '1 hour' end,
        detail = case when v_did = 'waits' then c.detail else '{}' end
      where c.name = 'periods';
    end if;
  end if;
  if v_did is null or v_did in ('busy', 'kept', 'waits') then  -- else everybody may be waiting for the commit
    v_count := perdure._do_chore('keys', v_due, v_now) + perdure._do_chore('expired', v_due, v_now);
  end if;
  return jsonb_strip_nulls(jsonb_build_object('period', v_did, 'rows', nullif(v_count, 0)));
end;
$$;
comment on function perdure.rotate() is
'Do the next piece of work on what is kept.
That is: make a partition ahead, drop a period whose time is over, delete runs in _old whose time is over, free keys of runs
that are gone. Returns an object: period with made ahead, dropped, rewritten (made anew without what is over), guarded and copying
(another step of these was done), kept (the most of it is not over), waits (too many of its runs are unfinished), busy
(somebody is at work on it: try again); rows with how many were looked at; empty where nothing was to be
done, on hold, and where another session is at it.
Where it cuts anew it stops all others until its transaction ends: each lock is waited for at most 50 ms, the work under
them is bounded, and grows with the unfinished runs of the period; so only run_ticks calls it, which commits at once. It waits for nobody who has been
in a transaction for 50 ms. Raises 55000 outside READ COMMITTED.';
