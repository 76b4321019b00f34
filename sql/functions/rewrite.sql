-- Invariant: periods of which much is to be kept are made anew without the rest, under the same bounds: what has ended
-- is copied beforehand into tables of its own, while everybody goes on, and the copy takes the place of the periods
-- once it is complete. What still changes is copied under the locks.
-- Lock order: chore, then as period.sql says. Each round is a transaction of its own; the row copy of chore tells how
-- far it came, so a kill in between costs that round.
-- Why the copy is complete: rounds begin when whoever was at work at the beginning (holders) is done, so of a run that
-- had ended before then everything is there to be copied, late messages included. It can change only by a retry, and
-- those are counted. Runs that were unfinished when they were copied have no outcome in the copy; these, and those that
-- ended since the beginning, are looked at once more under the locks, together with whoever is in dispatch by then.

create or replace function perdure._abandon_copy()
returns void
language plpgsql
volatile
as $$
declare
  v_table pg_catalog.text;
begin
  foreach v_table in array perdure._run_tables() loop
    execute format('drop table if exists perdure.%I', v_table || '_staged');
  end loop;
  update perdure.chore as c set detail = '{}' where c.name = 'copy';
end;
$$;
comment on function perdure._abandon_copy() is 'Drop a copy that was not finished.';

create or replace function perdure._pays(begins uuid, ends uuid, now timestamptz)
returns boolean
language plpgsql
volatile
as $$
declare
  v_answer boolean;
begin
  perform set_config('enable_seqscan', 'on', true);
  select count(*) filter (where e.is_over) >= greatest(1000, count(*) filter (where not e.is_over) / 4) into v_answer
  from perdure._ended(_pays.begins, _pays.ends, _pays.now) as e;
  perform set_config('enable_seqscan', 'off', true);
  return v_answer;
end;
$$;
comment on function perdure._pays(uuid, uuid, timestamptz) is
'Tell whether so many runs of a period are over that it is worth making it anew without them. Reads the whole period.';

create or replace function perdure._group(since timestamptz)
returns table (suffixes text[], begins uuid, ends uuid)
language plpgsql
stable
as $$
declare
  v_due pg_catalog.record;
  v_open pg_catalog.uuid[] := '{}'::uuid[];
  v_more pg_catalog.uuid[];
begin
  suffixes := '{}';
  for v_due in
    select c.suffix, c.begins, c.ends from perdure._cuts as c
    where c.begins is not null and c.ends is not null and c.ends_at <= _group.since
    order by c.begins desc
  loop
    v_more := v_open || perdure._needed(v_due.begins, v_due.ends, 3001);
    if not perdure._has_key_list(v_due.suffix)  -- else its name is still in use
      and cardinality(v_more) <= 3000 and perdure._is_light(v_more, 30000, 1073741824)
    then
      v_open := v_more;
      suffixes := v_due.suffix || suffixes;
      begins := v_due.begins;
      ends := coalesce(ends, v_due.ends);
    elsif cardinality(suffixes) > 0 then
      exit;
    end if;
  end loop;
  return next;
end;
$$;
comment on function perdure._group(timestamptz) is
'Find the latest periods that are due and follow each other, with few enough unfinished runs to be made anew as one.
So those that were made anew before are taken along, and few partitions are alive however long some runs are kept.';

