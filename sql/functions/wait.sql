-- Invariant: a suspended run is woken. Suspending looks, in a statement later than its lock, for all that could
-- have been told meanwhile; what is told later leaves a wake that waits for this lock. At most one wait is answered
-- per run and call: two answers would consume the message of a race's loser.
-- Lock order: worker (fence), dispatch by run_id without waiting (for update), then inserts.

create or replace function perdure._answer_waits(suspended jsonb, now timestamptz)
returns table (run_id uuid, checkpoint jsonb)
language plpgsql
volatile
as $$
begin
  return query
  with found as materialized (
    select distinct on (a.run_id)
      a.run_id, w.key, w.kind, w.name, m.id as signal_id, m.payload
    from jsonb_to_recordset(_answer_waits.suspended) as a (run_id uuid, waits jsonb)
    cross join lateral rows from (
      jsonb_to_recordset(a.waits) as (key text, kind text, name text, until timestamptz)
    ) with ordinality as w (key, kind, name, until, position)
    left join lateral (
      select s.id, s.payload
      from perdure.signal as s
      where w.kind = 'signal' and s.run_id = a.run_id and s.name = w.name
        and not exists (select from perdure.step as c where c.run_id = s.run_id and c.signal_id = s.id)
      order by s.sent_at, s.sequence
      limit 1
    ) as m on true
    where m.id is not null or w.until <= _answer_waits.now  -- the message wins over a time-out that is due
    order by a.run_id, w.position
  ),
  saved as (
    insert into perdure.step as s (run_id, key, kind, ordinal, name, result, signal_id, saved_at)
    select
      f.run_id, f.key, f.kind,
      (select coalesce(max(p.ordinal), 0) + 1 from perdure.step as p where p.run_id = f.run_id),
      f.name, f.payload, f.signal_id, _answer_waits.now
    from found as f
    where f.kind <> 'retry'
    on conflict on constraint step_pkey do nothing
    returning s.*
  )
  select s.run_id, perdure._checkpoint(s::perdure.step) from saved as s
  union all
  select f.run_id, jsonb_build_object('key', f.key, 'kind', f.kind) from found as f where f.kind = 'retry';
end;
$$;
comment on function perdure._answer_waits(jsonb, timestamptz) is
'Answer at most one wait of each run: the first in the order asked whose message is there or whose time has come.
suspended is an array of objects with run_id and waits. Returns the checkpoint that it saved; a due retry saves none.
The caller holds the dispatch rows.';

create or replace function perdure._find_answers(suspended jsonb)
returns table (run_id uuid, checkpoint jsonb)
language plpgsql
stable
as $$
begin
  return query
  select distinct on (s.run_id) s.run_id, perdure._checkpoint(s)
  from jsonb_to_recordset(_find_answers.suspended) as a (run_id uuid, waits jsonb, after integer)
  cross join lateral (
    select r.* from perdure.step as r
    where r.run_id = a.run_id and r.key = any(array(select w.key from jsonb_to_recordset(a.waits) as w (key text)))
    union all
    select r.* from perdure.step as r
    where r.run_id = a.run_id and r.ordinal > a.after and r.kind in ('signal', 'sleep', 'timer', 'cancel')
  ) as s
  order by s.run_id, s.ordinal;
end;
$$;
comment on function perdure._find_answers(jsonb) is
'Find what an earlier call answered whose own answer was lost.
That is a checkpoint of a wait that is asked for, or one that came after the ordinal that the caller knows. Returns the
first of each run.';

create or replace function perdure._check_waits(suspensions jsonb, keep boolean)
returns void
language plpgsql
immutable
as $$
declare
  v_bad pg_catalog.text;
begin
  perform perdure._check_array('suspensions', _check_waits.suspensions);
  -- what is refused here would otherwise never wake, or fail in every claim that meets it
  select format('run %s: %s', a.run_id, coalesce(b.wait::text, a.waits::text, 'no waits')) into v_bad
  from jsonb_to_recordset(_check_waits.suspensions) as a (run_id uuid, waits jsonb)
  left join lateral (
    select w.wait
    from jsonb_array_elements(case jsonb_typeof(a.waits) when 'array' then a.waits else '[]' end) as w (wait)
    where coalesce(octet_length(w.wait ->> 'key'), 0) not between 1 and 1000
      or coalesce(w.wait ->> 'kind', '') not in ('signal', 'sleep', 'timer', 'retry')
      or (w.wait ->> 'kind' = 'signal' and w.wait ->> 'name' is null)
    limit 1
  ) as b on true
  where b.wait is not null
    or coalesce(jsonb_typeof(a.waits), 'null') not in ('array', 'null')
    or (not _check_waits.keep and coalesce(jsonb_typeof(a.waits), 'null') = 'null')
    or (not _check_waits.keep and a.waits = '[]')
  limit 1;
  if v_bad is not null then
    raise exception 'a wait is not complete'
      using errcode = '22023',
            detail = format('It is of %s.', v_bad),
            hint = 'Pass waits as [{"key": "...", "kind": "signal|sleep|timer|retry", "name": "of a signal", "until": null}].';
  end if;
