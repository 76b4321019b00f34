-- Invariant: an ended run is kept for its time, an unfinished one for good, and what is told of a run is there as long
-- as the run. A period goes as a whole, without a DELETE: the few of its runs that are to be kept move to _old first;
-- where they are many it is made anew without the others (rewrite.sql). What is in _old, and the keys of runs that are
-- gone, go row by row, in small rounds.
-- Lock order: chore, then as period.sql says. Each round is a transaction of its own: what a kill leaves half done was
-- not done.

create or replace function perdure._kept_for(queue text, is_completed boolean)
returns interval
language plpgsql
stable
as $$
declare
  v_queue perdure.queue;
begin
  select q.* into v_queue from perdure.queue as q where q.name = _kept_for.queue;
  if _kept_for.is_completed then
    return coalesce(v_queue.retention, (perdure._read_setting('retention') #>> '{}')::interval);
  end if;
  return coalesce(v_queue.failed_retention, greatest(
    v_queue.retention, (perdure._read_setting('failed_retention') #>> '{}')::interval));
end;
$$;
comment on function perdure._kept_for(text, boolean) is
'Tell how long ended runs of a queue are kept; of none in particular: as the install''s settings say.';

create or replace function perdure._limits(now timestamptz)
returns table (queue text, completed_since timestamptz, failed_since timestamptz)
language plpgsql
stable
as $$
begin
  return query
  select
    l.queue,
    _limits.now - perdure._kept_for(l.queue, true),
    _limits.now - perdure._kept_for(l.queue, false)
  from (
    select null::text as queue
    union all
    select q.name from perdure.queue as q where q.retention is not null or q.failed_retention is not null
  ) as l;
end;
$$;
comment on function perdure._limits(timestamptz) is
'Tell since when a run must have ended to be kept: a row for each queue with a time of its own, and one without a name for the others.';

create or replace function perdure._unexpired(begins uuid, ends uuid, now timestamptz, max_runs integer)
returns uuid[]
language plpgsql
stable
as $$
declare
  v_limit pg_catalog.record;
begin
  select l.completed_since, l.failed_since into strict v_limit
  from perdure._limits(_unexpired.now) as l where l.queue is null;
  if not exists (select from perdure.queue as q where q.retention is not null or q.failed_retention is not null) then
    return array(  -- without a look at run, which is larger
      select o.run_id from perdure.outcome as o
      where o.run_id >= _unexpired.begins and o.run_id < _unexpired.ends
        and o.finished_at > case when o.status = 'completed' then v_limit.completed_since else v_limit.failed_since end
      limit _unexpired.max_runs);
  end if;
  return array(
    with limits as materialized (
      select l.queue, l.completed_since, l.failed_since from perdure._limits(_unexpired.now) as l
    )
    select o.run_id
    from perdure.outcome as o
    inner join perdure.run as r on r.run_id = o.run_id
    left join limits as l on l.queue = r.queue
    where o.run_id >= _unexpired.begins and o.run_id < _unexpired.ends
      and r.run_id >= _unexpired.begins and r.run_id < _unexpired.ends
      and o.finished_at > case
        when o.status = 'completed' then coalesce(l.completed_since, v_limit.completed_since)
        else coalesce(l.failed_since, v_limit.failed_since)
      end
    limit _unexpired.max_runs);
end;
$$;
comment on function perdure._unexpired(uuid, uuid, timestamptz, integer) is
'List ended runs of a period whose time is not over, max_runs at most. Reads the whole period.';

create or replace function perdure._needed(begins uuid, ends uuid, max_runs integer)
returns uuid[]
language plpgsql
stable
as $$
begin
  return array(
    select n.run_id
    from (
      select d.run_id from perdure.dispatch as d
      union
      select d.predecessor_id from perdure.dispatch as d where d.predecessor_id is not null
    ) as n (run_id)
    where n.run_id >= _needed.begins and n.run_id < _needed.ends
    limit _needed.max_runs);
end;
$$;
comment on function perdure._needed(uuid, uuid, integer) is
'List runs of a period that are unfinished, or that an unfinished one waits for.';

create or replace function perdure._needed_predecessors(begins uuid, ends uuid, max_runs integer)
returns uuid[]
language plpgsql
volatile
as $$
begin
  return array(
    select r.run_id from perdure.run as r
    where r.run_id >= _needed_predecessors.begins and r.run_id < _needed_predecessors.ends
      and r.predecessor_id is not null
      and perdure._unfinished_predecessor(r.predecessor_id) is not null
    limit _needed_predecessors.max_runs);
end;
$$;
comment on function perdure._needed_predecessors(uuid, uuid, integer) is
'List runs of a period by which whoever replaces them, or is retried, finds that it has to wait. Reads the whole period.';

create or replace function perdure._what_was_seen(begins uuid, ends uuid)
returns jsonb
language plpgsql
stable
as $$
begin
  return jsonb_build_object(
    'retries', (
      select count(*) from perdure.audit as a
      where a.act = 'retry' and a.run_id >= _what_was_seen.begins and a.run_id < _what_was_seen.ends),
    'rules', (
      select jsonb_agg(jsonb_build_array(l.queue, l.completed_since, l.failed_since) order by l.queue)
      from perdure._limits('2000-01-01') as l));
end;
$$;
comment on function perdure._what_was_seen(uuid, uuid) is
'Tell what else decides, beside unfinished runs, which runs of a period are kept.
That is: how often one of them came back to life, and the times for which runs are kept. Where it is still the same under
the locks, what was found before them is still true.';

create or replace function perdure._is_light(run_ids uuid[], max_rows integer, max_bytes bigint)
returns boolean
language plpgsql
stable
as $$
begin
  return (
    select count(*) <= _is_light.max_rows and coalesce(sum(w.bytes), 0) <= _is_light.max_bytes
    from (
      select pg_column_size(r.input) + pg_column_size(r.tags) + pg_column_size(r.headers) as bytes
      from perdure.run as r where r.run_id = any(_is_light.run_ids)
      union all
      select coalesce(pg_column_size(o.result), pg_column_size(o.error))
      from perdure.outcome as o where o.run_id = any(_is_light.run_ids)
      union all
      select coalesce(pg_column_size(s.result), pg_column_size(s.error))
      from perdure.step as s where s.run_id = any(_is_light.run_ids)
      union all
      select pg_column_size(t.error) from perdure.step_attempt as t where t.run_id = any(_is_light.run_ids)
      union all
      select pg_column_size(g.payload) from perdure.signal as g where g.run_id = any(_is_light.run_ids)
      union all
      select 100 from perdure.act as a where a.run_id = any(_is_light.run_ids)
      limit _is_light.max_rows + 1
    ) as w);
end;
$$;
comment on function perdure._is_light(uuid[], integer, bigint) is
'Tell whether runs have so few rows and so small payloads that they can be moved while everybody waits.';

create or replace function perdure._guard_old(ends uuid)
returns text
language plpgsql
volatile
as $$
declare
  v_name constant pg_catalog.text := '_old_is_before' || to_char(perdure._time_of(_guard_old.ends) at time zone 'UTC', '_YYYYMMDD');
  v_table pg_catalog.text;
begin
  if (select sum(pg_relation_size(p.part)) < 4194304 from unnest(perdure._parts(array['_old'])) as p (part)) then
    return null;  -- read in milliseconds when it is attached
  end if;
  foreach v_table in array perdure._run_tables() loop
    if not exists (
      select from pg_constraint as c
      where c.conrelid = format('perdure.%I', v_table || '_old')::regclass and c.conname = v_table || v_name
    ) then
      if perdure._is_in_use(array['_old']) then
        return 'busy';
      end if;
      perform perdure._limit_patience();
      execute format('alter table perdure.%I add constraint %I check (run_id < %L) not valid',
        v_table || '_old', v_table || v_name, _guard_old.ends);
      return 'guarded';
    end if;
  end loop;
  foreach v_table in array perdure._run_tables() loop
    if exists (
      select from pg_constraint as c
      where c.conrelid = format('perdure.%I', v_table || '_old')::regclass and c.conname = v_table || v_name
        and not c.convalidated
    ) then
      execute format('alter table perdure.%I validate constraint %I', v_table || '_old', v_table || v_name);
      return 'guarded';
    end if;
  end loop;
  return null;
exception
  when lock_not_available or deadlock_detected then
    return 'busy';
end;
$$;
comment on function perdure._guard_old(uuid) is
'Prove, while everybody goes on, that _old ends before the new bound.
So it need not be read when it is attached up to there. One table a call: first the constraint, then its validation. Returns guarded, busy, or null where all is proved.';

create or replace function perdure._drop_guards(but text)
returns void
language plpgsql
volatile
as $$
declare
  v_guard pg_catalog.record;
begin
  for v_guard in
    select t.name || '_old' as table_name, c.conname
    from unnest(perdure._run_tables()) as t (name)
    inner join pg_constraint as c on c.conrelid = format('perdure.%I', t.name || '_old')::regclass
    where c.conname ~ '_old_is_before_[0-9]{8}$' and (_drop_guards.but is null or c.conname <> t.name || _drop_guards.but)
  loop
    execute format('alter table perdure.%I drop constraint %I', v_guard.table_name, v_guard.conname);
  end loop;
end;
$$;
comment on function perdure._drop_guards(text) is
'Drop what _guard_old made, but those whose names end so. The caller has stopped everybody.';

create or replace function perdure._discard(table_name text, suffix text)
returns void
language plpgsql
volatile
as $$
declare
  v_has_keys boolean := false;
begin
  perform perdure._detach(_discard.table_name, _discard.suffix);
  if _discard.table_name = 'run' then
    execute format('select exists (select from perdure.%I where key is not null)', 'run' || _discard.suffix) into v_has_keys;
  end if;
  if v_has_keys then
    execute format('alter table perdure.%I rename to %I', 'run' || _discard.suffix, 'run_dropped' || _discard.suffix);
  else
    execute format('drop table perdure.%I', _discard.table_name || _discard.suffix);
  end if;
end;
$$;
comment on function perdure._discard(text, text) is
'Take a partition out of its table and drop it; that of run stays as a list of keys to free, where it has any.';

create or replace function perdure._note_dropped(ends uuid)
returns void
language plpgsql
volatile
as $$
declare
  v_detail pg_catalog.jsonb;
begin
  select jsonb_build_object('to', greatest((c.detail ->> 'to')::uuid, _note_dropped.ends)) into v_detail
  from perdure.chore as c where c.name = 'dropped';
  update perdure.chore as c set detail = v_detail where c.name = 'dropped';
end;
$$;
comment on function perdure._note_dropped(uuid) is 'Note that runs before this one may be gone.';

create or replace function perdure._merge(suffix text, begins uuid, ends uuid, kept uuid[], seen jsonb)
returns boolean
language plpgsql
volatile
as $$
declare
  v_kept pg_catalog.uuid[];
  v_table pg_catalog.text;
begin
  perform perdure._stop_all(array['_old', _merge.suffix]);
  -- only now is nobody at work: what began or came back since the long look is in here
  v_kept := array(
    select u.run_id from unnest(_merge.kept || perdure._needed(_merge.begins, _merge.ends, 3001)) as u (run_id) group by u.run_id);
  if cardinality(v_kept) > 3000 or perdure._what_was_seen(_merge.begins, _merge.ends) <> _merge.seen then
    return false;
  end if;
  perform perdure._drop_guards('_old_is_before' || to_char(perdure._time_of(_merge.ends) at time zone 'UTC', '_YYYYMMDD'));
  foreach v_table in array perdure._run_tables() loop
    perform perdure._detach(v_table, '_old');
    if cardinality(v_kept) > 0 then
      execute format('insert into perdure.%I select * from perdure.%I where run_id = any($1)',
        v_table || '_old', v_table || _merge.suffix) using v_kept;
    end if;
    perform perdure._discard(v_table, _merge.suffix);
    perform perdure._attach(v_table, '_old', null, _merge.ends);
  end loop;
  perform perdure._drop_guards(null);
  perform perdure._note_dropped(_merge.ends);
  return true;
end;
$$;
comment on function perdure._merge(text, uuid, uuid, uuid[], jsonb) is
'Drop a period, the one after _old, which takes over the runs that are kept and reaches up to its end from now on.
kept and seen are what was found before the locks. Returns false, having changed nothing, where they are no longer true.
Locks the tables of a run exclusively until the transaction ends; raises as _stop_all does.';
