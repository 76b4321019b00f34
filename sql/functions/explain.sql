-- Invariant: what is said is read in one snapshot: these functions are stable. The view runs gives
-- the run, sentence.sql most sentences; here is who holds it, and who would. Locks nothing.

create or replace function perdure._since(run perdure.runs)
returns timestamptz
language sql
stable
as $$
  select case
    when _since.run.state = 'running' then _since.run.claimed_at
    when _since.run.state = 'ready' then _since.run.ready_at
    when _since.run.state = 'scheduled' then _since.run.created_at
    when _since.run.state in ('paused', 'cancelling') then coalesce((perdure._accepted_act(
      _since.run.run_id,
      case when _since.run.state = 'paused' then 'pause' when _since.run.cancel = 'cancelled' then 'cancel' end
    )).applied_at, _since.run.claimed_at)
    else greatest(  -- it was suspended right after the last thing that it did
      _since.run.created_at,
      _since.run.claimed_at,
      (select max(s.saved_at) from perdure.step as s where s.run_id = _since.run.run_id),
      (select max(t.failed_at) from perdure.step_attempt as t where t.run_id = _since.run.run_id)
    )
  end
$$;
comment on function perdure._since(perdure.runs) is 'Tell since when a run has been in its state.';

create or replace function perdure._explain_silence(worker perdure.workers, now timestamptz)
returns setof text
language plpgsql
stable
as $$
begin
  if _explain_silence.worker.worker_id is null then
    return next 'That worker is gone; the next tick takes the run back. At once: select perdure.recover();';
  elsif perdure._hold() is not null then
    return next 'On hold nobody judges whether that worker is alive; adopt() forgets those of the past.';
  elsif not _explain_silence.worker.is_alive then
    return next format(
      'That worker has been silent since %s, longer than its lease of %s; the next tick takes the run'
      ' back. At once: select perdure.recover();',
      perdure._when(_explain_silence.worker.beat_at, _explain_silence.now),
      perdure._span(_explain_silence.worker.lease));
  elsif _explain_silence.worker.beat_age > interval '3 seconds' then
    return next format(
      'That worker has been silent for %s. If it stays so, it is declared dead at %s, and another one may'
      ' take the run.',
      perdure._span(_explain_silence.worker.beat_age),
      perdure._when(
        _explain_silence.worker.beat_at + _explain_silence.worker.lease, _explain_silence.now));
  end if;
end;
$$;
comment on function perdure._explain_silence(perdure.workers, timestamptz) is
'Say whether a worker is suspected to be dead, and when its runs will be taken back.';

