-- Invariant: a start only inserts, in the caller's transaction: commit makes the run real, rollback leaves no trace.
-- Lock order: run_key (a rival with the same key waits, at most 5 s), then inserts, then wake. Never an existing dispatch row.

create or replace function perdure._run_state(
  worker_id uuid,
  begun_at timestamptz,
  ready_at timestamptz,
  waits jsonb,
  cancel text,
  is_paused boolean,
  now timestamptz
)
returns text
language sql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when _run_state.worker_id is not null then 'running'
    when _run_state.is_paused then 'paused'
    when _run_state.cancel is not null then 'cancelling'
    when _run_state.ready_at <= _run_state.now then 'ready'
    when _run_state.begun_at is null then 'scheduled'
    when _run_state.waits is null or _run_state.waits @? '$[*] ? (@.kind == "retry")' then 'backing_off'
    when _run_state.waits @? '$[*] ? (@.kind == "signal")' then 'waiting'
    else 'sleeping'
  end
$$;
comment on function perdure._run_state(uuid, timestamptz, timestamptz, jsonb, text, boolean, timestamptz) is
'Derive the state of an unfinished run from its dispatch row.';

create or replace function perdure._take_key(
  workflow text,
  key text,
  fingerprint bytea,
  run_id uuid,
  on_duplicate text,
  out taken_by uuid,
  out is_new boolean,
  out predecessor_id uuid
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key perdure.run_key;
  v_status text;
begin
  insert into perdure.run_key as k (workflow, key, run_id, fingerprint)
  values (_take_key.workflow, _take_key.key, _take_key.run_id, _take_key.fingerprint)
  on conflict on constraint run_key_pkey do nothing;
  if found then
    taken_by := _take_key.run_id;
    is_new := true;
    return;
  end if;

  if _take_key.on_duplicate in ('attach', 'error') then
    select k.* into v_key from perdure.run_key as k
    where k.workflow = _take_key.workflow and k.key = _take_key.key;
  else  -- the key may move to a new run: one caller at a time
    select k.* into v_key from perdure.run_key as k
    where k.workflow = _take_key.workflow and k.key = _take_key.key
    for update;
  end if;
  select o.status into v_status from perdure.outcome as o where o.run_id = v_key.run_id;

  if _take_key.on_duplicate = 'error' then
    raise exception 'key "%" of workflow "%" is taken', _take_key.key, _take_key.workflow
      using errcode = 'PD005',  -- key_conflict
            detail = format('Run %s holds it; it is %s.', v_key.run_id, coalesce(v_status, 'unfinished')),
            hint = 'Pass another key, or on_duplicate => ''attach'' to get that run.';
  end if;

  if _take_key.on_duplicate = 'replace'
    or (_take_key.on_duplicate = 'restart_if_finished' and v_status is not null)
    or (_take_key.on_duplicate = 'restart_if_failed' and v_status in ('failed', 'dead')) then
    update perdure.run_key as k set run_id = _take_key.run_id, fingerprint = _take_key.fingerprint
    where k.workflow = _take_key.workflow and k.key = _take_key.key;
    taken_by := _take_key.run_id;
    is_new := true;
    predecessor_id := case when v_status is null then v_key.run_id end;
    return;
  end if;

  if v_key.fingerprint <> _take_key.fingerprint then
    raise exception 'key "%" of workflow "%" was used with another input', _take_key.key, _take_key.workflow
      using errcode = 'PD005',  -- key_conflict
            detail = format('Run %s has input fingerprint %s, this input has %s.', v_key.run_id,
              encode(v_key.fingerprint, 'hex'), encode(_take_key.fingerprint, 'hex')),
            hint = 'Pass the same input, another key, or another on_duplicate.';
  end if;
  taken_by := v_key.run_id;
  is_new := false;
end;
$$;
comment on function perdure._take_key(text, text, bytea, uuid, text) is
'Give a key to a new run, or find the run that holds it, by the rule of on_duplicate.
Returns the run that holds the key now, whether it is the new one, and the unfinished run that it replaces.
Raises PD005. Locks the row of run_key; waits for a rival''s open transaction.';

create or replace function perdure._default_of(workflow text, queue text)
returns perdure.workflow
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_workflow perdure.workflow;
begin
  perform perdure._check_name('workflow', _default_of.workflow);
  select w.* into v_workflow from perdure.workflow as w where w.name = _default_of.workflow;
  if not found then
    if not perdure._read_setting('allow_unknown_names')::boolean then
      perform perdure._raise_unknown(
        'workflow', _default_of.workflow, array(select w.name from perdure.workflow as w));
    end if;
    v_workflow.name := _default_of.workflow;
    v_workflow.queue := 'default';
    v_workflow.max_recoveries := 10;
  end if;
  if _default_of.queue is not null then
    perform perdure._check_name('queue', _default_of.queue);
    if not exists (select from perdure.queue as q where q.name = _default_of.queue)
      and not perdure._read_setting('allow_unknown_names')::boolean then
      perform perdure._raise_unknown('queue', _default_of.queue, array(select q.name from perdure.queue as q));
    end if;
    v_workflow.queue := _default_of.queue;
  end if;
  return v_workflow;
end;
$$;
comment on function perdure._default_of(text, text) is
'Find a workflow''s defaults, with the queue asked for. Raises 22023 for unknown names.';

create or replace function perdure._check_start(
  on_duplicate text,
  priority integer,
  tags jsonb,
  headers jsonb
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
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
  perform perdure._check_object('tags', _check_start.tags);
  perform perdure._check_object('headers', _check_start.headers);
end;
$$;
comment on function perdure._check_start(text, integer, jsonb, jsonb) is
'Refuse options of a start that no run can have. Raises 22023.';

create or replace function perdure._check_times(
  start_at timestamptz,
  delay interval,
  deadline timestamptz,
  timeout interval
)
returns void
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if _check_times.start_at is not null and _check_times.delay is not null then
    raise exception 'start_at and delay exclude each other'
      using errcode = '22023', hint = 'Pass one of them.';
  elsif _check_times.deadline is not null and _check_times.timeout is not null then
    raise exception 'deadline and timeout exclude each other'
      using errcode = '22023', hint = 'Pass one of them: a timeout runs from the first claim.';
  elsif _check_times.timeout = interval '0' then
    raise exception 'timeout must not be zero'
      using errcode = '22023', hint = 'Pass a longer one, or null for the workflow''s own.';
  end if;
  perform perdure._check_interval('delay', _check_times.delay);
  perform perdure._check_interval('timeout', _check_times.timeout);
end;
$$;
comment on function perdure._check_times(timestamptz, interval, timestamptz, interval) is
'Refuse times of a start that contradict each other. Raises 22023.';

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
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_run_id constant uuid := perdure._uuid7(v_now);
  v_default perdure.workflow;
  v_key record;
  v_predecessor_id uuid;
  v_max_recoveries integer;
  v_timeout interval;
begin
  v_default := perdure._default_of(start.workflow, start.queue);
  perform perdure._check_payload('input', start.input);
  perform perdure._check_start(start.on_duplicate, start.priority, start.tags, start.headers);
  perform perdure._check_times(start.start_at, start.delay, start.deadline, start.timeout);
  if start.max_recoveries < 0 then
    raise exception 'max_recoveries must not be negative'
      using errcode = '22023',
            detail = format('It is %s.', start.max_recoveries),
            hint = 'Pass 0 for a run that no death may repeat, or null for the workflow''s own.';
  end if;
  v_max_recoveries := coalesce(start.max_recoveries, v_default.max_recoveries);
  v_timeout := coalesce(start.timeout, case when start.deadline is null then v_default.timeout end);

  if start.key is not null then
    perform perdure._check_name('key', start.key);
    v_key := perdure._take_key(
      start.workflow, start.key, perdure._fingerprint(start.input), v_run_id, start.on_duplicate);
    if not v_key.is_new then
      return v_key.taken_by;
    end if;
    v_predecessor_id := v_key.predecessor_id;
    if v_predecessor_id is not null then
      perform perdure._ask(
        array[v_predecessor_id], 'cancel', format('replaced by run %s', v_run_id), interval '5 minutes');
      insert into perdure.wake (run_id, told_at) values (v_run_id, v_now);
    end if;
  end if;

  insert into perdure.run (
    run_id, workflow, queue, priority, input, key, tags, headers, start_at, deadline, timeout, max_recoveries,
    predecessor_id, created_at, created_by)
  values (
    v_run_id, start.workflow, v_default.queue, start.priority, start.input, start.key, start.tags, start.headers,
    coalesce(start.start_at, v_now + start.delay), start.deadline, v_timeout, v_max_recoveries,
    v_predecessor_id, v_now, perdure._caller());
  insert into perdure.dispatch (
    run_id, workflow, queue, priority, ready_at, ends_at, max_recoveries, predecessor_id)
  values (
    v_run_id, start.workflow, v_default.queue, start.priority,
    case when v_predecessor_id is null then coalesce(start.start_at, v_now + start.delay, v_now) else 'infinity' end,
    start.deadline, v_max_recoveries, v_predecessor_id);
  return v_run_id;
end;
$$;
comment on function perdure.start(
  text, jsonb, text, text, text, integer, timestamptz, interval, timestamptz, interval, jsonb, integer, jsonb
) is
'Start a run of a workflow in the caller''s transaction.
key makes it idempotent: the same key returns the same run, finished or not (attach), unless on_duplicate says
restart_if_failed, restart_if_finished, replace (cancel, then start) or error. timeout runs from the first claim.
Returns the run''s id. Raises 22023 for bad options and unknown names, PD005 for a key used with another input,
PD010 for a too large input, 55P03 after 5 s behind an open transaction with the same key. Locks the key''s row.';

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
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_default perdure.workflow;
  v_count constant integer := coalesce(cardinality(start_many.inputs), 0);
  v_ids uuid[];
  v_taken uuid[];
  v_is_new boolean[] := array_fill(true, array[greatest(v_count, 1)]);
  v_key record;
  v_one record;
begin
  v_default := perdure._default_of(start_many.workflow, start_many.queue);
  perform perdure._check_start(start_many.on_duplicate, start_many.priority, start_many.tags, '{}');
  if start_many.on_duplicate = 'replace' then
    raise exception 'start_many does not replace'
      using errcode = '22023', hint = 'Call perdure.start for runs that replace others.';
  end if;
  if start_many.keys is not null and cardinality(start_many.keys) <> v_count then
    raise exception 'there are % inputs and % keys', v_count, cardinality(start_many.keys)
      using errcode = '22023', hint = 'Pass one key per input, or none at all.';
  end if;
  perform perdure._check_payload('input', i.input) from unnest(start_many.inputs) as i (input);

  -- ids and ready times a microsecond apart: equal times would make each claim sort them all
  v_ids := array(
    select perdure._uuid7(v_now + g.n * interval '1 microsecond') from generate_series(0, v_count - 1) as g (n));
  v_taken := v_ids;
  if start_many.keys is not null then
    for v_one in  -- sorted, so that two callers with the same keys wait for, but never deadlock, each other
      select k.key, k.ordinality::integer as ordinal from unnest(start_many.keys) with ordinality as k (key, ordinality)
      where k.key is not null
      order by k.key, k.ordinality
    loop
      perform perdure._check_name('key', v_one.key);
      v_key := perdure._take_key(
        start_many.workflow, v_one.key, perdure._fingerprint(start_many.inputs[v_one.ordinal]),
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
  insert into perdure.dispatch (run_id, workflow, queue, priority, ready_at, max_recoveries)
  select
    a.run_id, start_many.workflow, v_default.queue, start_many.priority,
    coalesce(start_many.start_at, v_now) + (a.ordinality - 1) * interval '1 microsecond', v_default.max_recoveries
  from unnest(v_ids, v_is_new) with ordinality as a (run_id, is_new, ordinality)
  where a.is_new and a.run_id is not null;

  return query
  select a.ordinality::integer, a.run_id, a.is_new
  from unnest(v_taken, v_is_new) with ordinality as a (run_id, is_new, ordinality)
  where a.run_id is not null
  order by a.ordinality;
end;
$$;
comment on function perdure.start_many(text, jsonb[], text[], text, text, integer, timestamptz, jsonb) is
'Start one run per input, in one statement, in the caller''s transaction.
keys has one element per input; null elements have no key. Returns ordinal (from 1), run_id and whether the run is new.
Raises as start does, 22023 also where keys and inputs differ in number. Locks the keys'' rows in their order.';

create or replace function perdure.find_run(workflow text, key text)
returns uuid
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
  select k.run_id from perdure.run_key as k where k.workflow = find_run.workflow and k.key = find_run.key
$$;
comment on function perdure.find_run(text, text) is
'Find the run that a key of a workflow names.
Returns its id, or null where no run has the key. Locks nothing.';
