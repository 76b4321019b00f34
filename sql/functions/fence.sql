-- Invariant: every transaction of a worker holds its row of worker FOR KEY SHARE before it locks anything else of the
-- engine, and what must see later commits sees them. A heartbeat touches only its own row of worker_beat, so it never
-- meets the fence.
-- Lock order: worker (key share), first of all.

create or replace function perdure._check_isolation()
returns void
language plpgsql
volatile
as $$
begin
  -- an older snapshot would hide a beat, and the messages that a truncation removes
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception 'the engine works in READ COMMITTED'
      using errcode = '55000',
            detail = format('This transaction is %s.', upper(current_setting('transaction_isolation'))),
            hint = 'Set default_transaction_isolation of the connection to read committed.';
  end if;
end;
$$;
comment on function perdure._check_isolation() is
'Refuse a transaction in which a later statement does not see what was committed meanwhile. Raises 55000.';

create or replace function perdure._raise_unregistered(worker_id uuid, timeline integer)
returns void
language plpgsql
volatile
as $$
declare
  v_hint constant pg_catalog.text := 'Drop what is in memory and call perdure.register_worker again.';
begin
  if _raise_unregistered.timeline is null then
    raise exception 'worker "%" is not registered', _raise_unregistered.worker_id
      using errcode = 'PD002',  -- claim_lost
            detail = 'It was declared dead or stopped, or the installation was adopted; its runs belong to others now.',
            hint = v_hint;
  end if;
  raise exception 'the server is on timeline % now, worker "%" is of timeline %',
    perdure._timeline(), _raise_unregistered.worker_id, _raise_unregistered.timeline
    using errcode = 'PD002',  -- claim_lost
          detail = 'It failed over or was restored: of what the worker was told since then some may be lost.',
          hint = v_hint;
end;
$$;
comment on function perdure._raise_unregistered(uuid, integer) is
'Tell a worker to begin anew: it is not registered, or was so on the timeline given. Raises PD002.';

create or replace function perdure._bound_idleness(bound interval)
returns void
language plpgsql
volatile
as $$
declare
  v_bound constant interval := nullif(current_setting('idle_in_transaction_session_timeout')::interval, interval '0');
begin
  if v_bound <= _bound_idleness.bound then  -- as in the second call of a transaction
    return;
  end if;
  perform set_config(
    'idle_in_transaction_session_timeout', (extract(epoch from _bound_idleness.bound) * 1000)::bigint::text, true);
end;
$$;
comment on function perdure._bound_idleness(interval) is
'Let the server end this session where its transaction stands idle from now on for longer than that, or than it may anyway.';

create or replace function perdure._fence(worker_id uuid, is_any_isolation boolean default false)
returns void
language plpgsql
volatile
as $$
declare
  v_lease interval;
  v_timeline integer;
begin
  select w.lease, w.timeline into v_lease, v_timeline
  from perdure.worker as w
  where w.worker_id = _fence.worker_id
  for key share;
  -- a claim that the standby knew is valid here, but what its worker saved since then may be lost
  if v_timeline is distinct from perdure._timeline() then
    perform perdure._raise_unregistered(_fence.worker_id, v_timeline);
  end if;
  perform perdure._bound_idleness(v_lease);  -- a frozen client must not hold the fence
  if current_setting('synchronous_commit') = 'off' then  -- what is acknowledged is durable
    perform set_config('synchronous_commit', coalesce(
      nullif(nullif(current_setting('perdure.before_beat', true), ''), 'off'), 'local'), true);
  end if;
  if current_setting('transaction_isolation') <> 'read committed' and not _fence.is_any_isolation then
    perform perdure._check_isolation();
  end if;
end;
$$;
comment on function perdure._fence(uuid, boolean) is
'Hold the worker''s own row FOR KEY SHARE until the transaction ends.
Raises PD002 where the worker is not registered, or was so on another timeline, 55000 outside READ COMMITTED unless
is_any_isolation.';
