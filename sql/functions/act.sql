-- Invariant: an act is judged twice by one table, act_rules: at the call by what the caller can see, and under the
-- run's lock when the engine applies it. The caller only inserts.
-- Lock order: of the ask: inserts, then wake. Of the application: the caller holds the dispatch rows.

create or replace view perdure.act_rules as
select
  s.state,
  a.act,
  case
    when a.act = 'retry' and s.state in ('failed', 'cancelled', 'timed_out', 'terminated', 'dead') then 'accepted'
    when a.act = 'retry' then 'illegal'
    when s.is_ended then 'finished'
    when a.act = 'cancel' and s.state = 'cancelling' then 'duplicate'
    when a.act = 'pause' and s.state = 'paused' then 'duplicate'
    when a.act = 'resume' and s.state <> 'paused' then 'duplicate'
    else 'accepted'
  end as answer,
  case
    when a.act = 'retry' and s.state not in ('failed', 'cancelled', 'timed_out', 'terminated', 'dead') then 'PD009'
    when s.is_ended and a.act in ('pause', 'resume') then 'PD003'
  end as error
from (
  values
  ('scheduled', false), ('ready', false), ('running', false), ('sleeping', false), ('waiting', false),
  ('backing_off', false), ('paused', false), ('cancelling', false),
  ('completed', true), ('failed', true), ('cancelled', true), ('timed_out', true), ('terminated', true),
  ('dead', true), ('continued', true)
) as s (state, is_ended)
cross join (values ('cancel'), ('terminate'), ('pause'), ('resume'), ('retry')) as a (act);

comment on view perdure.act_rules is 'What each act answers in each state of a run.';
comment on column perdure.act_rules.state is 'State or outcome of the run.';
comment on column perdure.act_rules.act is 'cancel, terminate, pause, resume or retry.';
comment on column perdure.act_rules.answer is
'accepted; duplicate (it is so already); finished (the run has ended); illegal (the act does not fit the state).';
comment on column perdure.act_rules.error is
'SQLSTATE that the act on a single run raises instead of the answer; null where it answers.';

create or replace function perdure._ask(run_ids uuid[], act text, reason text, grace interval)
returns table (run_id uuid, answer text, error text, state text)
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
begin
  perform perdure._check_interval('grace', _ask.grace);
  if length(_ask.reason) > 10000 then  -- it becomes JSON under a lock, which has its own limit
    raise exception 'reason must have 10,000 characters at most'
      using errcode = '22023', detail = format('It has %s.', length(_ask.reason));
  end if;
  perform perdure._check_snapshot(array(
    select u.run_id from unnest(_ask.run_ids) as u (run_id)
    where not exists (select from perdure.dispatch as d where d.run_id = u.run_id)));
  return query
  with judged as materialized (
    select
      a.run_id,
      case
        when s.run_id is null then 'unknown'
        when p.act is null or r.answer not in ('accepted', 'duplicate') then r.answer
        when p.act = _ask.act then 'duplicate'
        else 'accepted'  -- something else is pending: what the state will be then is judged under the lock
      end as answer,
      case when s.run_id is null then 'PD001' else r.error end as error,
      s.state
    from (select distinct u.run_id from unnest(_ask.run_ids) as u (run_id)) as a
    left join perdure._states(_ask.run_ids, _ask.act) as s on s.run_id = a.run_id
    left join perdure.act_rules as r on r.state = s.state and r.act = _ask.act
    left join lateral (
      select l.act
      from perdure.act as l
      where l.run_id = a.run_id and l.applied_at is null
      order by l.asked_at desc, l.act_id desc
      limit 1
    ) as p on true
  ),
  asked as (
    insert into perdure.act (run_id, act_id, act, reason, grace, asked_by, asked_at)
    select
      j.run_id, perdure._uuid7(v_now), _ask.act, _ask.reason,
      case when _ask.act = 'cancel' then coalesce(_ask.grace, interval '5 minutes') end, perdure._caller(), v_now
    from judged as j
    where j.answer = 'accepted'
  ),
  audited as (
    insert into perdure.audit (audit_id, act, run_id, reason, done_by, done_at)
    select perdure._uuid7(v_now), _ask.act, j.run_id, _ask.reason, perdure._caller(), v_now
    from judged as j
    where j.answer = 'accepted'
  ),
  told as (
    insert into perdure.wake (run_id, told_at)
    select j.run_id, v_now
    from judged as j
    where j.answer = 'accepted'
  )
  select j.run_id, j.answer, j.error, j.state
  from judged as j;
  perform perdure._notify_of(_ask.run_ids);
end;
$$;
comment on function perdure._ask(uuid[], text, text, interval) is
'Judge an act by what the caller sees and insert it where it is accepted.
Raises 22023 for a negative grace or a reason beyond 10,000 characters, 40001 where an older snapshot cannot tell.';

create or replace function perdure._ask_one(run_id uuid, act text, reason text, grace interval)
returns text
language plpgsql
volatile
as $$
declare
  v_asked pg_catalog.record;
begin
  select a.* into strict v_asked from perdure._ask(array[_ask_one.run_id], _ask_one.act, _ask_one.reason, _ask_one.grace) as a;
  perform perdure._raise_refused(_ask_one.run_id, _ask_one.act, v_asked.error, v_asked.state);
  return v_asked.answer;
end;
$$;
comment on function perdure._ask_one(uuid, text, text, interval) is
'Ask an act of one run. Raises as _ask does, and PD001, PD003 and PD009 by the table act_rules.';

