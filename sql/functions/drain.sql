-- Invariant: a wake commits with its cause, is deleted before the look, and survives a row that was skipped. So
-- whatever is told is looked at by somebody, later than it was told.
-- Lock order: dispatch in the order told without waiting, then the wakes of the rows got, then inserts.

create or replace function perdure._end_by_act(run_id uuid, status text)
returns void
language plpgsql
volatile
as $$
begin
  perform perdure._end_runs(array[perdure._outcome(
    _end_by_act.run_id, _end_by_act.status, null, perdure._reason_error(_end_by_act.run_id, _end_by_act.status))]);
end;
$$;
comment on function perdure._end_by_act(uuid, text) is 'End one run as an act asks, with the reason given for it.';

create or replace function perdure._apply_act(run_id uuid, act text, grace interval, now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_state pg_catalog.text;
  v_answer pg_catalog.text;
  v_ends_at pg_catalog.timestamptz;
  v_is_in_line boolean;
begin
  select s.state into v_state from perdure._states(array[_apply_act.run_id], _apply_act.act) as s;
  select r.answer into strict v_answer from perdure.act_rules as r where r.state = v_state and r.act = _apply_act.act;
  if v_answer <> 'accepted' then
    return v_answer;
  end if;
  v_ends_at := _apply_act.now + _apply_act.grace;

  case _apply_act.act
    when 'terminate' then
      perform perdure._end_by_act(_apply_act.run_id, 'terminated');
    when 'cancel' then
      if exists (  -- it never began, so there is nothing to clean up
        select from perdure.dispatch as d where d.run_id = _apply_act.run_id and d.begun_at is null
      ) then
        perform perdure._end_by_act(_apply_act.run_id, 'cancelled');
      else
        update perdure.dispatch as d
        set
          cancel = 'cancelled',
          ends_at = v_ends_at,
          is_paused = false,
          ready_at = _apply_act.now,
          told_at = case when d.worker_id is not null then _apply_act.now end
        where d.run_id = _apply_act.run_id;
      end if;
    when 'pause' then
      update perdure.dispatch as d
      set is_paused = true, told_at = case when d.worker_id is not null then _apply_act.now end
      where d.run_id = _apply_act.run_id;
    when 'resume' then
      select d.cancel is null and perdure._is_in_line(d, _apply_act.now) into v_is_in_line
      from perdure.dispatch as d where d.run_id = _apply_act.run_id;
      update perdure.dispatch as d
      set
        is_paused = false,
        recoveries = 0,
        ready_at = case
          when v_is_in_line then _apply_act.now  -- however late the clock was when it was paused
          when d.cancel is null then greatest(d.ready_at, _apply_act.now)
          else _apply_act.now  -- it may have been suspended, paused, before it heard of the cancel
        end
      where d.run_id = _apply_act.run_id;
  end case;
  return 'accepted';
end;
$$;
comment on function perdure._apply_act(uuid, text, interval, timestamptz) is
'Apply an act to a run whose dispatch row the caller holds. Returns accepted, duplicate or finished.';

create or replace function perdure._answer_act(act perdure.act, answer text, now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  update perdure.act as a
  set applied_at = _answer_act.now, answer = _answer_act.answer
  where a.run_id = _answer_act.act.run_id and a.act_id = _answer_act.act.act_id;
  if _answer_act.answer <> 'accepted' then
    perform perdure._audit('drop_' || _answer_act.act.act, _answer_act.act.run_id, _answer_act.act.reason,
      jsonb_build_object('answer', _answer_act.answer));
  end if;
end;
$$;
comment on function perdure._answer_act(perdure.act, text, timestamptz) is
'Note the answer to an act; one that was dropped is audited.';

create or replace function perdure._apply_acts(run_ids uuid[])
returns void
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
  v_act perdure.act;
  v_answer pg_catalog.text;
begin
  for v_act in
    select a.* from perdure.act as a
    where a.run_id = any(_apply_acts.run_ids) and a.applied_at is null
    order by a.run_id, a.asked_at, a.act_id
  loop
    v_answer := perdure._apply_act(v_act.run_id, v_act.act, v_act.grace, v_now);
    perform perdure._answer_act(v_act, v_answer, v_now);
  end loop;
end;
$$;
comment on function perdure._apply_acts(uuid[]) is
'Answer all pending acts of runs whose dispatch rows the caller holds, in the order asked; drop what no longer fits.';

create or replace function perdure._drop_late_acts(run_ids uuid[])
returns void
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
  v_act perdure.act;
begin
  -- In one statement: where it sees no dispatch row it sees no act of a later life either. Asked in two, a retry in
  -- between would have its acts applied by somebody who does not hold its row.
  for v_act in
    select a.* from perdure.act as a
    where a.run_id = any(_drop_late_acts.run_ids) and a.applied_at is null
      and not exists (select from perdure.dispatch as d where d.run_id = a.run_id)
    order by a.run_id, a.asked_at, a.act_id
    for update of a skip locked
  loop
    perform perdure._answer_act(v_act, 'finished', v_now);
  end loop;
end;
$$;
comment on function perdure._drop_late_acts(uuid[]) is
'Answer what was asked of runs that have ended: a retry must not meet the cancel of its former life.';

create or replace function perdure._tell(run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  update perdure.dispatch as d set told_at = _tell.now
  where d.run_id = any(_tell.run_ids) and d.worker_id is not null and d.told_at is null;
  update perdure.dispatch as d set ready_at = _tell.now
  where d.run_id = any(_tell.run_ids) and d.worker_id is null and d.ready_at > _tell.now and d.waits is not null
    and exists (
      select
      from jsonb_to_recordset(d.waits) as w (kind text, name text)
      inner join perdure.signal as s on s.run_id = d.run_id and s.name = w.name
      where w.kind = 'signal'
        and not exists (select from perdure.step as c where c.run_id = s.run_id and c.signal_id = s.id)
    );
end;
$$;
comment on function perdure._tell(uuid[], timestamptz) is
'Let runs know that they were told something: a worker hears it at its next beat, a wait whose message came is due.
The caller holds the dispatch rows.';

create or replace function perdure._told(max_runs integer, now timestamptz)
returns table (run_ids uuid[], head timestamptz)
language plpgsql
volatile
as $$
declare
  v_kept constant pg_catalog.jsonb := case when current_setting('perdure.wake_head', true) <> '' then
    perdure._recall_heads('perdure.wake_head', '', _told.now) end;
  v_read bigint := pg_stat_get_xact_tuples_returned('perdure.wake_drain_idx'::regclass);
  v_count bigint;
  v_first pg_catalog.timestamptz;
begin
  head := case when v_kept is null then '-infinity' else perdure._head(v_kept ->> 'heads', _told.now) end;
  select array_agg(distinct w.run_id), count(*), min(w.told_at) into run_ids, v_count, v_first
  from (
    select o.run_id, o.told_at
    from perdure.wake as o
    where o.told_at >= _told.head
    order by o.told_at, o.run_id
    limit _told.max_runs
  ) as w;
  v_read := pg_stat_get_xact_tuples_returned('perdure.wake_drain_idx'::regclass) - v_read;
  if v_read - v_count > 100 then
    perform perdure._keep_heads(
      'perdure.wake_head', '', v_kept, to_jsonb(coalesce(v_first, _told.now)), _told.now, 20);
  end if;
  return next;
end;
$$;
comment on function perdure._told(integer, timestamptz) is
'Read the oldest wakes, at most max_runs: whose they are, null where there is none; and from where they were read.
Where it read many entries in vain the session keeps a head for its next calls.';

create or replace function perdure._drain(max_runs integer)
returns table (applied integer, skipped integer)
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
  v_told pg_catalog.record;
  v_held pg_catalog.uuid[];
  v_sound pg_catalog.uuid[];
begin
  select t.run_ids, t.head into strict v_told from perdure._told(_drain.max_runs, v_now) as t;
  if v_told.run_ids is null or perdure._hold() is not null then
    applied := 0;
    skipped := 0;
    return next;
    return;
  end if;
  perform perdure._bound_idleness('30 seconds');
  -- limited after the locks: what somebody holds at the head must not hide who stands behind it
  select array_agg(distinct l.run_id) into v_held
  from (
    select d.run_id
    from perdure.wake as w
    inner join perdure.dispatch as d on d.run_id = w.run_id
    where w.told_at >= v_told.head
    order by w.told_at, w.run_id
    limit _drain.max_runs
    for update of d skip locked
  ) as l;
  delete from perdure.wake as w where w.run_id = any(v_held);  -- before the look, never after it

  v_sound := perdure._isolate('acts', v_held, v_now);
  v_sound := perdure._isolate('messages', v_sound, v_now);
  perform perdure._isolate('successors', v_sound, v_now);

  perform perdure._drop_late_acts(v_told.run_ids);

  -- wakes of runs that have ended
  delete from perdure.wake as w
  where w.ctid = any(array(
    select g.ctid from perdure.wake as g
    where g.run_id = any(v_told.run_ids)
      and not exists (select from perdure.dispatch as d where d.run_id = g.run_id)
      -- one that came after the look, or that a retry is answering
      and (select true from perdure.act as a where a.run_id = g.run_id and a.applied_at is null limit 1) is null
    for update skip locked
  ));
  applied := coalesce(cardinality(v_held), 0);
  select count(*)::integer into skipped
  from unnest(v_told.run_ids) as t (run_id)
  inner join perdure.dispatch as d on d.run_id = t.run_id
  where t.run_id <> all(coalesce(v_held, '{}'));
  return next;
end;
$$;
comment on function perdure._drain(integer) is 'Look at the runs that were told something, at most max_runs.
Returns how many were looked at and how many were skipped because somebody held them.';

create or replace function perdure.drain(max_runs integer default 1000)
returns table (applied integer, skipped integer)
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
begin
  return query select d.applied, d.skipped from perdure._drain(drain.max_runs) as d;
end;
$$;
comment on function perdure.drain(integer) is
'Look at the runs that were told something: apply acts, make ready those whose message came; pause one that fails.
Returns how many were looked at and how many were skipped because somebody held them; those stay to be drained.
On hold nobody is looked at. In a transaction that is left open they stay locked; the server ends it after 30 s of idleness.
Locks the dispatch rows without waiting.';
