-- Invariant: a start only inserts, in the caller's transaction: commit makes the run real, rollback leaves no
-- trace.
-- Lock order: run_key (a rival with the same key waits, at most 5 s), then act and wake of a run that is replaced, then
-- inserts. Never an existing dispatch row.

create or replace function perdure._check_start(
  on_duplicate text,
  priority integer,
  max_recoveries integer,
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
  if greatest(perdure._bytes(_check_start.tags), perdure._bytes(_check_start.headers)) > perdure._small_payload() then
    perform perdure._check_payload('tags', _check_start.tags);
    perform perdure._check_payload('headers', _check_start.headers);
  end if;
end;
$$;
comment on function perdure._check_start(text, integer, integer, jsonb, jsonb) is
'Refuse options of a start that no run can have. Raises 22023 and PD010.';

create or replace function perdure._prepare_start(
  run_id uuid,
  now timestamptz,
  workflow text,
  input jsonb,
  key text,
  on_duplicate text,
  queue text,
  start_at timestamptz,
  delay interval,
  deadline timestamptz,
  timeout interval,
  out taken_by uuid,
  out run_queue text,
  out queue_key bigint,
  out run_timeout interval,
  out max_recoveries integer,
  out ready_at timestamptz,
  out predecessor_id uuid
)
language plpgsql
volatile
as $$
declare
  v_default perdure.workflow;
begin
  v_default := perdure._default_of(_prepare_start.workflow, _prepare_start.queue);
  run_queue := v_default.queue;
  max_recoveries := v_default.max_recoveries;
  if (perdure._bytes(_prepare_start.input) <= perdure._small_payload()) is not true then
    perform perdure._check_payload('input', _prepare_start.input);
  end if;
  if (_prepare_start.start_at, _prepare_start.delay, _prepare_start.deadline, _prepare_start.timeout) is null then
    run_timeout := v_default.timeout;
    queue_key := perdure._queue_key(run_queue);
  else
    perform perdure._check_times(
      _prepare_start.start_at, _prepare_start.delay, _prepare_start.deadline, _prepare_start.timeout);
    run_timeout := coalesce(
      _prepare_start.timeout, case when _prepare_start.deadline is null then v_default.timeout end);
    ready_at := greatest(_prepare_start.start_at, _prepare_start.now + _prepare_start.delay, _prepare_start.now);
    if ready_at < _prepare_start.now + interval '1 second' then  -- of what is due later a worker knows by itself
      queue_key := perdure._queue_key(run_queue);
    end if;
  end if;
  if _prepare_start.key is null then
    taken_by := _prepare_start.run_id;
    return;
  end if;

  perform perdure._check_name('key', _prepare_start.key);
  select t.taken_by, t.predecessor_id into taken_by, predecessor_id
  from perdure._take_key(
    _prepare_start.workflow, _prepare_start.key, perdure._fingerprint(_prepare_start.input), _prepare_start.run_id,
    _prepare_start.on_duplicate) as t;
  if predecessor_id is not null then
    perform perdure._ask(array[predecessor_id], 'cancel', format('replaced by run %s', _prepare_start.run_id), null);
    insert into perdure.wake (run_id, told_at) values (_prepare_start.run_id, _prepare_start.now);
    ready_at := 'infinity';  -- nothing is due, but whoever is told drains these wakes
  end if;
end;
$$;
comment on function perdure._prepare_start(
  uuid, timestamptz, text, jsonb, text, text, text, timestamptz, interval, timestamptz, interval
) is
'Look at what a start asks for besides its options, take its key, and ask the run that it replaces to end.
Returns the run that holds the key now, another one where there is nothing to start, and what is to be written of this one:
ready_at is null for now, queue_key where nobody is to be told. Raises and locks as start does.';

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
  v_taken_by pg_catalog.uuid;
  v_queue pg_catalog.text;
  v_queue_key bigint;
  v_timeout interval;
  v_max_recoveries integer;
  v_start_at pg_catalog.timestamptz;
  v_ready_at pg_catalog.timestamptz;
  v_predecessor_id pg_catalog.uuid;
begin
  select w.queue, w.timeout, w.max_recoveries, perdure._queue_key(w.queue)
  into v_queue, v_timeout, v_max_recoveries, v_queue_key
  from perdure.workflow as w
  where w.name = _start.workflow collate "C";
  -- what is as it comes needs no look; in expressions of few functions, for each transaction makes them anew
  if (
    _start.on_duplicate collate "C" = 'attach' and _start.priority = 3 and _start.max_recoveries is null
    and _start.tags = '{}' and _start.headers = '{}'
  ) is not true then
    perform perdure._check_start(
      _start.on_duplicate collate "C", _start.priority, _start.max_recoveries, _start.tags, _start.headers);
  end if;
  if (
    v_queue is not null
    and (_start.key, _start.queue, _start.start_at, _start.delay, _start.deadline, _start.timeout) is null
    and pg_column_size(_start.input) <= perdure._small_payload() and pg_column_compression(_start.input) is null
  ) is not true then
    select
      p.taken_by, p.run_queue, p.queue_key, p.run_timeout, p.max_recoveries,
      coalesce(_start.start_at, _start.now + _start.delay), p.ready_at, p.predecessor_id
    into v_taken_by, v_queue, v_queue_key, v_timeout, v_max_recoveries, v_start_at, v_ready_at, v_predecessor_id
    from perdure._prepare_start(
      _start.run_id, _start.now, _start.workflow collate "C", _start.input, _start.key,
      _start.on_duplicate collate "C", _start.queue, _start.start_at, _start.delay, _start.deadline,
      _start.timeout) as p;
    if v_taken_by <> _start.run_id then
      return v_taken_by;
    end if;
  end if;

  with asked as (
    insert into perdure.run (
      run_id, workflow, queue, priority, input, key, tags, headers, start_at, deadline, timeout, max_recoveries,
      predecessor_id, created_at, created_by)
    values (
      _start.run_id, _start.workflow, v_queue, _start.priority, _start.input, _start.key, _start.tags,
      _start.headers, v_start_at, _start.deadline, v_timeout,
      coalesce(_start.max_recoveries, v_max_recoveries), v_predecessor_id, _start.now,
      perdure._caller())
  )
  insert into perdure.dispatch (
    run_id, workflow, queue, priority, ready_at, ends_at, timeout, max_recoveries, predecessor_id)
  values (
    _start.run_id, _start.workflow, v_queue, _start.priority, coalesce(v_ready_at, _start.now), _start.deadline,
    v_timeout, coalesce(_start.max_recoveries, v_max_recoveries), v_predecessor_id);
  if v_queue_key is not null and perdure._is_awaited(v_queue_key) then
    perform perdure._tell_of(v_queue_key);
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
