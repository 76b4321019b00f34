-- Invariant: what is wrong with one run stops that run and no other. The engine works on batches of runs; a batch that
-- cannot be done is halved until the bad run stands alone, and that one is set aside: paused, with the reason.
-- Lock order: the caller holds the runs' dispatch rows; each piece of work goes on as it says.

create or replace function perdure._do(work text, run_ids uuid[], now timestamptz)
returns void
language plpgsql
volatile
as $$
begin
  case _do.work
    when 'acts' then perform perdure._apply_acts(_do.run_ids);
    when 'messages' then perform perdure._tell(_do.run_ids, _do.now);
    when 'successors' then perform perdure._free_successors(_do.run_ids, _do.now);
    when 'claim' then perform perdure._answer_waiting(_do.run_ids, _do.now);
    when 'deadlines' then perform perdure._end_overdue(_do.run_ids, _do.now);
    when 'orphans' then perform perdure._take_back(_do.run_ids, _do.now);
  end case;
end;
$$;
comment on function perdure._do(text, uuid[], timestamptz) is
'Do one piece of the engine''s work on runs whose dispatch rows the caller holds.';

create or replace function perdure._isolate(work text, run_ids uuid[], now timestamptz)
returns uuid[]
language plpgsql
volatile
as $$
declare
  v_count constant integer := coalesce(cardinality(_isolate.run_ids), 0);
  v_sqlstate pg_catalog.text;
  v_message pg_catalog.text;
begin
  if v_count = 0 then
    return '{}'::uuid[];
  end if;
  begin
    perform perdure._do(_isolate.work, _isolate.run_ids, _isolate.now);
    return _isolate.run_ids;
  exception
    when others then
      get stacked diagnostics v_sqlstate = returned_sqlstate, v_message = message_text;
      -- only what the data of a run can cause: a full disk, a lock or a broken install is no run's fault
      if left(v_sqlstate, 2) not in ('21', '22', '23', '54', 'P0', 'PD') then
        raise;
      end if;
  end;
  if v_count > 1 then
    return perdure._isolate(_isolate.work, _isolate.run_ids[: v_count / 2], _isolate.now)
      || perdure._isolate(_isolate.work, _isolate.run_ids[v_count / 2 + 1 :], _isolate.now);
  end if;
  perform perdure._set_aside(_isolate.run_ids[1], _isolate.work, v_sqlstate, v_message, _isolate.now);
  return '{}'::uuid[];
end;
$$;
comment on function perdure._isolate(text, uuid[], timestamptz) is
'Do one piece of the engine''s work on runs; those with which it fails are set aside. Returns the others.
An error that no run''s data can cause is raised again. The caller holds the dispatch rows.';

create or replace function perdure._set_aside(run_id uuid, work text, sqlstate text, message text, now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_reason constant pg_catalog.text := format('the engine cannot go on with it (%s): %s', _set_aside.work, _set_aside.message);
  v_again_at constant pg_catalog.timestamptz := _set_aside.now + interval '5 minutes';
begin
  if _set_aside.work = 'acts' then  -- one of them is the cause, and would be again
    update perdure.act as a
    set applied_at = _set_aside.now, answer = 'failed'
    where a.run_id = _set_aside.run_id and a.applied_at is null;
  end if;
  insert into perdure.act (run_id, act_id, act, reason, asked_by, asked_at, applied_at, answer)
  values (
    _set_aside.run_id, perdure._uuid7(_set_aside.now), 'pause', v_reason, 'perdure', _set_aside.now, _set_aside.now,
    'accepted');
  update perdure.dispatch as d
  set
    is_paused = true,
    -- and out of sight of what would find it again in the next moment
    worker_id = case when _set_aside.work <> 'orphans' then d.worker_id end,
    told_at = case when d.worker_id is not null and _set_aside.work <> 'orphans' then _set_aside.now end,
    ends_at = case when _set_aside.work = 'deadlines' then v_again_at else d.ends_at end
  where d.run_id = _set_aside.run_id;
  perform perdure._audit('set_aside', _set_aside.run_id, v_reason,
    jsonb_build_object('work', _set_aside.work, 'sqlstate', _set_aside.sqlstate));
end;
$$;
comment on function perdure._set_aside(uuid, text, text, text, timestamptz) is
'Pause a run with which a piece of the engine''s work fails, so that it fails for nobody else.
Its pending acts are answered as failed where they are that work. The caller holds the dispatch row.';
