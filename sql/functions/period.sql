-- Invariant: the catalog alone says how the tables of a run are cut, all of them at the same run_ids. Who cuts anew
-- stops everybody first, for milliseconds. It does not wait for a transaction that stays open, and nobody waits behind
-- it for one.
-- Lock order: chore, worker (exclusive: no fence, so no worker is within a transaction), then the tables of a run, in
-- the order in which workers come to them, each waited for 50 ms at most; whoever is in the way longer is left alone.

create or replace function perdure._run_tables()
returns text[]
language sql
immutable
parallel safe
as $$
  select array['step', 'step_attempt', 'signal', 'act', 'outcome', 'run']
$$;
comment on function perdure._run_tables() is 'List the tables that are cut by run_id, in the order in which they are locked.';

create or replace function perdure._bound_at(at timestamptz)
returns uuid
language sql
immutable
parallel safe
as $$
  select rpad(lpad(to_hex(greatest((extract(epoch from _bound_at.at) * 1000)::bigint, 0)), 12, '0'), 32, '0')::uuid
$$;
comment on function perdure._bound_at(timestamptz) is 'Make the smallest UUIDv7 of a time.';

create or replace function perdure._time_of(run_id uuid)
returns timestamptz
language sql
immutable
parallel safe
as $$
  select to_timestamp((('x' || left(replace(_time_of.run_id::text, '-', ''), 12))::bit(48)::bigint) / 1000.0)
$$;
comment on function perdure._time_of(uuid) is 'Tell the time of a UUIDv7.';

create or replace function perdure._suffix_of(begins uuid)
returns text
language sql
stable
as $$
  select to_char(perdure._time_of(_suffix_of.begins) at time zone 'UTC', '_YYYYMMDD')
$$;
comment on function perdure._suffix_of(uuid) is 'Tell what the names of partitions end in that begin at a run_id.';

create or replace view perdure._cuts as
select
  b.suffix,
  b.begins,
  b.ends,
  to_timestamp((('x' || left(replace(b.begins::text, '-', ''), 12))::bit(48)::bigint) / 1000.0) as begins_at,
  to_timestamp((('x' || left(replace(b.ends::text, '-', ''), 12))::bit(48)::bigint) / 1000.0) as ends_at
from (
  select
    substr(c.relname, length('run') + 1) as suffix,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(]''([0-9a-f-]{36})''[)]'))[1]::uuid as begins,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO [(]''([0-9a-f-]{36})''[)]'))[1]::uuid as ends
  from pg_inherits as i
  inner join pg_class as c on i.inhrelid = c.oid
  where i.inhparent = 'perdure.run'::regclass
) as b;

comment on view perdure._cuts is 'How the tables of a run are cut, from the catalog.';
comment on column perdure._cuts.suffix is 'What the names of the partitions end in.';
comment on column perdure._cuts.begins is 'The run_id from which on their rows are; null for the first.';
comment on column perdure._cuts.ends is 'The run_id up to which; null for the last.';
comment on column perdure._cuts.begins_at is 'Time of begins.';
comment on column perdure._cuts.ends_at is 'Time of ends.';

create or replace function perdure._part(table_name text, suffix text)
returns regclass
language sql
stable
as $$
  select format('perdure.%I', _part.table_name || _part.suffix)::regclass
$$;
comment on function perdure._part(text, text) is
'Find the partition of a table whose name ends so; an empty ending is the table itself.';

create or replace function perdure._parts(suffixes text[])
returns regclass[]
language sql
stable
as $$
  select array_agg(perdure._part(t.name, s.suffix) order by t.ordinality, s.suffix)
  from unnest(perdure._run_tables()) with ordinality as t (name, ordinality)
  cross join unnest(_parts.suffixes) as s (suffix)
$$;
comment on function perdure._parts(text[]) is 'List the partitions of all tables of a run whose names end so.';

create or replace function perdure._holders(parts regclass[])
returns text[]
language sql
volatile
as $$
  select array_agg(distinct l.virtualtransaction)
  from pg_locks as l
  where l.relation = any(_holders.parts::oid[])
    and l.database = (select d.oid from pg_database as d where d.datname = current_database())
    and l.pid is distinct from pg_backend_pid()
$$;
comment on function perdure._holders(regclass[]) is 'List the transactions that hold, or wait for, a lock on one of these tables; null for none.';

create or replace function perdure._is_in_use(suffixes text[])
returns boolean
language plpgsql
volatile
as $$
declare
  v_parts constant pg_catalog.regclass[] := perdure._parts(array[''] || _is_in_use.suffixes);
  v_before pg_catalog.text[] := perdure._holders(v_parts);
