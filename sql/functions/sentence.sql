-- Invariant: a sentence that asks for an act is followed by what to type. One function per thing
-- that explain tells of a run; each reads what it needs and says nothing where there is nothing.
-- Locks nothing.

create or replace function perdure._explain_hold(now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_hold perdure.holds;
begin
  select h.* into v_hold from perdure.holds as h;
  if found then
    return next format('The install is on hold%s: %s. Until it is adopted workers are given nothing.',
      coalesce(' since ' || perdure._when(v_hold.held_at, _explain_hold.now), ''), v_hold.reason);
    return next 'To see what may have gone on elsewhere: select * from perdure.at_risk();'
      ' to go on with this database: select perdure.adopt();';
  end if;
end;
$$;
comment on function perdure._explain_hold(timestamptz) is 'Say that the install is on hold, why, and what ends it.';

create or replace function perdure._explain_end(run perdure.runs)
returns setof text
language plpgsql
stable
as $$
declare
  v_step constant pg_catalog.text := _explain_end.run.error ->> 'step';
  v_tries integer;
begin
  if _explain_end.run.state = 'completed' then
    return next format('To read what it returned: select perdure.result(%L);', _explain_end.run.run_id);
    return;
  elsif _explain_end.run.state = 'continued' then
    return;
  end if;
  return next case _explain_end.run.state
    when 'failed' then 'Its workflow raised ' || coalesce(_explain_end.run.error ->> 'type', 'an error')
    when 'cancelled' then 'It was asked to end'
    when 'timed_out' then 'Its deadline had passed'
    when 'terminated' then 'It was ended without clean-up'
    else 'It was given up'
  end || perdure._because(_explain_end.run.last_error) || '.';
  if v_step is not null then
    select s.attempt into v_tries
    from perdure.step as s
    where s.run_id = _explain_end.run.run_id and s.key = v_step;
    return next format('What failed is step "%s"%s.', v_step, ', in try ' || v_tries);
  end if;
  return next format(
    'To let it go on from where it stopped: select perdure.retry(%L);', _explain_end.run.run_id);
end;
$$;
comment on function perdure._explain_end(perdure.runs) is 'Say how a run ended and what can be done.';

create or replace function perdure._explain_waits(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_wait pg_catalog.record;
  v_mail pg_catalog.text;
begin
  for v_wait in
    select w.kind, w.key, w.name, w.until, w.is_due
    from perdure.waits as w
    where w.run_id = _explain_waits.run.run_id
  loop
    return next case v_wait.kind || case when v_wait.is_due then ', due' else '' end
      when 'signal, due' then format('It has waited for the signal "%s" until %s, and goes on without it unless it comes first.', v_wait.name,
        perdure._when(v_wait.until, _explain_waits.now))
      when 'retry, due' then format('Step "%s" was to be tried again at %s.', v_wait.key,
        perdure._when(v_wait.until, _explain_waits.now))
      when 'sleep, due' then format('Its sleep is over since %s.', perdure._when(v_wait.until, _explain_waits.now))
      when 'timer, due' then format('Its timer "%s" is over since %s.', v_wait.key,
        perdure._when(v_wait.until, _explain_waits.now))
      when 'signal' then format('It waits for the signal "%s"%s.', v_wait.name,
        coalesce(' until ' || perdure._when(v_wait.until, _explain_waits.now), ' for as long as it takes'))
      when 'retry' then format('Step "%s" is tried again at %s.', v_wait.key,
        perdure._when(v_wait.until, _explain_waits.now))
      when 'sleep' then format('It sleeps until %s.', perdure._when(v_wait.until, _explain_waits.now))
      else format('Its timer "%s" ends at %s.', v_wait.key, perdure._when(v_wait.until, _explain_waits.now))
    end;
    if v_wait.kind = 'signal' then
      return next format('To send it: select perdure.signal(%L, %L, ''<payload as JSON>'');',
        _explain_waits.run.run_id, v_wait.name);
    end if;
  end loop;
  if found then
    select string_agg(distinct format('"%s"', s.name), ', ') into v_mail
    from perdure.signals as s
    where s.run_id = _explain_waits.run.run_id and not s.is_consumed
      and s.name not in (
        select w.name from perdure.waits as w where w.run_id = s.run_id and w.kind = 'signal'
      );
    if v_mail is not null then
      return next format('In its mailbox are signals for which it does not wait: %s.', v_mail);
    end if;
  end if;
end;
$$;
comment on function perdure._explain_waits(perdure.runs, timestamptz) is
'Say what a suspended run waits for and until when.';

create or replace function perdure._explain_pause(run perdure.runs)
returns setof text
language plpgsql
stable
as $$
declare
  v_act constant perdure.act := perdure._accepted_act(_explain_pause.run.run_id, 'pause');
  v_cure constant pg_catalog.text := case  -- as drivers, and the engine itself, begin the reason of a pause of theirs
    when v_act.reason like 'DecodingFailed: %' then 'deploy code that reads what is recorded'
    when v_act.reason like 'StepConflict: %' then 'deploy code that takes its steps as they are recorded, such as the former one'
    when v_act.reason like 'Misuse: %' then 'deploy code in which that is mended'
    when v_act.reason ~ '^(the driver failed|it cannot be executed|the end of the run cannot be saved|the engine cannot go on'
        '|step .* cannot be saved|the run cannot be suspended)'
      then 'cure what it says'
  end;
begin
  return next format('It was paused by "%s"%s.', v_act.asked_by, perdure._because(v_act.reason));
  if v_cure is null then
    return next format('To let it go on: select perdure.resume(%L);', _explain_pause.run.run_id);
  else
    return next format('First %s: resumed as things are, it would be paused again.', v_cure);
    return next format('To let it go on then: select perdure.resume(%L); to give it up: select perdure.terminate(%L);',
      _explain_pause.run.run_id, _explain_pause.run.run_id);
  end if;
end;
$$;
comment on function perdure._explain_pause(perdure.runs) is 'Say who paused a run and why, and what has to be done before it is resumed.';

create or replace function perdure._explain_cancel(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_act constant perdure.act := perdure._accepted_act(_explain_cancel.run.run_id, 'cancel');
begin
  return next case
    when _explain_cancel.run.cancel = 'timed_out' then 'Its deadline has passed'
    else format('"%s" asked it to end%s', v_act.asked_by, perdure._because(v_act.reason))
  end || case
    when exists (
      select from perdure.step as s where s.run_id = _explain_cancel.run.run_id and s.kind = 'cancel'
    ) then format('; it knows, and may clean up until %s.',
      perdure._when(_explain_cancel.run.grace_ends_at, _explain_cancel.now))
    else format('; it has not heard of it yet, and is ended the hard way at %s.',
      perdure._when(_explain_cancel.run.grace_ends_at, _explain_cancel.now))
  end;
  return next format('To end it now, without clean-up: select perdure.terminate(%L);',
    _explain_cancel.run.run_id);
end;
$$;
comment on function perdure._explain_cancel(perdure.runs, timestamptz) is
'Say why a run has to end and how long it may still clean up.';

create or replace function perdure._explain_start(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_state pg_catalog.text;
begin
  if _explain_start.run.predecessor_id is not null then
    select r.state into v_state from perdure.runs as r where r.run_id = _explain_start.run.predecessor_id;
    return next format('It replaces run %s, which has to end first and is %s.',
      _explain_start.run.predecessor_id, coalesce(v_state, 'unknown'));
    return next format('About that one: select * from perdure.explain(%L);',
      _explain_start.run.predecessor_id);
  else
    return next format('It was started to begin at %s.',
      perdure._when(coalesce(_explain_start.run.ready_at, 'infinity'), _explain_start.now));
  end if;
end;
$$;
comment on function perdure._explain_start(perdure.runs, timestamptz) is
'Say when a run begins that no worker has ever taken.';

create or replace function perdure._explain_deaths(run perdure.runs)
returns setof text
language plpgsql
stable
as $$
begin
  if _explain_deaths.run.recoveries = 0 then
    return;
  end if;
  return next format('Deaths of its workers in a row, without progress: %s. It is given up after %s.',
    _explain_deaths.run.recoveries, _explain_deaths.run.max_recoveries + 1);
  if _explain_deaths.run.recoveries >= 2 and _explain_deaths.run.worker_id is null then
    return next
      'It is suspected to kill them: it comes back with growing delay, last of all, and only to a worker'
      ' without another such run.';
  end if;
end;
$$;
comment on function perdure._explain_deaths(perdure.runs) is
'Say how often a run''s workers died, and what follows from it.';

create or replace function perdure._explain_pending(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_act perdure.act;
begin
  for v_act in
    select a.* from perdure.act as a
    where a.run_id = _explain_pending.run.run_id and a.applied_at is null
    order by a.asked_at, a.act_id
  loop
    return next format('The act "%s" that "%s" asked for at %s is not applied yet%s.', v_act.act,
      v_act.asked_by, perdure._when(v_act.asked_at, _explain_pending.now), perdure._because(v_act.reason));
  end loop;
  if exists (select from perdure.wake as w where w.run_id = _explain_pending.run.run_id) then
    return next 'It was told something that nobody has looked at; the next tick does. At once:'
      ' select perdure.tick();';
  end if;
end;
$$;
comment on function perdure._explain_pending(perdure.runs, timestamptz) is
'Say what a run was told that the engine has not looked at.';
