-- Invariant: many starts in one statement are as many starts one by one, each with its own id and time.
-- Lock order: run_key in the order of the keys, then inserts.

create or replace function perdure._check_many(on_duplicate text, inputs integer, keys integer)
returns void
language plpgsql
immutable
as $$
begin
  if _check_many.on_duplicate = 'replace' then
    raise exception 'start_many does not replace'
      using errcode = '22023', hint = 'Call perdure.start for runs that replace others.';
  elsif _check_many.keys <> _check_many.inputs then
    raise exception 'there are % inputs and % keys', _check_many.inputs, _check_many.keys
      using errcode = '22023', hint = 'Pass one key per input, or none at all.';
  end if;
end;
$$;
comment on function perdure._check_many(text, integer, integer) is
'Refuse options of a start of many that cannot be met; a null number of keys passes. Raises 22023.';

create or replace function perdure.start_many(
  workflow text,
  inputs jsonb[],
  keys text[] default null,
  on_duplicate text default 'attach',
  queue text default null,
  priority integer default 3,
  start_at timestamptz default null,
  tags jsonb default '{}'
)
returns table (ordinal integer, run_id uuid, is_new boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_limit constant bigint := perdure._payload_limit();
  v_default perdure.workflow;
  v_count constant integer := coalesce(cardinality(start_many.inputs), 0);
  v_ids uuid[];
  v_taken uuid[];
  v_is_new boolean[] := array_fill(true, array[greatest(v_count, 1)]);
  v_key record;
  v_one record;
begin
  v_default := perdure._default_of(start_many.workflow collate "C", start_many.queue);
  perform perdure._check_start(start_many.on_duplicate collate "C", start_many.priority, null, start_many.tags);
  perform perdure._check_times(start_many.start_at, null, null, null);
  perform perdure._check_many(start_many.on_duplicate collate "C", v_count, cardinality(start_many.keys));
  perform perdure._check_payload('input', i.input)
  from unnest(start_many.inputs) as i (input)
  where i.input is null or pg_column_size(i.input) > v_limit;

  -- ids and ready times a microsecond apart: equal times would make each claim sort them all
  v_ids := array(
    select perdure._uuid7(v_now + g.n * interval '1 microsecond') from generate_series(0, v_count - 1) as g (n));
  v_taken := v_ids;
  if start_many.keys is not null then
    for v_one in  -- sorted, so that two callers with the same keys wait for, but never deadlock, each other
      select k.key, k.ordinality::integer as ordinal
      from unnest(start_many.keys collate "C") with ordinality as k (key, ordinality)
      where k.key is not null
      order by k.key, k.ordinality
    loop
      perform perdure._check_name('key', v_one.key);
      v_key := perdure._take_key(
        start_many.workflow collate "C", v_one.key, perdure._fingerprint(start_many.inputs[v_one.ordinal]),
        v_ids[v_one.ordinal], start_many.on_duplicate);
      v_taken[v_one.ordinal] := v_key.taken_by;
      v_is_new[v_one.ordinal] := v_key.is_new;
    end loop;
  end if;

  insert into perdure.run (
    run_id, workflow, queue, priority, input, key, tags, headers, start_at, timeout, max_recoveries, created_at, created_by)
  select
    a.run_id, start_many.workflow, v_default.queue, start_many.priority, a.input, a.key, start_many.tags, '{}',
    start_many.start_at, v_default.timeout, v_default.max_recoveries, v_now, perdure._caller()
  from unnest(v_ids, start_many.inputs, start_many.keys, v_is_new) as a (run_id, input, key, is_new)
  where a.is_new and a.run_id is not null;
  insert into perdure.dispatch (run_id, workflow, queue, priority, ready_at, timeout, max_recoveries)
  select
    a.run_id, start_many.workflow, v_default.queue, start_many.priority,
    greatest(start_many.start_at, v_now) + (a.ordinality - 1) * interval '1 microsecond', v_default.timeout,
    v_default.max_recoveries
  from unnest(v_ids, v_is_new) with ordinality as a (run_id, is_new, ordinality)
  where a.is_new and a.run_id is not null;
  perform perdure._notify(v_default.queue) where coalesce(start_many.start_at, v_now) < v_now + interval '1 second';
  return query
  select a.ordinality::integer, a.run_id, a.is_new
  from unnest(v_taken, v_is_new) with ordinality as a (run_id, is_new, ordinality)
  where a.run_id is not null
  order by a.ordinality;
end;
$$;
comment on function perdure.start_many(text, jsonb[], text[], text, text, integer, timestamptz, jsonb) is
'Start one run per input, in one statement, in the caller''s transaction.
keys has one element per input; null elements have no key. Without keys each call starts other runs. Returns ordinal (from 1), run_id and whether the run is new.
Raises as start does, 22023 also where keys and inputs differ in number. Locks the keys'' rows in their order.';