end;
$$;
comment on function perdure._check_waits(jsonb, boolean) is 'Refuse waits that nothing could ever end. Raises 22023.';

create or replace function perdure._deliver_cancels(run_ids uuid[], now timestamptz)
returns table (run_id uuid, checkpoint jsonb)
language plpgsql
volatile
as $$
begin
  return query
  with saved as (
    insert into perdure.step as s (run_id, key, kind, ordinal, result, saved_at)
    select
      d.run_id, '~cancel', 'cancel',
      (select coalesce(max(p.ordinal), 0) + 1 from perdure.step as p where p.run_id = d.run_id),
      jsonb_build_object('status', d.cancel, 'reason',
        case when d.cancel = 'cancelled' then (perdure._accepted_act(d.run_id, 'cancel')).reason end),
      _deliver_cancels.now
    from perdure.dispatch as d
    where d.run_id = any(_deliver_cancels.run_ids) and d.cancel is not null
    on conflict on constraint step_pkey do nothing
    returning s.*
  )
  select s.run_id, perdure._checkpoint(s::perdure.step) from saved as s;
end;
$$;
comment on function perdure._deliver_cancels(uuid[], timestamptz) is
'Record that a cancel or deadline is delivered to its run at this point; once per run.
Returns the checkpoints of those that were not delivered before. The caller holds the dispatch rows.';

create or replace function perdure._normal_waits(waits jsonb)
returns jsonb
language plpgsql
stable
strict
parallel safe
as $$
begin
  -- a time is read once, with the settings of whoever wrote it: 12/31/2030 or tomorrow mean something else elsewhere
  return (
    select jsonb_agg(
      w.wait || case
        when w.wait ->> 'until' is null then '{}' else jsonb_build_object('until', (w.wait ->> 'until')::timestamptz)
      end
      order by w.ordinality)
    from jsonb_array_elements(_normal_waits.waits) with ordinality as w (wait, ordinality)
  );
end;
$$;
comment on function perdure._normal_waits(jsonb) is 'Write the times of waits as ISO 8601, which every session reads alike.';

create or replace function perdure._ready_at(waits jsonb)
returns timestamptz
language plpgsql
stable
parallel safe
as $$
begin
  return (
    select coalesce(min(w.until), 'infinity')
    from jsonb_to_recordset(_ready_at.waits) as w (until timestamptz)
  );
end;
$$;
comment on function perdure._ready_at(jsonb) is 'Tell when the first of a set of waits is due; infinity where none has a time.';

create or replace function perdure._look(suspensions jsonb, run_ids uuid[], keep boolean, now timestamptz)
returns jsonb
language plpgsql
volatile
as $$
declare
  v_open pg_catalog.jsonb;
  v_answered pg_catalog.jsonb;
  v_step pg_catalog.jsonb;
begin
  perform perdure._apply_acts(_look.run_ids);  -- may end a run, cancel it, or pause it
  select jsonb_object_agg(
    a.run_id, jsonb_build_object('run_id', a.run_id, 'after', a.after, 'waits',
      case jsonb_typeof(a.waits) when 'array' then a.waits else '[]' end))
  into v_open
  from jsonb_to_recordset(_look.suspensions) as a (run_id uuid, waits jsonb, after integer)
  inner join perdure.dispatch as d on d.run_id = a.run_id
  where a.run_id = any(_look.run_ids);

  -- then what an earlier call answered, a cancel that was not delivered, the waits: one answer to each run
  select coalesce(jsonb_object_agg(f.run_id, f.checkpoint), '{}') into v_answered
  from perdure._find_answers(perdure._without(v_open, '{}')) as f;
  if not _look.keep then  -- a paused run is let go with its waits, unless one of them was answered before the pause
    select coalesce(v_open - array_agg(d.run_id::text), v_open) into v_open
    from perdure.dispatch as d
    where d.run_id = any(_look.run_ids) and d.is_paused and not v_answered ? d.run_id::text;
  end if;
  select coalesce(jsonb_object_agg(c.run_id, c.checkpoint), '{}') into v_step
  from perdure._deliver_cancels(
    array(
      select (o.suspension ->> 'run_id')::uuid
      from jsonb_array_elements(perdure._without(v_open, v_answered)) as o (suspension)
    ), _look.now) as c;
  v_answered := v_answered || v_step;
  select coalesce(jsonb_object_agg(w.run_id, w.checkpoint), '{}') into v_step
  from perdure._answer_waits(perdure._without(v_open, v_answered), _look.now) as w;
  return v_answered || v_step;
