-- Invariant: a start only inserts, in the caller's transaction: commit makes the run real, rollback leaves no
-- trace.
-- Lock order: run_key (a rival with the same key waits, at most 5 s), then inserts, then wake. Never an existing
-- dispatch row.

create or replace function perdure._check_start(
  on_duplicate text,
  priority integer,
  max_recoveries integer,
  payload_limit bigint,
  tags jsonb,
  headers jsonb default '{}'
)
returns void
language plpgsql
stable
as $$
begin
  if _check_start.on_duplicate is null or _check_start.on_duplicate
    not in ('attach', 'restart_if_failed', 'restart_if_finished', 'replace', 'error') then
    raise exception 'on_duplicate "%" is not known', _check_start.on_duplicate
      using errcode = '22023',
            hint = 'Pass attach, restart_if_failed, restart_if_finished, replace or error.';
  end if;
  if _check_start.priority is null or _check_start.priority not between 1 and 5 then
    raise exception 'priority must be between 1 (first) and 5 (last)'
      using errcode = '22023',
            detail = format('It is %s.', coalesce(_check_start.priority::text, 'null')),
            hint = 'Leave it out for 3.';
  end if;
  if _check_start.max_recoveries < 0 then
    raise exception 'max_recoveries must not be negative'
      using errcode = '22023',
            detail = format('It is %s.', _check_start.max_recoveries),
            hint = 'Pass 0 for a run that no death may repeat, or null for the workflow''s own.';
  end if;
  if (jsonb_typeof(_check_start.tags) = 'object' and jsonb_typeof(_check_start.headers) = 'object') is not true then
    perform perdure._check_object('tags', _check_start.tags);
    perform perdure._check_object('headers', _check_start.headers);
  end if;
  if greatest(perdure._bytes(_check_start.tags), perdure._bytes(_check_start.headers)) > _check_start.payload_limit then
    perform perdure._check_payload('tags', _check_start.tags);
    perform perdure._check_payload('headers', _check_start.headers);
  end if;
end;
$$;
comment on function perdure._check_start(text, integer, integer, bigint, jsonb, jsonb) is
'Refuse options of a start that no run can have; payload_limit is what _payload_limit tells. Raises 22023 and PD010.';

create or replace function perdure._start(
  run_id uuid,
  now timestamptz,
  workflow text,
  input jsonb,
  key text,
  on_duplicate text,
  queue text,
  priority integer,
  start_at timestamptz,
  delay interval,
  deadline timestamptz,
  timeout interval,
  tags jsonb,
  max_recoveries integer,
  headers jsonb
)
returns uuid
language plpgsql
volatile
as $$
declare
  v_limit constant bigint := perdure._payload_limit();
  v_default perdure.workflow;
  v_key pg_catalog.record;
  v_predecessor_id pg_catalog.uuid;
  v_max_recoveries integer;
  v_timeout interval;
begin
  v_default := perdure._default_of(_start.workflow collate "C", _start.queue);
  if _start.input is null or perdure._bytes(_start.input) > v_limit then
    perform perdure._check_payload('input', _start.input);
  end if;
  perform perdure._check_start(
    _start.on_duplicate collate "C", _start.priority, _start.max_recoveries, v_limit, _start.tags,
    _start.headers);
  if num_nonnulls(_start.start_at, _start.delay, _start.deadline, _start.timeout) > 0 then
    perform perdure._check_times(_start.start_at, _start.delay, _start.deadline, _start.timeout);
  end if;
  v_max_recoveries := coalesce(_start.max_recoveries, v_default.max_recoveries);
  v_timeout := coalesce(_start.timeout, case when _start.deadline is null then v_default.timeout end);

  if _start.key is not null then
    perform perdure._check_name('key', _start.key);
    v_key := perdure._take_key(
      _start.workflow collate "C", _start.key, perdure._fingerprint(_start.input), _start.run_id,
      _start.on_duplicate);
    if not v_key.is_new then
      return v_key.taken_by;
    end if;
    v_predecessor_id := v_key.predecessor_id;
    if v_predecessor_id is not null then
      perform perdure._ask(array[v_predecessor_id], 'cancel', format('replaced by run %s', _start.run_id), null);
      insert into perdure.wake (run_id, told_at) values (_start.run_id, _start.now);
    end if;
  end if;

  insert into perdure.run (
    run_id, workflow, queue, priority, input, key, tags, headers, start_at, deadline, timeout, max_recoveries,
    predecessor_id, created_at, created_by)
  values (
    _start.run_id, _start.workflow, v_default.queue, _start.priority, _start.input, _start.key,
    _start.tags, _start.headers, coalesce(_start.start_at, _start.now + _start.delay), _start.deadline,
    v_timeout, v_max_recoveries, v_predecessor_id, _start.now, perdure._caller());
  insert into perdure.dispatch (
    run_id, workflow, queue, priority, ready_at, ends_at, timeout, max_recoveries, predecessor_id)
  values (
    _start.run_id, _start.workflow, v_default.queue, _start.priority,
    case
      when v_predecessor_id is null then greatest(_start.start_at, _start.now + _start.delay, _start.now) else 'infinity'
    end,
    _start.deadline, v_timeout, v_max_recoveries, v_predecessor_id);
  if coalesce(_start.start_at, _start.now + _start.delay, _start.now) < _start.now + interval '1 second' then
    perform perdure._notify(v_default.queue);  -- of what is due later a worker knows by itself
  end if;
  return _start.run_id;
