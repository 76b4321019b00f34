-- Invariant: who waits for work is told by NOTIFY that there is some, and where nobody waits nobody notifies, since
-- commits that do wait for each other on the whole server. It may save time, never a run: each asks by itself as well.
-- Lock order: none, and never waiting. Of the idle workers of a queue one holds its advisory lock; whoever has work for
-- it looks by taking the lock shared, which hinders nobody who looks, and gives it back at once.

create or replace function perdure._queue_key(queue text)
returns bigint
language sql  -- without a SET clause: so it is inlined
immutable
parallel safe
as $$ select pg_catalog.hashtextextended('perdure' || ' queue ' || _queue_key.queue, 0) $$;
comment on function perdure._queue_key(text) is
'Name the advisory lock of whoever is told of a queue''s work; the channel has the same name behind that of the schema.';

create or replace function perdure._may_notify()
returns boolean
language plpgsql
stable
as $$
begin
  return (
    select case s.value #>> '{}'
      when 'always' then true
      when 'never' then false
      -- a transaction that notifies cannot be prepared
      else current_setting('max_prepared_transactions')::integer = 0
    end
    from perdure.setting as s
    where s.name = 'notify'
  ) and pg_notification_queue_usage() < 0.001;  -- more than some MB: one who is told is frozen; full, it fails commits
end;
$$;
comment on function perdure._may_notify() is
'Tell whether transactions of clients may carry a NOTIFY, as the setting notify says.';

create or replace function perdure._is_awaited(queue_key bigint)
returns boolean
language sql  -- without a SET clause: so it is inlined
volatile
as $$
  -- in one expression, so that nothing interrupts it in between
  select not case
    when pg_catalog.pg_try_advisory_lock_shared(_is_awaited.queue_key)
      then pg_catalog.pg_advisory_unlock_shared(_is_awaited.queue_key)
    else false
  end
$$;
comment on function perdure._is_awaited(bigint) is 'Tell whether a worker waits to be told of work of a queue.';

create or replace function perdure._tell_of(queue_key bigint)
returns void
language plpgsql
volatile
as $$
begin
  if perdure._may_notify() then
    perform pg_notify('perdure' || ':' || _tell_of.queue_key, '');
  end if;
end;
$$;
comment on function perdure._tell_of(bigint) is 'Tell at commit whoever waits for work of a queue, unless the setting notify forbids it.';

create or replace function perdure._notify(queue text)
returns void
language plpgsql
volatile
as $$
declare
  v_key constant bigint := perdure._queue_key(_notify.queue);
begin
  if perdure._is_awaited(v_key) then
    perform perdure._tell_of(v_key);
  end if;
end;
$$;
comment on function perdure._notify(text) is
'Let the worker that waits for work of a queue know, at commit, that there is some; nothing where none waits.';

create or replace function perdure._notify_of(run_ids uuid[])
returns void
language plpgsql
volatile
as $$
begin
  perform perdure._notify(q.queue)
  from (select distinct r.queue from perdure.run as r where r.run_id = any(_notify_of.run_ids)) as q;
end;
$$;
comment on function perdure._notify_of(uuid[]) is 'Let those know who wait for work of these runs'' queues.';

create or replace function perdure.listen(worker_id uuid, queues text[] default null)
returns text[]
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queue record;
  v_got text[] := array[]::text[];
  v_held constant bigint[] := array(  -- a second time it would have to be given back twice
    select l.classid::bigint << 32 | l.objid::bigint
    from pg_locks as l
    where l.locktype = 'advisory' and l.pid = pg_backend_pid() and l.objsubid = 1 and l.mode = 'ExclusiveLock');
begin
  if not perdure._may_notify() then
    return v_got;
  end if;
  for v_queue in
    select distinct q.name, perdure._queue_key(q.name) as key
    from perdure.worker as w
    cross join unnest(w.queues) as q (name)
    where w.worker_id = listen.worker_id and (listen.queues is null or q.name = any(listen.queues))
  loop
    if v_queue.key = any(v_held) or pg_try_advisory_lock(v_queue.key) then
      execute format('listen %I', 'perdure' || ':' || v_queue.key);
      v_got := array_append(v_got, v_queue.name);
    end if;
  end loop;
  return v_got;
end;
$$;
comment on function perdure.listen(uuid, text[]) is
'Have this session told by NOTIFY when there is work in queues of the worker, all of them where queues is null.
Of all sessions one is told of a queue, none where the setting notify forbids it. Returns the queues of which this one is
told, from the end of the transaction on: claim once more after it, then wait. Of the others another worker is told; ask
by claiming each second in any case, for of what is due later than that a start tells nobody. For direct connections
only: the session holds an advisory lock for each queue, until unlisten or its end.
To be undone as soon as there is work, because each start beside it carries a NOTIFY. Locks nothing else.';

create or replace function perdure.unlisten(queues text[])
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key bigint;
begin
  for v_key in select perdure._queue_key(u.queue) from (select distinct q.queue from unnest(unlisten.queues) as q (queue)) as u
  loop
    perform pg_advisory_unlock(v_key);
    execute format('unlisten %I', 'perdure' || ':' || v_key);
  end loop;
end;
$$;
comment on function perdure.unlisten(text[]) is
'End what listen began for these queues in this session. Warns of a queue for which it did not. Locks nothing.';

create or replace function perdure.next_due(worker_id uuid)
returns interval
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := perdure._now();
begin
  return (
    select min(f.ready_at) - v_now
    from perdure.worker as w
    cross join unnest(w.queues) as q (name)
    cross join generate_series(1, 5) as p (priority)
    cross join lateral (
      select d.ready_at
      from perdure.dispatch as d
      where d.queue = q.name
        and d.priority = p.priority
        and d.worker_id is null
        and not d.is_paused
        and d.ready_at > v_now
        and d.ready_at < 'infinity'
      order by d.ready_at, d.run_id
      limit 1
    ) as f
    where w.worker_id = next_due.worker_id
  );
end;
$$;
comment on function perdure.next_due(uuid) is
'Tell how long it is until the next run of the worker''s queues falls due: a sleep, a delay, a time-out, a back-off.
Null where none is ahead. Runs that are due already do not count. Locks nothing.';
