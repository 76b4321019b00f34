-- Invariant: a key of a workflow names one run, from its start until the run is dropped or the key moves to a newer
-- one.
-- Lock order: the key's row of run_key first of all; a rival with the same key waits for it, at most 5 s.

create or replace function perdure._is_gone(run_id uuid)
returns boolean
language plpgsql
volatile
as $$
begin
  if exists (select from perdure.run as r where r.run_id = _is_gone.run_id) then
    return false;
  end if;
  perform perdure._check_snapshot(array[_is_gone.run_id]);
  -- start_many takes its keys before it makes the runs: those are not gone, but to come
  return _is_gone.run_id < (select (c.detail ->> 'to')::uuid from perdure.chore as c where c.name = 'dropped');
end;
$$;
comment on function perdure._is_gone(uuid) is 'Tell whether the run that a key names was dropped with its period.
Raises 40001 where an older snapshot cannot tell.';

create or replace function perdure._holder_of(workflow text, key text, is_to_move boolean)
returns perdure.run_key
language plpgsql
volatile
as $$
declare
  v_key perdure.run_key;
begin
  if not _holder_of.is_to_move then
    select k.* into v_key from perdure.run_key as k
    where k.workflow = _holder_of.workflow and k.key = _holder_of.key;
    if not coalesce(perdure._is_gone(v_key.run_id), false) then
      return v_key;
    end if;
  end if;
  select k.* into v_key from perdure.run_key as k  -- one caller at a time
  where k.workflow = _holder_of.workflow and k.key = _holder_of.key
  for update;
  return v_key;
end;
$$;
comment on function perdure._holder_of(text, text, boolean) is
'Find the row of a key; locked where the key may move to a new run: as the caller says, or because its run is gone.
Returns nulls where it was freed meanwhile.';

create or replace function perdure._take_key(
  workflow text,
  key text,
  fingerprint bytea,
  run_id uuid,
  on_duplicate text,
  out taken_by uuid,
  out is_new boolean,
  out predecessor_id uuid
)
language plpgsql
volatile
as $$
declare
  v_key perdure.run_key;
  v_status pg_catalog.text;
begin
  loop
    insert into perdure.run_key as k (workflow, key, run_id, fingerprint)
    values (_take_key.workflow, _take_key.key, _take_key.run_id, _take_key.fingerprint)
    on conflict on constraint run_key_pkey do nothing;
    if found then
      taken_by := _take_key.run_id;
      is_new := true;
      return;
    end if;
    v_key := perdure._holder_of(
      _take_key.workflow, _take_key.key, _take_key.on_duplicate not in ('attach', 'error'));
    exit when v_key.run_id is not null;  -- else the key of a run that is gone was freed in between
  end loop;
  select o.status into v_status from perdure.outcome as o where o.run_id = v_key.run_id;
  if not found and perdure._is_gone(v_key.run_id) then
    v_status := 'gone';
  elsif _take_key.on_duplicate = 'error' then
    raise exception 'key "%" of workflow "%" is taken', _take_key.key, _take_key.workflow
      using errcode = 'PD005',  -- key_conflict
            detail = format('Run %s holds it; it is %s.', v_key.run_id, coalesce(v_status, 'unfinished')),
            hint = 'Pass another key, or on_duplicate => ''attach'' to get that run.';
  end if;

  if v_status = 'gone'
    or _take_key.on_duplicate = 'replace'
    or (_take_key.on_duplicate = 'restart_if_finished' and v_status is not null)
    or (_take_key.on_duplicate = 'restart_if_failed' and v_status in ('failed', 'dead')) then
    update perdure.run_key as k set run_id = _take_key.run_id, fingerprint = _take_key.fingerprint
    where k.workflow = _take_key.workflow and k.key = _take_key.key;
    taken_by := _take_key.run_id;
    is_new := true;
    predecessor_id := perdure._unfinished_predecessor(v_key.run_id);
    return;
  end if;

  if v_key.fingerprint <> _take_key.fingerprint then
    raise exception 'key "%" of workflow "%" was used with another input', _take_key.key, _take_key.workflow
      using errcode = 'PD005',  -- key_conflict
            detail = format('Run %s has input fingerprint %s, this input has %s.', v_key.run_id,
              encode(v_key.fingerprint, 'hex'), encode(_take_key.fingerprint, 'hex')),
            hint = 'Pass the same input, another key, or another on_duplicate.';
  end if;
  taken_by := v_key.run_id;
  is_new := false;
end;
$$;
comment on function perdure._take_key(text, text, bytea, uuid, text) is
'Give a key to a new run, or find the run that holds it, by the rule of on_duplicate; one whose run is gone is free.
Returns the run that holds the key now, whether it is the new one, and the unfinished run that it replaces.
Raises PD005. Locks the row of run_key; waits for a rival''s open transaction.';

create or replace function perdure.find_run(workflow text, key text)
returns uuid
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  v_key record;
begin
  select k.run_id, exists (select from perdure.run as r where r.run_id = k.run_id) as is_there into v_key
  from perdure.run_key as k
  where k.workflow = find_run.workflow collate "C" and k.key = find_run.key collate "C";
  -- the caller's statement may be older than the lock that it waited for, and the run have moved meanwhile
  if v_key.is_there or not coalesce(perdure._is_gone(v_key.run_id), true) then
    return v_key.run_id;
  end if;
  return null;
end;
$$;
comment on function perdure.find_run(text, text) is
'Find the run that a key of a workflow names.
Returns its id, or null where no run has the key. Raises 40001 where an older snapshot cannot tell. Locks nothing.';
