-- Invariant: whether a step is tried again is decided here, once per try, and the answer to the same try never changes.
-- Lock order: worker (fence), dispatch by run_id without waiting (key share), then inserts.

create or replace function perdure._retry_at(error jsonb, policy jsonb, attempt integer, now timestamptz)
returns timestamptz
language plpgsql
volatile
as $$
declare
  v_types constant pg_catalog.text[] := array(select jsonb_array_elements_text(
    case jsonb_typeof(_retry_at.error -> 'types')
      when 'array' then _retry_at.error -> 'types'
      else jsonb_build_array(_retry_at.error ->> 'type')
    end));
  v_stop_on constant pg_catalog.text[] := array(select jsonb_array_elements_text(
    case jsonb_typeof(_retry_at.policy -> 'stop_on') when 'array' then _retry_at.policy -> 'stop_on' else '[]' end));
  v_delay double precision := coalesce((_retry_at.policy ->> 'delay')::double precision, 1);
  v_factor constant double precision := coalesce((_retry_at.policy ->> 'factor')::double precision, 3);
  v_max_delay constant double precision := coalesce((_retry_at.policy ->> 'max_delay')::double precision, 300);
  v_jitter constant double precision := coalesce((_retry_at.policy ->> 'jitter')::double precision, 0.2);
  v_max_attempts constant double precision := case
    when _retry_at.policy ? 'max_attempts' then (_retry_at.policy ->> 'max_attempts')::double precision else 4
  end;
begin
  if v_delay < 0 or v_factor not between 1 and 1000 or v_max_delay < 0 or v_jitter not between 0 and 1
    or v_max_attempts < 1 then
    raise exception 'the retry policy is out of range'
      using errcode = '22023',
            detail = format('It is %s.', _retry_at.policy),
            hint = 'delay and max_delay are seconds from 0, factor 1 to 1000, jitter 0 to 1, max_attempts from 1 or null.';
  end if;
  if _retry_at.attempt >= v_max_attempts
    or v_types && (v_stop_on || array[
      'TypeError', 'AssertionError', 'DoNotRetry', 'EncodingFailed', 'DecodingFailed', 'Misuse']) then
    return null;
  end if;
  if _retry_at.error ->> 'retry_after' is not null then  -- the error knows better than the policy
    v_delay := greatest((_retry_at.error ->> 'retry_after')::double precision, 0);
  else
    v_delay := least(v_max_delay, v_delay * power(v_factor, least(_retry_at.attempt - 1, 60)))
      * (1 + v_jitter * (2 * random() - 1));
  end if;
  return _retry_at.now + make_interval(secs => least(v_delay, 31536000));
end;
$$;
comment on function perdure._retry_at(jsonb, jsonb, integer, timestamptz) is
'Decide when a failed try may be repeated; null: never. Raises 22023 for a policy out of range.';

create or replace function perdure._record_tries(tries jsonb, run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_recorded pg_catalog.uuid[];
begin
  perform perdure._check_saves(_record_tries.tries);
  if exists (
    select from jsonb_to_recordset(_record_tries.tries) as a (attempt integer, error jsonb)
    where a.attempt is null or a.error is null
  ) then
    raise exception 'a failed try needs its number and its error'
      using errcode = '22023', hint = 'Pass attempt, from 1, and error as {"type": "...", "message": "..."}.';
  end if;
  with recorded as (
    insert into perdure.step_attempt as t (run_id, key, attempt, error, started_at, failed_at, retry_at)
    select
      a.run_id, a.key, a.attempt, a.error, a.started_at, _record_tries.now,
      perdure._retry_at(a.error, coalesce(a.policy, '{}'), a.attempt, _record_tries.now)
    from jsonb_to_recordset(_record_tries.tries) as a (
      run_id uuid, key text, attempt integer, error jsonb, policy jsonb, started_at timestamptz)
    where a.run_id = any(_record_tries.run_ids)
    on conflict on constraint step_attempt_pkey do nothing
    returning t.run_id
  )
  select array_agg(distinct r.run_id) into v_recorded from recorded as r;
  perform perdure._note_progress(v_recorded);
end;
$$;
comment on function perdure._record_tries(jsonb, uuid[], timestamptz) is
'Insert failed tries of runs whose dispatch rows the caller holds, each with the decision about the next one.
Raises as _check_saves does, and 22023 for a policy out of range.';

create or replace function perdure.fail_steps(worker_id uuid, tries jsonb)
returns table (run_id uuid, key text, attempt integer, answer text, retry_at timestamptz, checkpoint jsonb)
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
  v_lock record;
  v_exhausted jsonb;
begin
  v_lock := perdure._lock_runs(fail_steps.worker_id, fail_steps.tries, true);

  perform perdure._record_tries(fail_steps.tries, v_lock.held, v_now);
  select jsonb_agg(a.try - 'policy') into v_exhausted
  from jsonb_array_elements(fail_steps.tries) as a (try)
  inner join perdure.step_attempt as t
    on t.run_id = (a.try ->> 'run_id')::uuid
    and t.key = a.try ->> 'key'
    and t.attempt = (a.try ->> 'attempt')::integer
  where t.run_id = any(v_lock.held) and t.retry_at is null;
  if v_exhausted is not null then
    perform perdure._insert_saves(v_exhausted, v_lock.held);
  end if;

  return query
  select
    a.run_id,
    a.key,
    a.attempt,
    case
      when v_lock.others ->> a.run_id::text = 'busy' then 'busy'
      when t.run_id is null then 'lost'
      when t.retry_at is null then 'exhausted'
      else 'retry'
    end,
    t.retry_at,
    case when t.retry_at is null then perdure._checkpoint(s.step) end
  from jsonb_to_recordset(fail_steps.tries) as a (run_id uuid, key text, attempt integer)
  left join lateral (
    select o.run_id, o.key, o.retry_at
    from perdure.step_attempt as o
    where o.run_id = a.run_id and o.key = a.key and o.attempt = a.attempt
    offset 0  -- by its key: a plan made for an empty table would read all of it, and be kept
  ) as t on a.run_id = any(v_lock.held)
  left join lateral (
    select c as step from perdure.step as c where c.run_id = t.run_id and c.key = t.key offset 0
  ) as s on t.retry_at is null;
end;
$$;
comment on function perdure.fail_steps(uuid, jsonb) is
'Record failed tries and decide about the next ones.
tries is an array of objects with run_id, claim, key, kind, ordinal, attempt (from 1), error (type, message, types: names
of the error''s classes, retry_after in seconds) and policy (max_attempts, delay, factor, max_delay, jitter, stop_on);
optional: fingerprint (hex), started_at. Returns for each: retry (at retry_at); exhausted (the error is saved as the
step''s checkpoint, which comes back as in read_steps); busy (send again alone); lost (drop the run). The same try again
gets the same answer.
Raises and locks as save_steps does; 22023 also for a policy out of range.';