end;
$$;
comment on function perdure._look(jsonb, uuid[], boolean, timestamptz) is
'Look for what was told to runs whose dispatch rows the caller holds, and answer at most one thing to each.
Returns an object with the checkpoint of each run that has an answer. A paused run gets none but what an earlier call answered, unless keep is set.';

create or replace function perdure._without(suspensions jsonb, answered jsonb)
returns jsonb
language plpgsql
immutable
parallel safe
as $$
begin
  return (
    select coalesce(jsonb_agg(o.suspension), '[]')
    from jsonb_each(_without.suspensions) as o (run_id, suspension)
    where not _without.answered ? o.run_id
  );
end;
$$;
comment on function perdure._without(jsonb, jsonb) is 'List the suspensions of the runs that have no answer yet.';

create or replace function perdure.suspend_runs(worker_id uuid, suspensions jsonb, keep boolean default false)
returns table (run_id uuid, answer text, checkpoint jsonb)
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
  v_answered jsonb;
begin
  perform perdure._check_waits(suspend_runs.suspensions, suspend_runs.keep);
  v_lock := perdure._lock_and_save(suspend_runs.worker_id, suspend_runs.suspensions);

  v_answered := perdure._look(suspend_runs.suspensions, v_lock.held, suspend_runs.keep, v_now);

  update perdure.dispatch as d
  set
    worker_id = s.worker_id,
    waits = s.waits,
    ready_at = s.ready_at,
    told_at = null
  from (
    select
      a.run_id,
      l.is_let_go,
      case when not l.is_let_go then suspend_runs.worker_id end as worker_id,
      case when l.is_let_go then perdure._normal_waits(a.waits) end as waits,
      perdure._ready_at(a.waits) as ready_at
    from jsonb_to_recordset(suspend_runs.suspensions) as a (run_id uuid, waits jsonb)
    cross join lateral (
      select not suspend_runs.keep and not v_answered ? a.run_id::text as is_let_go
    ) as l
    where a.run_id = any(v_lock.held)
  ) as s
  where d.run_id = s.run_id and (s.is_let_go or d.told_at is not null);

  return query
  select
    a.run_id,
    case
      when coalesce(v_lock.others ->> a.run_id::text, 'done') = 'done' and d.run_id is null then 'ended'
      when v_lock.others ? a.run_id::text then v_lock.others ->> a.run_id::text
      when v_answered -> a.run_id::text ->> 'kind' = 'retry' then 'retry_due'
      when v_answered ? a.run_id::text then 'answered'
      when suspend_runs.keep then 'waiting'
      else 'suspended'
    end,
    v_answered -> a.run_id::text
  from jsonb_to_recordset(suspend_runs.suspensions) as a (run_id uuid)
  left join perdure.dispatch as d on d.run_id = a.run_id;
end;
$$;
comment on function perdure.suspend_runs(uuid, jsonb, boolean) is
'Let runs wait for a set of things, or answer the first that is there.
suspensions is an array of objects with run_id, claim, saves (the run''s last, as in save_steps) and waits: an array of
objects with key, kind (signal, sleep, timer, retry), name (of a signal) and until (null: for as long as it takes);
optional: after, the highest ordinal that the worker knows, so that a call repeated after a lost answer gets it again.
Returns for each: suspended (the claim is given up); answered (checkpoint is the saved answer of one wait, or of a
cancel; the claim is kept, go on); retry_due (a retry is due, nothing is saved, the claim is kept); waiting (with keep:
nothing yet); done (this claim suspended it before); ended; busy (send again alone); lost.
keep: only look, for a run with steps in flight.
Raises as save_steps does, 22023 also for waits that nothing could end. Locks the worker''s row shared, the dispatch
rows without waiting.';