create or replace function perdure._begin_copy(suffix text, since timestamptz, now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_group pg_catalog.record;
  v_table pg_catalog.text;
  v_detail pg_catalog.jsonb;
begin
  select g.* into strict v_group from perdure._group(_begin_copy.since) as g;
  -- four become one in any case, so that few partitions are alive
  if cardinality(v_group.suffixes) = 0
    or cardinality(v_group.suffixes) < 4 and not perdure._pays(v_group.begins, v_group.ends, _begin_copy.now)
  then
    return case
      when _begin_copy.suffix = any(v_group.suffixes) then 'kept'
      when perdure._has_key_list(_begin_copy.suffix) then 'kept'
      else 'waits'
    end;
  end if;
  perform perdure._abandon_copy();
  perform perdure._make_parts('_staged');
  foreach v_table in array perdure._run_tables() loop
    execute format(  -- so that it need not be read when it is attached
      'alter table perdure.%I add constraint %I check (run_id >= %L and run_id < %L)',
      v_table || '_staged', v_table || '_staged_is_of_its_period', v_group.begins, v_group.ends);
  end loop;
  v_detail := to_jsonb(v_group) || jsonb_build_object(
    'began', _begin_copy.now, 'holders', coalesce(perdure._holders(perdure._parts(array[''])), '{}'));
  update perdure.chore as c set detail = v_detail where c.name = 'copy';
  return 'copying';
end;
$$;
comment on function perdure._begin_copy(text, timestamptz, timestamptz) is
'Begin to make periods that are due anew, where it pays.
Returns copying; kept where it does not, or the keys of its former self are still being freed; waits where the period named
cannot, for its unfinished runs.';

create or replace function perdure._to_copy(after uuid, upto uuid, began timestamptz)
returns table (run_id uuid, is_ended boolean)
language plpgsql
volatile
as $$
begin
  return query
  select r.run_id, e.run_id is not null
  from perdure.run as r
  left join perdure._ended(_to_copy.after, _to_copy.upto, _to_copy.began) as e on e.run_id = r.run_id
  where r.run_id >= _to_copy.after and r.run_id < _to_copy.upto
    and (
      e.is_over is not true
      or exists (select from perdure.dispatch as d where d.predecessor_id = r.run_id)
      or r.predecessor_id is not null and perdure._unfinished_predecessor(r.predecessor_id) is not null);
end;
$$;
comment on function perdure._to_copy(uuid, uuid, timestamptz) is
'List the runs of a part of a period that are to be kept, and whether they have ended.';

create or replace function perdure._copy_some(after uuid, ends uuid, began timestamptz)
returns uuid
language plpgsql
volatile
as $$
declare
  v_upto pg_catalog.uuid;
  v_kept pg_catalog.uuid[];
  v_ended pg_catalog.uuid[];
  v_table pg_catalog.text;
begin
  v_upto := coalesce((
    select r.run_id from perdure.run as r
    where r.run_id >= _copy_some.after and r.run_id < _copy_some.ends
    order by r.run_id
    offset 20000
    limit 1), _copy_some.ends);
  select array_agg(k.run_id), array_agg(k.run_id) filter (where k.is_ended) into v_kept, v_ended
  from perdure._to_copy(_copy_some.after, v_upto, _copy_some.began) as k;
  foreach v_table in array perdure._run_tables() loop
    execute format('insert into perdure.%I select * from perdure.%I where run_id = any($1)', v_table || '_staged', v_table)
    using case v_table when 'act' then v_ended else v_kept end;  -- acts of an unfinished run are answered later
  end loop;
  return v_upto;
end;
$$;
comment on function perdure._copy_some(uuid, uuid, timestamptz) is
'Copy what is to be kept of the next 20,000 runs. Returns up to where.';

create or replace function perdure._still_open(began timestamptz)
returns uuid[]
language plpgsql
stable
as $$
declare
  v_open pg_catalog.uuid[];
begin
  execute format(
    'select array_agg(r.run_id) from perdure.%I as r left join perdure.%I as o on o.run_id = r.run_id'
    ' where o.run_id is null or o.finished_at >= $1', 'run_staged', 'outcome_staged')
  into v_open using _still_open.began - interval '10 seconds';
  return coalesce(v_open, '{}');
end;
$$;
comment on function perdure._still_open(timestamptz) is
'List the runs of the copy that were not settled when they were copied.';

create or replace function perdure._catch_up(open uuid[])
returns void
language plpgsql
volatile
as $$
declare
  v_table pg_catalog.text;
  v_changed pg_catalog.uuid[];
begin
  foreach v_table in array perdure._run_tables() loop
    v_changed := _catch_up.open;
    if v_table <> 'act' then  -- of the others rows come, and go by a retry only
      execute format(
        'select array_agg(n.run_id) from ('
        'select t.run_id, count(*) from perdure.%I as t where t.run_id = any($1) group by t.run_id except '
        'select s.run_id, count(*) from perdure.%I as s where s.run_id = any($1) group by s.run_id) as n',
        v_table, v_table || '_staged') into v_changed using _catch_up.open;
    end if;
    execute format('delete from perdure.%I where run_id = any($1)', v_table || '_staged') using v_changed;
    execute format('insert into perdure.%I select * from perdure.%I where run_id = any($1)', v_table || '_staged', v_table)
    using v_changed;
  end loop;
end;
$$;
comment on function perdure._catch_up(uuid[]) is
'Copy anew what changed of runs that were not settled when they were copied. The caller has stopped everybody.';

create or replace function perdure._swap(suffixes text[], begins uuid, ends uuid)
returns void
language plpgsql
volatile
as $$
declare
  v_table pg_catalog.text;
  v_suffix pg_catalog.text;
begin
  foreach v_table in array perdure._run_tables() loop
    foreach v_suffix in array _swap.suffixes loop
      perform perdure._discard(v_table, v_suffix);
    end loop;
    execute format('alter table perdure.%I rename to %I', v_table || '_staged', v_table || _swap.suffixes[1]);
    perform perdure._attach(v_table, _swap.suffixes[1], _swap.begins, _swap.ends);
    execute format('alter table perdure.%I drop constraint %I',
      v_table || _swap.suffixes[1], v_table || '_staged_is_of_its_period');
  end loop;
  perform perdure._note_dropped(_swap.ends);
  update perdure.chore as c set detail = '{}' where c.name = 'copy';
end;
$$;
comment on function perdure._swap(text[], uuid, uuid) is
'Put the copy in the place of the periods that it was made of. The caller has stopped everybody.';

create or replace function perdure._finish_copy(suffixes text[], begins uuid, ends uuid, began timestamptz, seen jsonb)
returns text
language plpgsql
volatile
as $$
declare
  v_open pg_catalog.uuid[];
begin
  v_open := perdure._still_open(_finish_copy.began);
  if cardinality(v_open) > 4000 or not perdure._is_light(v_open, 40000, 1073741824) then
    perform perdure._abandon_copy();
    return 'busy';
  elsif perdure._is_in_use(_finish_copy.suffixes) then
    return 'busy';
  end if;
  perform perdure._stop_all(_finish_copy.suffixes);
  if perdure._what_was_seen(_finish_copy.begins, _finish_copy.ends) <> _finish_copy.seen
    or perdure._now() < _finish_copy.began
  then
    perform perdure._abandon_copy();
    return 'copying';
  end if;
  perform perdure._catch_up(array(
    select u.run_id from unnest(v_open || perdure._needed(_finish_copy.begins, _finish_copy.ends, null)) as u (run_id)
    group by u.run_id));
  perform perdure._swap(_finish_copy.suffixes, _finish_copy.begins, _finish_copy.ends);
  return 'rewritten';
end;
$$;
comment on function perdure._finish_copy(text[], uuid, uuid, timestamptz, jsonb) is
'Let a copy that is complete take the place of its periods; drop it where what it was made by has changed.
Returns rewritten; copying where it begins anew; busy. Locks the tables of a run exclusively until the transaction ends;
raises as _stop_all does.';

create or replace function perdure._go_on_copying(copy jsonb, now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_copy pg_catalog.record;
  v_detail pg_catalog.jsonb;
begin
  select j.* into strict v_copy from jsonb_to_record(_go_on_copying.copy)
    as j (suffixes text[], begins uuid, ends uuid, began timestamptz, holders text[], seen jsonb, after uuid);
  v_detail := perdure._what_was_seen(v_copy.begins, v_copy.ends);
  if v_copy.seen <> v_detail or _go_on_copying.now < v_copy.began then
    perform perdure._abandon_copy();
    return 'copying';
  elsif v_copy.holders is not null then
    if v_copy.holders && perdure._holders(perdure._parts(array[''])) then
      return 'busy';
    end if;
    v_detail := _go_on_copying.copy - 'holders' || jsonb_build_object('seen', v_detail, 'after', v_copy.begins);
  elsif v_copy.after = v_copy.ends then
    return perdure._finish_copy(v_copy.suffixes, v_copy.begins, v_copy.ends, v_copy.began, v_copy.seen);
  else
    v_detail := _go_on_copying.copy
      || jsonb_build_object('after', perdure._copy_some(v_copy.after, v_copy.ends, v_copy.began));
  end if;
  update perdure.chore as c set detail = v_detail where c.name = 'copy';
  return 'copying';
end;
$$;
comment on function perdure._go_on_copying(jsonb, timestamptz) is
'Do the next round of a copy, which is what the row copy of chore says.
Returns copying, or as _finish_copy does. Raises as that does.';
