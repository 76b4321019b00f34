-- Invariant: the state of a run is derived, from its outcome or its dispatch row, and stored nowhere. Locks nothing.

create or replace function perdure._run_state(
  worker_id uuid,
  begun_at timestamptz,
  ready_at timestamptz,
  waits jsonb,
  cancel text,
  is_paused boolean,
  now timestamptz
)
returns text
language sql
immutable
parallel safe
as $$
  select case
    when _run_state.worker_id is not null then 'running'
    when _run_state.is_paused then 'paused'
    when _run_state.cancel is not null then 'cancelling'
    when _run_state.ready_at <= _run_state.now then 'ready'
    when _run_state.begun_at is null then 'scheduled'
    when _run_state.waits is null or _run_state.waits @? '$[*] ? (@.kind == "retry")' then 'backing_off'
    when _run_state.waits @? '$[*] ? (@.kind == "signal")' then 'waiting'
    else 'sleeping'
  end
$$;
comment on function perdure._run_state(uuid, timestamptz, timestamptz, jsonb, text, boolean, timestamptz) is
'Derive the state of an unfinished run from its dispatch row.';

create or replace function perdure._states(run_ids uuid[], act text default null)
returns table (run_id uuid, state text)
language plpgsql
volatile
as $$
declare
  v_now constant pg_catalog.timestamptz := perdure._now();
begin
  return query
  select
    a.run_id,
    case
      when o.run_id is not null then o.status
      -- a run in a worker's hands is running, and may have been paused or cancelled all the same
      when d.is_paused and _states.act in ('pause', 'resume') then 'paused'
      when d.cancel is not null and _states.act = 'cancel' then 'cancelling'
      else perdure._run_state(d.worker_id, d.begun_at, d.ready_at, d.waits, d.cancel, d.is_paused, v_now)
    end
  from (select distinct u.run_id from unnest(_states.run_ids) as u (run_id)) as a
  left join perdure.outcome as o on o.run_id = a.run_id
  left join perdure.dispatch as d on d.run_id = a.run_id
  where o.run_id is not null or d.run_id is not null;
end;
$$;
comment on function perdure._states(uuid[], text) is
'Read the states of runs, as act_rules has to see them for this act; unknown ones have no row.';