end;
$$;
comment on function perdure._start(
  uuid, timestamptz, text, jsonb, text, text, text, integer, timestamptz, interval, timestamptz, interval, jsonb, integer,
  jsonb
) is
'Start a run under an id that the caller made, or find the run that holds its key. Returns the one that is there now.';

create or replace function perdure.start_run(
  workflow text,
  input jsonb default '{}',
  key text default null,
  on_duplicate text default 'attach',
  queue text default null,
  priority integer default 3,
  start_at timestamptz default null,
  delay interval default null,
  deadline timestamptz default null,
  timeout interval default null,
  tags jsonb default '{}',
  max_recoveries integer default null,
  headers jsonb default '{}'
)
returns table (run_id uuid, is_new boolean)
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
  v_new_id constant uuid := perdure._uuid7(v_now);
begin
  run_id := perdure._start(
    v_new_id, v_now,
    start_run.workflow, start_run.input, start_run.key, start_run.on_duplicate, start_run.queue,
    start_run.priority, start_run.start_at, start_run.delay, start_run.deadline, start_run.timeout,
    start_run.tags, start_run.max_recoveries, start_run.headers);
  is_new := run_id = v_new_id;
  return next;
end;
$$;
comment on function perdure.start_run(
  text, jsonb, text, text, text, integer, timestamptz, interval, timestamptz, interval, jsonb, integer, jsonb
) is
'Start a run as start does, and tell whether it is new: of two that start the same key at the same moment, one is told so.
Returns one row: the run''s id, and whether this call made it. Raises and locks as start does.';

create or replace function perdure.start(
  workflow text,
  input jsonb default '{}',
  key text default null,
  on_duplicate text default 'attach',
  queue text default null,
  priority integer default 3,
  start_at timestamptz default null,
  delay interval default null,
  deadline timestamptz default null,
  timeout interval default null,
  tags jsonb default '{}',
  max_recoveries integer default null,
  headers jsonb default '{}'
)
returns uuid
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
begin
  return perdure._start(
    perdure._uuid7(v_now), v_now,
    start.workflow, start.input, start.key, start.on_duplicate, start.queue, start.priority, start.start_at,
    start.delay, start.deadline, start.timeout, start.tags, start.max_recoveries, start.headers);
end;
$$;
comment on function perdure.start(
  text, jsonb, text, text, text, integer, timestamptz, interval, timestamptz, interval, jsonb, integer, jsonb
) is
'Start a run of a workflow in the caller''s transaction.
key makes it idempotent: the same key returns the same run, finished or not (attach), unless on_duplicate says
restart_if_failed, restart_if_finished, replace (cancel, then start) or error. timeout runs from the first claim.
Without a key each call starts another run. replace made again after a lost answer replaces the run that the first call
started, error made again after a lost answer raises PD005 for its own run: ask find_run before.
Returns the run''s id. Raises 22023 for bad options and unknown names, PD005 for a key used with another input,
PD010 for a too large input, 55P03 after 5 s behind an open transaction with the same key. Locks the key''s row.';

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
  perform perdure._check_start(start_many.on_duplicate collate "C", start_many.priority, null, v_limit, start_many.tags);
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