create or replace function perdure._accepted_act(run_id uuid, act text)
returns perdure.act
language plpgsql
stable
as $$
begin
  return (
    select a
    from perdure.act as a
    where a.run_id = _accepted_act.run_id and a.act = _accepted_act.act and a.answer = 'accepted'
    order by a.applied_at desc, a.act_id desc
    limit 1
  );
end;
$$;
comment on function perdure._accepted_act(uuid, text) is
'Find the act of this kind that was applied to a run last: before a retry there may have been others.';

create or replace function perdure._raise_refused(run_id uuid, act text, error text, state text)
returns void
language plpgsql
stable
as $$
begin
  case _raise_refused.error
    when 'PD001' then
      perform perdure._check_snapshot(array[_raise_refused.run_id]);
      raise exception 'run "%" is not known', _raise_refused.run_id
        using errcode = 'PD001',  -- run_not_found
              hint = 'It may have been started in a transaction that is still open or was rolled back.';
    when 'PD003' then
      raise exception 'run "%" has ended', _raise_refused.run_id
        using errcode = 'PD003',  -- run_finished
              detail = format('It is %s.', _raise_refused.state),
              hint = 'An ended run can be retried with perdure.retry(...), unless it completed.';
    when 'PD009' then
      raise exception 'a run that is % cannot take the act "%"', _raise_refused.state, _raise_refused.act
        using errcode = 'PD009',  -- illegal_act
              detail = format('It is run %s.', _raise_refused.run_id),
              hint = 'select * from perdure.act_rules tells which acts fit which states.';
    else
      null;
  end case;
end;
$$;
comment on function perdure._raise_refused(uuid, text, text, text) is
'Raise what act_rules says: PD001, PD003 or PD009; nothing for a null code.';

create or replace function perdure.cancel(run_id uuid, reason text default null, grace interval default '5 minutes')
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return perdure._ask_one(cancel.run_id, 'cancel', cancel.reason collate "C", cancel.grace);
end;
$$;
comment on function perdure.cancel(uuid, text, interval) is
'Ask a run to end: it is told at its next await, and may clean up until the grace has passed.
A run that no worker ever took ends as soon as anybody ticks or claims. Returns accepted, duplicate or finished.
Raises PD001 for an unknown run, 22023 for a negative grace or a reason beyond 10,000 characters.
Locks nothing of the run.';

create or replace function perdure.cancel_many(
  run_ids uuid[], reason text default null, grace interval default '5 minutes'
)
returns table (run_id uuid, answer text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return query
  select a.run_id, a.answer from perdure._ask(cancel_many.run_ids, 'cancel', cancel_many.reason collate "C", cancel_many.grace) as a;
end;
$$;
comment on function perdure.cancel_many(uuid[], text, interval) is
'Ask many runs to end. Returns accepted, duplicate, finished or unknown for each. Raises 22023 as cancel does.';

create or replace function perdure.terminate(run_id uuid, reason text default null)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return perdure._ask_one(terminate.run_id, 'terminate', terminate.reason collate "C", null);
end;
$$;
comment on function perdure.terminate(uuid, text) is
'End a run without any clean-up.
Returns accepted, duplicate or finished. Raises PD001 for an unknown run, 22023 for a reason beyond 10,000 characters.
Locks nothing of the run.';

create or replace function perdure.terminate_many(run_ids uuid[], reason text default null)
returns table (run_id uuid, answer text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return query
  select a.run_id, a.answer from perdure._ask(terminate_many.run_ids, 'terminate', terminate_many.reason collate "C", null) as a;
end;
$$;
comment on function perdure.terminate_many(uuid[], text) is
'End many runs without any clean-up. Returns accepted, duplicate, finished or unknown for each.
Raises 22023 as terminate does.';

create or replace function perdure.pause(run_id uuid, reason text default null)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return perdure._ask_one(pause.run_id, 'pause', pause.reason collate "C", null);
end;
$$;
comment on function perdure.pause(uuid, text) is
'Keep a run from going on until it is resumed.
A worker that holds it hears of it at its next beat, begins no further step, and lets go once those in flight are saved.
Returns accepted or duplicate. Raises PD001 for an unknown run, PD003 for an ended one, 22023 for a reason beyond 10,000
characters. Locks nothing of the run.';

create or replace function perdure.pause_many(run_ids uuid[], reason text default null)
returns table (run_id uuid, answer text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return query
  select a.run_id, a.answer from perdure._ask(pause_many.run_ids, 'pause', pause_many.reason collate "C", null) as a;
end;
$$;
comment on function perdure.pause_many(uuid[], text) is
'Pause many runs. Returns accepted, duplicate, finished or unknown for each. Raises 22023 as pause does.';

create or replace function perdure.resume(run_id uuid, reason text default null)
returns text
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return perdure._ask_one(resume.run_id, 'resume', resume.reason collate "C", null);
end;
$$;
comment on function perdure.resume(uuid, text) is
'Let a paused run go on, with a fresh budget of recoveries.
Returns accepted, or duplicate where it is not paused. Raises as pause does. Locks nothing of the run.';

create or replace function perdure.resume_many(run_ids uuid[], reason text default null)
returns table (run_id uuid, answer text)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
set lock_timeout = '5s'
as $$
begin
  return query
  select a.run_id, a.answer from perdure._ask(resume_many.run_ids, 'resume', resume_many.reason collate "C", null) as a;
end;
$$;
comment on function perdure.resume_many(uuid[], text) is
'Resume many paused runs. Returns accepted, duplicate, finished or unknown for each. Raises 22023 as pause does.';
