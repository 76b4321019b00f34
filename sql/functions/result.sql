-- Invariant: a result is read from what is committed; asking for it changes nothing and locks nothing.

create or replace function perdure.run_results(run_ids uuid[])
returns table (run_id uuid, status text, result jsonb, error jsonb, finished_at timestamptz)
language plpgsql
volatile  -- each statement sees what was committed before its locks: a period may be dropped while it waits for them
security definer
set search_path = pg_catalog, pg_temp
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
begin
  return query
  select r.run_id, o.status, o.result, o.error, o.finished_at
  from unnest(run_results.run_ids) as a (run_id)
  inner join perdure.run as r on r.run_id = a.run_id
  left join perdure.outcome as o on o.run_id = a.run_id;
  perform perdure._check_snapshot(run_results.run_ids);
end;
$$;
comment on function perdure.run_results(uuid[]) is
'Read how runs ended, many at once.
Returns one row per known run; status is null while it is unfinished. Unknown runs have no row.
Raises 40001 where an older snapshot cannot tell. Locks nothing.';

create or replace function perdure.result(run_id uuid)
returns jsonb
language plpgsql
volatile  -- as run_results
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_outcome perdure.outcome;
begin
  select o.* into v_outcome from perdure.outcome as o where o.run_id = result.run_id;
  if not found then
    if not exists (select from perdure.run as r where r.run_id = result.run_id) then
      perform perdure._raise_refused(result.run_id, 'result', 'PD001', null);
    end if;
    raise exception 'run "%" has not finished', result.run_id
      using errcode = 'PD007',  -- not_finished
            hint = 'Wait for it with call perdure.await(...); perdure.explain(...) says what it waits for.';
  end if;
  if v_outcome.status = 'completed' then
    return v_outcome.result;
  end if;
  raise exception 'run "%" %', result.run_id, case v_outcome.status
      when 'failed' then 'failed'
      when 'cancelled' then 'was cancelled'
      when 'timed_out' then 'timed out'
      when 'terminated' then 'was terminated'
      when 'dead' then 'is dead'
      else v_outcome.status
    end || coalesce(': ' || (v_outcome.error ->> 'message'), '')
    using errcode = case v_outcome.status
        when 'failed' then 'PD008'
        when 'cancelled' then 'PD012'
        when 'timed_out' then 'PD013'
        when 'terminated' then 'PD014'
        else 'PD015'
      end,
      detail = coalesce(v_outcome.error, '{}')::text,
      hint = 'perdure.retry(...) lets it go on from where it stopped.';
end;
$$;
comment on function perdure.result(uuid) is
'Read what a run returned.
Raises PD001 for an unknown run, PD007 while it is unfinished, and for each way to end badly its own code with the
error as JSON in the detail: PD008 failed, PD012 cancelled, PD013 timed out, PD014 terminated, PD015 dead.
Locks nothing.';

create or replace function perdure.get_value(run_id uuid, name text)
returns jsonb
language plpgsql
volatile  -- as run_results
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_value jsonb;
begin
  select s.result into v_value
  from perdure.step as s
  where s.run_id = get_value.run_id and s.kind = 'value' and s.name = get_value.name collate "C"
  order by s.ordinal desc
  limit 1;
  if not found then
    perform perdure._check_snapshot(array[get_value.run_id]);
  end if;
  return v_value;
end;
$$;
comment on function perdure.get_value(uuid, text) is
'Read the latest value that a run published under a name with set_value.
Returns null where it has not published any. Raises 40001 where an older snapshot cannot tell. Locks nothing.';

create or replace procedure perdure.await(
  run_id uuid,
  timeout interval default '1 minute',
  inout result jsonb default null
)
language plpgsql
as $$
declare
  -- inside a transaction block a procedure may not commit; one snapshot per statement shows the end all the same
  v_is_in_block constant boolean :=
    pg_catalog.transaction_timestamp() operator(pg_catalog.<>) pg_catalog.statement_timestamp();
  v_ends_at constant pg_catalog.timestamptz := perdure._now() operator(pg_catalog.+) case
    when await.timeout is not null  -- any time-out is one: longer ones than this never end
      then least(greatest(await.timeout, '0'::pg_catalog.interval), '100 years'::pg_catalog.interval)
  end;
begin
  loop
    begin
      result := perdure.result(await.run_id);
      return;
    exception
      when sqlstate 'PD007' then
        if perdure._now() operator(pg_catalog.>=) v_ends_at then
          raise;
        end if;
    end;
    -- one snapshot for the whole transaction would never show it, so there a block is refused (2D000); and what came as
    -- two messages looks like a block
    if not v_is_in_block or pg_catalog.current_setting('transaction_isolation')
       operator(pg_catalog.<>) 'read committed'::pg_catalog.text then
      commit;
      set transaction isolation level read committed;
    end if;
    perform pg_catalog.pg_sleep(0.02);
  end loop;
end;
$$;
comment on procedure perdure.await(uuid, interval, jsonb) is  -- noqa: LT01
'Wait until a run has ended and return its result.
Raises as result does; PD007 when the time-out has passed first; 2D000 inside a transaction block of REPEATABLE READ or
SERIALIZABLE, which would never see the end. Commits while it waits, unless it is called inside a
transaction block. Holds no lock while it waits.';