create or replace function perdure._explain_running(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
declare
  v_worker perdure.workers;
  v_step pg_catalog.record;
  v_told_at pg_catalog.timestamptz;
begin
  select w.* into v_worker from perdure.workers as w where w.worker_id = _explain_running.run.worker_id;
  return next format('Worker "%s"%s holds it.',
    coalesce(v_worker.name, _explain_running.run.worker_id::text),
    coalesce(' (version ' || v_worker.version || ')', ''));
  for v_step in
    select a.key, a.since, nullif(a.progress, 'null')::text as progress
    from jsonb_to_recordset(v_worker.activity) as a (
      run_id uuid, key text, since timestamptz, progress jsonb
    )
    where a.run_id = _explain_running.run.run_id
    order by a.since
  loop
    return next format('Step "%s" has been running since %s%s.', v_step.key,
      perdure._when(v_step.since, _explain_running.now),
      coalesce('; its progress: ' || v_step.progress, ''));
  end loop;
  if not found and v_worker.is_alive then
    return next 'No step of it has been running for longer than a beat.';
  end if;
  return query select s.* from perdure._explain_silence(v_worker, _explain_running.now) as s;
  select d.told_at into v_told_at from perdure.dispatch as d where d.run_id = _explain_running.run.run_id;
  if v_told_at is not null then
    return next format(
      'It was told something at %s, and will look when its steps in flight are done.',
      perdure._when(v_told_at, _explain_running.now));
  end if;
end;
$$;
comment on function perdure._explain_running(perdure.runs, timestamptz) is
'Say which worker holds a run, what it is doing, and whether it still lives.';

create or replace function perdure._explain_takers(run perdure.runs)
returns setof text
language plpgsql
stable
as $$
declare
  v_takers bigint;
  v_knowers bigint;
  v_ahead bigint;
begin
  select
    count(*),
    count(*) filter (where _explain_takers.run.workflow = any(w.workflows))
  into v_takers, v_knowers
  from perdure.workers as w
  where w.is_alive and _explain_takers.run.queue = any(w.queues);

  if v_takers = 0 then
    return next format(
      'No live worker takes from queue "%s". Start one: perdure worker MODULE:APP --queues %s',
      _explain_takers.run.queue, perdure._shell_word(_explain_takers.run.queue));
  elsif v_knowers = 0 then
    return next format(
      'None of the live workers of queue "%s" (%s) knows workflow "%s". Deploy one that does.',
      _explain_takers.run.queue, v_takers, _explain_takers.run.workflow);
  elsif _explain_takers.run.ready_at <= perdure._clock() and not _explain_takers.run.is_paused then
    select count(*) into v_ahead
    from (
      select from perdure.dispatch as d
      where d.queue = _explain_takers.run.queue and d.worker_id is null and not d.is_paused
        and (d.priority, d.ready_at) < (_explain_takers.run.priority, _explain_takers.run.ready_at)
        and d.ready_at <= perdure._clock()
      limit 1000
    ) as a;
    return next format('Live workers that may take it: %s. Ready runs before it in queue "%s": %s%s.',
      v_knowers, _explain_takers.run.queue, case when v_ahead = 1000 then 'at least ' else '' end, v_ahead);
  end if;
end;
$$;
comment on function perdure._explain_takers(perdure.runs) is
'Say whether a live worker would take a run, and how many runs are before it.';

create or replace function perdure._explain_unfinished(run perdure.runs, now timestamptz)
returns setof text
language plpgsql
stable
as $$
begin
  if _explain_unfinished.run.state = 'running' then
    return query select e.* from perdure._explain_running(_explain_unfinished.run, _explain_unfinished.now) as e;
  elsif _explain_unfinished.run.state = 'paused' then
    return query select e.* from perdure._explain_pause(_explain_unfinished.run) as e;
  elsif _explain_unfinished.run.state = 'scheduled' then
    return query select e.* from perdure._explain_start(_explain_unfinished.run, _explain_unfinished.now) as e;
  elsif _explain_unfinished.run.ready_at > _explain_unfinished.now
    and not exists (select from perdure.waits as w where w.run_id = _explain_unfinished.run.run_id) then
    return next format('It may be taken again at %s.',
      perdure._when(_explain_unfinished.run.ready_at, _explain_unfinished.now));
  end if;
  if _explain_unfinished.run.cancel is not null then
    return query select e.* from perdure._explain_cancel(_explain_unfinished.run, _explain_unfinished.now) as e;
  end if;
  return query select e.* from perdure._explain_waits(_explain_unfinished.run, _explain_unfinished.now) as e;
  return query
  select format('Step "%s" failed in try %s with %s%s%s.', s.key, s.attempts,
    coalesce(s.error ->> 'type', 'an error'), perdure._because(s.error ->> 'message'),
    coalesce('; next try at ' || perdure._when(s.retry_at, _explain_unfinished.now), ''))
  from perdure.steps as s
  where s.run_id = _explain_unfinished.run.run_id and s.state = 'backing_off'
  order by s.key;
  return query select e.* from perdure._explain_deaths(_explain_unfinished.run) as e;
  if _explain_unfinished.run.worker_id is null then
    return query select e.* from perdure._explain_takers(_explain_unfinished.run) as e;
  end if;
  return query select e.* from perdure._explain_pending(_explain_unfinished.run, _explain_unfinished.now) as e;
  if _explain_unfinished.run.deadline is not null then
    return next format('Its deadline is %s.',
      perdure._when(_explain_unfinished.run.deadline, _explain_unfinished.now));
  end if;
end;
$$;
comment on function perdure._explain_unfinished(perdure.runs, timestamptz) is
'Say why an unfinished run does not go on.';

create or replace function perdure.explain(run_id uuid)
returns setof text
language plpgsql
volatile  -- as run_results
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now constant timestamptz := perdure._clock();
  v_run perdure.runs;
  v_name text;
begin
  select r.* into v_run from perdure.runs as r where r.run_id = explain.run_id;
  if not found then
    perform perdure._raise_refused(explain.run_id, 'explain', 'PD001', null);
  end if;
  v_name := format('Run %s of workflow "%s"%s', v_run.run_id, v_run.workflow,
    coalesce(' with key "' || v_run.key || '"', ''));
  if v_run.finished_at is not null then
    return next format('%s ended as %s at %s, after %s.', v_name, v_run.state,
      perdure._when(v_run.finished_at, v_now), perdure._span(v_run.duration));
    return query select e.* from perdure._explain_end(v_run) as e;
  else
    return query select e.* from perdure._explain_hold(v_now) as e;
    return next format('%s is %s since %s.', v_name, v_run.state,
      perdure._when(perdure._since(v_run), v_now));
    return query select e.* from perdure._explain_unfinished(v_run, v_now) as e;
  end if;
end;
$$;
comment on function perdure.explain(uuid) is
'Say why a run does not go on, and what to type.
Returns sentences: first whether the install is on hold; its state and since when; what it waits for and until when; the worker that holds it
and what it is doing; why nobody takes it; what failed and when it is tried again; what it was told and
has not looked at. Of an ended run: how it ended. Raises PD001 for an unknown run. Locks nothing.';