begin
  if v_before is null then
    return false;
  end if;
  perform pg_sleep(0.05);  -- who is there after this would be there when the lock gives up, and all others behind it
  return coalesce(v_before && perdure._holders(v_parts), false);
end;
$$;
comment on function perdure._is_in_use(text[]) is
'Tell whether a transaction is at work on the tables of a run, or on partitions whose names end so, that has lasted for 50 ms.';

create or replace function perdure._limit_patience()
returns void
language plpgsql
volatile
as $$
begin
  -- sooner than anybody's search for a deadlock: who has the one table and wants the other must not be its victim
  perform set_config('lock_timeout', greatest(extract(epoch from least(
    interval '50 milliseconds', current_setting('deadlock_timeout')::interval / 2)) * 1000, 1)::integer::text, true);
end;
$$;
comment on function perdure._limit_patience() is
'Let this transaction wait for a lock for 50 ms at most, and for less than it takes others to look for a deadlock.';

create or replace function perdure._stop_all(suffixes text[])
returns void
language plpgsql
volatile
as $$
declare
  v_part pg_catalog.regclass;
begin
  perform perdure._limit_patience();
  lock table perdure.worker in exclusive mode;
  foreach v_part in array perdure._parts(array[''] || _stop_all.suffixes) loop
    execute format('lock table only %s in access exclusive mode', v_part);
  end loop;
end;
$$;
comment on function perdure._stop_all(text[]) is
'Lock the tables of a run, and their partitions whose names end so, against everybody until the transaction ends.
Raises 55P03 where somebody is in the way for 50 ms.';

create or replace function perdure._close(table_name text)
returns void
language plpgsql
volatile
as $$
declare
  v_role pg_catalog.name;
begin
  execute format('revoke all on table perdure.%I from public', _close.table_name);
  execute format('revoke all on type perdure.%I from public', _close.table_name);
  for v_role in  -- to whom the owner's default privileges give something
    select distinct r.rolname
    from pg_class as c
    inner join pg_type as t on t.oid = c.reltype
    cross join lateral (select x.grantee from aclexplode(c.relacl) as x union select x.grantee from aclexplode(t.typacl) as x) as a
    inner join pg_roles as r on r.oid = a.grantee
    where c.oid = format('perdure.%I', _close.table_name)::regclass and a.grantee <> c.relowner
  loop
    execute format('revoke all on table perdure.%I from %I', _close.table_name, v_role);
    execute format('revoke all on type perdure.%I from %I', _close.table_name, v_role);
  end loop;
end;
$$;
comment on function perdure._close(text) is 'Take a table that was just made from all but its owner, as the install does with its own.';

create or replace function perdure._make_parts(suffix text)
returns void
language plpgsql
volatile
as $$
declare
  v_table pg_catalog.text;
begin
  perform set_config('default_tablespace', coalesce((  -- not the caller's: that of the table
    select t.spcname
    from pg_class as c
    inner join pg_tablespace as t on t.oid = c.reltablespace
    where c.oid = 'perdure.run'::regclass), ''), true);
  foreach v_table in array perdure._run_tables() loop
    execute format(
      'create table perdure.%I (like perdure.%I including defaults including constraints including indexes including storage)',
      v_table || _make_parts.suffix, v_table);
    execute format('comment on table perdure.%I is %L',
      v_table || _make_parts.suffix, format('Rows of %s of one period.', v_table));
    perform perdure._close(v_table || _make_parts.suffix);
  end loop;
end;
$$;
comment on function perdure._make_parts(text) is 'Make a table for each table of a run, like it, that is no partition yet.';

create or replace function perdure._attach(table_name text, suffix text, begins uuid, ends uuid)
returns void
language plpgsql
volatile
as $$
begin
  execute format('alter table perdure.%I attach partition perdure.%I for values from (%s) to (%s)',
    _attach.table_name, _attach.table_name || _attach.suffix,
    coalesce(quote_literal(_attach.begins), 'minvalue'), coalesce(quote_literal(_attach.ends), 'maxvalue'));
end;
$$;
comment on function perdure._attach(text, text, uuid, uuid) is 'Make a table a partition; null means without end.';

create or replace function perdure._detach(table_name text, suffix text)
returns void
language plpgsql
volatile
as $$
begin
  execute format('alter table perdure.%I detach partition perdure.%I',
    _detach.table_name, _detach.table_name || _detach.suffix);
