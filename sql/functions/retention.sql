-- Invariant: an ended run is kept for its time, an unfinished one for good, and what is told of a run is there as long
-- as the run. A period goes as a whole, without a DELETE: the few of its runs that are to be kept move to _old first;
-- where they are many it is made anew without the others (rewrite.sql). What is in _old, and the keys of runs that are
-- gone, go row by row, in small rounds.
-- Lock order: chore, then as period.sql says. Each round is a transaction of its own: what a kill leaves half done was
-- not done.

create or replace view perdure._retentions as
with general as (
  select
    max((s.value #>> '{}')::interval) filter (where s.name = 'retention') as retention,
    max((s.value #>> '{}')::interval) filter (where s.name = 'failed_retention') as failed_retention
  from perdure.setting as s
  where s.name in ('retention', 'failed_retention')
)

select
  null as queue,
  g.retention as completed,
  g.failed_retention as failed
from general as g
union all
select
  q.name,
  coalesce(q.retention, g.retention),
  coalesce(q.failed_retention, greatest(q.retention, g.failed_retention))
from perdure.queue as q
cross join general as g
where q.retention is not null or q.failed_retention is not null;

comment on view perdure._retentions is 'How long ended runs are kept.';
comment on column perdure._retentions.queue is 'A queue with a time of its own; null for all others.';
comment on column perdure._retentions.completed is 'How long its completed runs are kept.';
comment on column perdure._retentions.failed is 'How long its runs that ended otherwise are kept.';

create or replace function perdure._ended(begins uuid, ends uuid, now timestamptz)
returns table (run_id uuid, is_over boolean)
language sql  -- without a SET clause: so it is inlined
stable
as $$
  with kept as materialized (
    select k.queue, _ended.now - k.completed as completed_since, _ended.now - k.failed as failed_since
    from perdure._retentions as k
  )
  select
    o.run_id,
    o.finished_at <= case
      when o.status = 'completed'
        then coalesce(k.completed_since, (select g.completed_since from kept as g where g.queue is null))
      else coalesce(k.failed_since, (select g.failed_since from kept as g where g.queue is null))
    end
  from perdure.outcome as o
  left join (  -- which is larger, and not looked at where no queue has a time of its own
    select r.run_id, r.queue from perdure.run as r
    where r.run_id >= _ended.begins and r.run_id < _ended.ends
      and exists (select from kept as own where own.queue is not null)
  ) as r on r.run_id = o.run_id
  left join kept as k on k.queue = r.queue
  where o.run_id >= _ended.begins and o.run_id < _ended.ends
$$;
comment on function perdure._ended(uuid, uuid, timestamptz) is
'List the ended runs of a period, and whether the time for which each is kept is over.';

create or replace function perdure._unexpired(begins uuid, ends uuid, now timestamptz, max_runs integer)
returns uuid[]
language plpgsql
stable
as $$
begin
  return array(
    select e.run_id
    from perdure._ended(_unexpired.begins, _unexpired.ends, _unexpired.now) as e
    where not e.is_over
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
      select jsonb_agg(jsonb_build_array(k.queue, k.completed, k.failed) order by k.queue)
      from perdure._retentions as k));
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

create or replace function perdure._guard_name(table_name text, ends uuid)
returns text
language sql
stable
as $$
  select _guard_name.table_name || '_old_is_before' || perdure._suffix_of(_guard_name.ends)
$$;
comment on function perdure._guard_name(text, uuid) is 'Name the constraint that says up to where a partition _old is filled.';

create or replace function perdure._guard_old(ends uuid)
returns text
language plpgsql
volatile
as $$
declare
  v_table pg_catalog.text;
begin
  if (select sum(pg_relation_size(p.part)) < 4194304 from unnest(perdure._parts(array['_old'])) as p (part)) then
    return null;  -- read in milliseconds when it is attached
  end if;
  foreach v_table in array perdure._run_tables() loop
    if not exists (
      select from pg_constraint as c
      where c.conrelid = perdure._part(v_table, '_old') and c.conname = perdure._guard_name(v_table, _guard_old.ends)
    ) then
      if perdure._is_in_use(array['_old']) then
        return 'busy';
      end if;
      perform perdure._limit_patience();
      execute format('alter table perdure.%I add constraint %I check (run_id < %L) not valid',
        v_table || '_old', perdure._guard_name(v_table, _guard_old.ends), _guard_old.ends);
      return 'guarded';
    end if;
  end loop;
  foreach v_table in array perdure._run_tables() loop
    if exists (
      select from pg_constraint as c
      where c.conrelid = perdure._part(v_table, '_old') and c.conname = perdure._guard_name(v_table, _guard_old.ends)
        and not c.convalidated
    ) then
      execute format('alter table perdure.%I validate constraint %I',
        v_table || '_old', perdure._guard_name(v_table, _guard_old.ends));
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

create or replace function perdure._drop_guards(but uuid)
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
    inner join pg_constraint as c on c.conrelid = perdure._part(t.name, '_old')
    where c.conname ~ '_old_is_before_[0-9]{8}$' and c.conname is distinct from perdure._guard_name(t.name, _drop_guards.but)
  loop
    execute format('alter table perdure.%I drop constraint %I', v_guard.table_name, v_guard.conname);
  end loop;
end;
$$;
comment on function perdure._drop_guards(uuid) is
'Drop what _guard_old made, but for this bound; for all where it is null. The caller has stopped everybody.';

create or replace function perdure._key_list(suffix text)
returns text
language sql
immutable
parallel safe
as $$
  select 'run_dropped' || _key_list.suffix
$$;
comment on function perdure._key_list(text) is
'Name the table that lists the keys of a dropped partition of run, until they are free.';

create or replace function perdure._has_key_list(suffix text)
returns boolean
language sql
stable
as $$
  select to_regclass(format('perdure.%I', perdure._key_list(_has_key_list.suffix))) is not null
$$;
comment on function perdure._has_key_list(text) is
'Tell whether keys of a former partition of this name are still to be freed.';

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
    execute format('alter table perdure.%I rename to %I', 'run' || _discard.suffix, perdure._key_list(_discard.suffix));
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
  perform perdure._drop_guards(_merge.ends);
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
