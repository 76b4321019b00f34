-- Invariant: a run is of a workflow and in a queue that are known by name, unless a setting allows others. What is put
-- here are defaults: a start may say otherwise, and what is started keeps what it was started with.
-- Lock order: queue, then workflow, then audit.

create or replace function perdure._know_queues(names text[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  insert into perdure.queue (name, created_at)
  select distinct a.name, _know_queues.now
  from unnest(_know_queues.names) as a (name)
  where not exists (select from perdure.queue as q where q.name = a.name)  -- else it would wait for an open change of it
  order by a.name
  on conflict on constraint queue_pkey do nothing;
end;
$$;
comment on function perdure._know_queues(text[], timestamptz) is 'Make queues known that are not.';

create or replace function perdure.put_workflow(
  name text,
  queue text default 'default',
  timeout interval default null,
  max_recoveries integer default 10
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
begin
  perform perdure._check_name('workflow', put_workflow.name);
  perform perdure._check_name('queue', put_workflow.queue);
  perform perdure._check_times(null, null, null, put_workflow.timeout);
  if put_workflow.max_recoveries is null or put_workflow.max_recoveries < 0 then
    raise exception 'max_recoveries of workflow "%" must not be negative', put_workflow.name
      using errcode = '22023',
            detail = format('It is %s.', coalesce(put_workflow.max_recoveries::text, 'null')),
            hint = 'Pass 0 for runs that no death may repeat; 10 is the default.';
  end if;
  perform perdure._know_queues(array[put_workflow.queue collate "C"], v_now);
  insert into perdure.workflow as w (name, queue, timeout, max_recoveries, registered_at)
  values (put_workflow.name, put_workflow.queue, put_workflow.timeout, put_workflow.max_recoveries, v_now)
  on conflict on constraint workflow_pkey do update set
    queue = excluded.queue,
    timeout = excluded.timeout,
    max_recoveries = excluded.max_recoveries,
    registered_at = excluded.registered_at
  where (w.queue, w.timeout, w.max_recoveries)
    is distinct from (excluded.queue, excluded.timeout, excluded.max_recoveries);
end;
$$;
comment on function perdure.put_workflow(text, text, interval, integer) is
'Make a workflow known, with the queue, time-out and recoveries that its runs get by default; make its queue known.
Raises 22023 for bad values, 55P03 after 5 s behind an open transaction that puts it too. Locks the workflow''s row
where something changes.';

create or replace function perdure.put_queue(
  name text,
  retention interval default null,
  failed_retention interval default null
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_old perdure.queue;
begin
  perform perdure._check_name('queue', put_queue.name);
  perform perdure._check_interval('retention', put_queue.retention);
  perform perdure._check_interval('failed_retention', put_queue.failed_retention);
  select q.* into v_old from perdure.queue as q where q.name = put_queue.name collate "C" for no key update;
  insert into perdure.queue as q (name, retention, failed_retention, created_at)
  values (put_queue.name, put_queue.retention, put_queue.failed_retention, v_now)
  on conflict on constraint queue_pkey do update set
    retention = excluded.retention, failed_retention = excluded.failed_retention;
  perform perdure._audit('put_queue', null, null, jsonb_build_object(
    'name', put_queue.name, 'retention', put_queue.retention, 'failed_retention', put_queue.failed_retention,
    'old', case when v_old.name is not null then to_jsonb(v_old) - 'name' - 'created_at' end));
  if put_queue.retention is null and v_old.retention is not null
    or put_queue.failed_retention is null and v_old.failed_retention is not null
  then
    raise warning 'queue "%" had a retention of its own that is not named now, so the settings rule it again', put_queue.name
      using detail = format('Before: retention %s, failed_retention %s. Now: %s and %s.',
              coalesce(perdure._typed(v_old.retention), 'as set'),
              coalesce(perdure._typed(v_old.failed_retention), 'as set'),
              coalesce(perdure._typed(put_queue.retention), 'as set'),
              coalesce(perdure._typed(put_queue.failed_retention), 'as set')),
            hint = 'Each call says all of a queue: name again what is to stay.';
  end if;
end;
$$;
comment on function perdure.put_queue(text, interval, interval) is
'Make a queue, and say how long its ended runs are kept.
Each call says all of it: what is not named follows the settings again, and a warning tells what it was before.
Completed runs are kept for retention from their end on, null meaning as the setting of that name says; others for
failed_retention, null meaning the longer of retention and the setting failed_retention. For good is ''100 years''. They go
with their period, so up to two periods later. It is audited each time, with what was before. Raises 22023 for a bad name, a negative interval or
one beyond 100 years, 55P03 after 5 s behind an open transaction that puts it too. Locks the queue''s row.';

create or replace function perdure._default_of(workflow text, queue text)
returns perdure.workflow
language plpgsql
stable
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