end;
$$;
comment on function perdure._detach(text, text) is 'Take a partition out of its table.';

create or replace function perdure._period_length()
returns interval
language plpgsql
stable
as $$
begin
  return greatest(
    (perdure._read_setting('partition_period') #>> '{}')::interval,
    (perdure._read_setting('retention') #>> '{}')::interval / 3);
end;
$$;
comment on function perdure._period_length() is
'Tell how long a period is: as set, or a third of the time for which completed runs are kept, so that few are alive.';

create or replace function perdure._split(top text, begins uuid, bound uuid)
returns void
language plpgsql
volatile
as $$
declare
  v_suffix constant pg_catalog.text := perdure._suffix_of(_split.bound);
  v_table pg_catalog.text;
begin
  perform perdure._make_parts(v_suffix);
  perform perdure._stop_all(array[_split.top]);
  foreach v_table in array perdure._run_tables() loop
    perform perdure._detach(v_table, _split.top);
    execute format(  -- of a clock that was ahead; by rule there are none
      'with ahead as (delete from perdure.%I where run_id >= $1 returning *) insert into perdure.%I select * from ahead',
      v_table || _split.top, v_table || v_suffix) using _split.bound;
    perform perdure._attach(v_table, _split.top, _split.begins, _split.bound);
    perform perdure._attach(v_table, v_suffix, _split.bound, null);
  end loop;
end;
$$;
comment on function perdure._split(text, uuid, uuid) is
'Cut the last period in two. Locks the tables of a run exclusively until the transaction ends; raises as _stop_all does.';

create or replace function perdure._make_ahead(now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_length constant interval := perdure._period_length();
  v_top pg_catalog.record;
  v_bound pg_catalog.uuid;
begin
  select c.suffix, c.begins, c.begins_at into strict v_top from perdure._cuts as c where c.ends is null;
  if v_top.begins_at >= _make_ahead.now + v_length / 2 then
    return null;
  elsif perdure._is_in_use(array[v_top.suffix]) then
    return 'busy';
  end if;
  v_bound := perdure._bound_at(date_trunc(
    'day', greatest(v_top.begins_at, _make_ahead.now) + v_length, 'UTC'));
  if (select count(*) > 1000 from (select from perdure.run as r where r.run_id >= v_bound limit 1001) as a) then
    v_bound := perdure._bound_at(date_trunc('day', perdure._time_of((
      select r.run_id from perdure.run as r where r.run_id >= v_bound order by r.run_id desc limit 1
    )) + interval '1 day', 'UTC'));
  end if;
  begin
    perform perdure._split(v_top.suffix, v_top.begins, v_bound);
  exception
    when lock_not_available or deadlock_detected then
      return 'busy';
  end;
  return 'made ahead';
end;
$$;
comment on function perdure._make_ahead(timestamptz) is
'Cut the last period, which is empty until its time comes, in two when that is less than half a period away.
Returns made ahead, busy where somebody is at work on it, or null where nothing is to be done.';

create or replace function perdure._check_snapshot(run_ids uuid[])
returns void
language plpgsql
volatile
as $$
begin
  if current_setting('transaction_isolation') not in ('repeatable read', 'serializable') then
    return;  -- before anything is read: as one question with the next it costs each caller the start of a plan
  end if;
  if not exists (
    select from unnest(_check_snapshot.run_ids) as u (run_id)
    where (select true from perdure.run as r where r.run_id = u.run_id) is null
  ) then
    return;
  end if;
  -- rows that were moved when the tables were cut anew are hidden from whoever had a snapshot before that; pg_inherits
  -- tells how they were cut then, pg_partition_tree how they are cut now
  if exists (
    (select i.inhrelid from pg_inherits as i where i.inhparent = 'perdure.run'::regclass)
    except
    (select t.relid from pg_partition_tree('perdure.run') as t where t.level = 1)
  ) or exists (
    (select t.relid from pg_partition_tree('perdure.run') as t where t.level = 1)
    except
    (select i.inhrelid from pg_inherits as i where i.inhparent = 'perdure.run'::regclass)
  ) then
    raise exception 'could not serialize access: the tables of runs were cut anew since this transaction began'
      using errcode = '40001', hint = 'Begin the transaction again.';
  end if;
end;
$$;
comment on function perdure._check_snapshot(uuid[]) is
'Refuse to call a run unknown that an older snapshot cannot see.
Raises 40001 where one of them cannot be seen and the tables were cut anew since the snapshot.';
