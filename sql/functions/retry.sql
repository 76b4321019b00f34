-- Invariant: retry is the one way from an outcome back to a dispatch row; what it removes is kept in audit.
-- Lock order: the key, the outcome's row (a rival retry waits for either), then inserts. An ended run has no dispatch
-- row and no worker.

create or replace function perdure._failed_step(run_id uuid, error jsonb)
returns text
language sql
stable
as $$
  select s.key
  from perdure.step as s
  where s.run_id = _failed_step.run_id and s.key = _failed_step.error ->> 'step' and s.error is not null
$$;
comment on function perdure._failed_step(uuid, jsonb) is
'Find the failed step that an outcome''s error names; null where none is named.';

create or replace function perdure._forget_steps(run_id uuid, from_step text, error jsonb)
returns jsonb
language plpgsql
volatile
as $$
declare
  v_from integer;
  v_failed constant pg_catalog.text := perdure._failed_step(_forget_steps.run_id, _forget_steps.error);
  v_forgotten pg_catalog.jsonb;
begin
  if _forget_steps.from_step is not null then
    select s.ordinal into v_from from perdure.step as s
    where s.run_id = _forget_steps.run_id and s.key = _forget_steps.from_step;
    if not found then
      perform perdure._raise_unknown('step', _forget_steps.from_step,
        array(select s.key from perdure.step as s where s.run_id = _forget_steps.run_id));
    end if;
  end if;
  with gone as (
    delete from perdure.step as s
    where s.run_id = _forget_steps.run_id
      and (s.ordinal >= v_from or s.key = v_failed or s.kind = 'cancel')
    returning s.key, s.kind, s.ordinal, s.result, s.error, s.saved_at
  )
  select coalesce(jsonb_agg(to_jsonb(g) order by g.ordinal), '[]') into v_forgotten from gone as g;
  delete from perdure.step_attempt as t
  where t.run_id = _forget_steps.run_id
    and not exists (select from perdure.step as s where s.run_id = t.run_id and s.key = t.key);
  return v_forgotten;
end;
$$;
comment on function perdure._forget_steps(uuid, text, jsonb) is
'Remove the checkpoints that a retry makes again: the failed step''s, the cancel''s, and all from the step named.
Returns what was removed. Raises 22023 for an unknown step.';

create or replace function perdure._check_key_is_free(run_id uuid)
returns void
language plpgsql
volatile
as $$
declare
  v_heir pg_catalog.uuid;
begin
  -- as a start that moves the key does: one after the other. Written, since whoever has an older snapshot would otherwise
  -- get the lock, and still see that the run has ended
  update perdure.run_key as k set run_id = k.run_id
  from perdure.run as r
  where r.run_id = _check_key_is_free.run_id and k.workflow = r.workflow and k.key = r.key
  returning k.run_id into v_heir;
  if v_heir <> _check_key_is_free.run_id and exists (select from perdure.dispatch as d where d.run_id = v_heir) then
    raise exception 'the key of run "%" names another run, which is unfinished', _check_key_is_free.run_id
      using errcode = 'PD005',  -- key_conflict
            detail = format('It is run %s.', v_heir),
            hint = 'Cancel that one first, or leave this one ended.';
  end if;
end;
$$;
comment on function perdure._check_key_is_free(uuid) is
'Refuse to bring back a run whose key went to another one that is at work.
Raises PD005. Writes the row of its key.';

create or replace function perdure.retry(run_id uuid, from_step text default null, reason text default null)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_state text;
  v_rule record;
  v_outcome perdure.outcome;
  v_forgotten jsonb;
begin
  select s.state into v_state from perdure._states(array[retry.run_id]) as s;
  if not found then
    perform perdure._raise_refused(retry.run_id, 'retry', 'PD001', null);
  end if;
  select r.answer, r.error into strict v_rule from perdure.act_rules as r where r.act = 'retry' and r.state = v_state;
  perform perdure._raise_refused(retry.run_id, 'retry', v_rule.error, v_state);

  perform perdure._check_key_is_free(retry.run_id);
  delete from perdure.outcome as o where o.run_id = retry.run_id returning o.* into v_outcome;
  if not found then
    return 'duplicate';  -- a rival retry was faster
  end if;
  perform perdure._drop_late_acts(array[retry.run_id]);
  v_forgotten := perdure._forget_steps(retry.run_id, retry.from_step collate "C", v_outcome.error);
  perform perdure._audit('retry', retry.run_id, retry.reason,
    jsonb_build_object('outcome', to_jsonb(v_outcome), 'steps', v_forgotten, 'from_step', retry.from_step));

  -- the time-out starts anew, the run's own clock does not; a deadline that has passed is dropped
  insert into perdure.dispatch (
    run_id, workflow, queue, priority, predecessor_id, ready_at, ends_at, timeout, begun_at, max_recoveries)
  select
    r.run_id, r.workflow, r.queue, r.priority, p.predecessor_id,
    case when p.predecessor_id is null then v_now else 'infinity' end,
    coalesce(case when r.deadline > v_now then r.deadline end, case when v_outcome.begun_at is not null then v_now + r.timeout end),
    r.timeout, v_outcome.begun_at, r.max_recoveries
  from perdure.run as r
  cross join lateral (select perdure._unfinished_predecessor(r.predecessor_id) as predecessor_id) as p
  where r.run_id = retry.run_id;
  perform perdure._notify_of(array[retry.run_id]);
  return v_rule.answer;
end;
$$;
comment on function perdure.retry(uuid, text, text) is
'Let an ended run go on from where it stopped: its outcome and the failed step''s checkpoint move to audit.
from_step names a step from which all later checkpoints are made again as well. A time-out starts anew, a deadline that
has passed is dropped. Returns accepted, or duplicate where somebody else retried it meanwhile.
A call made again after a lost answer raises PD009, since the run is unfinished by then; where it has ended once more it
is retried once more.
Raises PD001 for an unknown run, PD009 for an unfinished or completed one, 22023 for an unknown step, PD005 where its key names an unfinished run by now, 55P03 after 5 s
behind an open transaction that retries it too. Writes the row of its key, and locks its outcome.';

create or replace function perdure.retry_many(run_ids uuid[], reason text default null)
returns table (run_id uuid, answer text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
declare
  v_one record;
begin
  perform perdure._check_snapshot(retry_many.run_ids);
  for v_one in  -- sorted as start_many sorts its keys, so that those who name the same ones wait for each other only
    select a.run_id, coalesce(r.answer, 'unknown') as answer
    from (select distinct u.run_id from unnest(retry_many.run_ids) as u (run_id)) as a
    left join perdure._states(retry_many.run_ids) as s on s.run_id = a.run_id
    left join perdure.act_rules as r on r.state = s.state and r.act = 'retry'
    left join perdure.run as k on k.run_id = a.run_id
    order by k.workflow, k.key, a.run_id
  loop
    run_id := v_one.run_id;
    begin
      answer := case v_one.answer
        when 'accepted' then perdure.retry(v_one.run_id, null, retry_many.reason)
        else v_one.answer
      end;
    exception
      when sqlstate 'PD005' then  -- its key names another run at work
        answer := 'illegal';
    end;
    return next;
  end loop;
end;
$$;
comment on function perdure.retry_many(uuid[], text) is
'Let many ended runs go on from where they stopped.
Returns accepted, duplicate, illegal (unfinished or completed, or its key names an unfinished run by now) or unknown for
each; illegal also for what the same call retried before, when it is made again after a lost answer. Raises 55P03 as
retry does. Writes and locks as retry does.';
