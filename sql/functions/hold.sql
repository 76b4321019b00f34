-- Invariant: on hold nothing begins that could have an effect outside: claim_runs gives nothing, nobody is declared
-- dead, told or ended. What was under way is recorded, what clients ask is kept. Held is a database that is not the one
-- of the install (a restored dump, CREATE DATABASE ... TEMPLATE, pg_upgrade), one whose setting perdure.hold says so,
-- and one that hold() was called for. A physical copy has the identity of its original, like a standby that takes over:
-- for it there is the setting, which works before anybody can connect. adopt() alone ends a hold.
-- The setting is a switch against accidents: a worker that sets it for itself is held alone until it ticks, then all
-- are; one that empties it for itself is held from the next tick or registration of anybody else on.
-- Lock order: install, then worker (for update, 5 seconds at most), then dispatch by run_id without waiting.
-- A claim takes no lock here, it reads: one that looked before a hold was committed may still bring runs, and their
-- worker hears of the hold at its next beat. Nobody who holds a worker's row ever waits for that of the install.

create or replace function perdure._hold()
returns text
language plpgsql
volatile
as $$
begin
  return (select h.reason from perdure.holds as h);
end;
$$;
comment on function perdure._hold() is 'Tell why the install is on hold; null while it is not. Locks nothing.';

create or replace function perdure._hold_setting()
returns text
language plpgsql
stable
as $$
begin
  -- from the catalog, for a session may have begun before it, or may have set something else for itself
  return (
    select substr(c.line, strpos(c.line, '=') + 1)
    from pg_db_role_setting as s
    cross join unnest(s.setconfig) as c (line)
    where s.setrole = 0
      and s.setdatabase in (0, (select d.oid from pg_database as d where d.datname = current_database()))
      and lower(split_part(c.line, '=', 1)) = 'perdure.hold'
      and c.line <> split_part(c.line, '=', 1) || '='
    limit 1
  );
end;
$$;
comment on function perdure._hold_setting() is
'Tell what ALTER DATABASE ... SET perdure.hold says; null where it says nothing. Locks nothing.';

create or replace function perdure._check_caller_of_copy()
returns void
language plpgsql
volatile
as $$
declare
  v_caller constant pg_catalog.name := perdure._caller()::pg_catalog.name;
begin
  if exists (select from perdure.holds as h where h.is_copy)
    and not pg_has_role(v_caller, current_user, 'member')
    and not exists (
      select
      from perdure.role_grant as g
      inner join pg_roles as r on r.rolname = g.role_name
      where g.kind = 'admin' and pg_has_role(v_caller, r.oid, 'member')
    ) then
    raise exception 'role "%" may not do this in a copy that nobody has adopted', v_caller
      using errcode = '42501',
            hint = 'Let its owner, or an admin on record, look at it and call perdure.adopt().';
  end if;
end;
$$;
comment on function perdure._check_caller_of_copy() is
'Refuse strangers in a copy that nobody has adopted.
A dump restored without privileges leaves each function to everybody, and what they do here would last. Raises 42501.';

create or replace function perdure._check_owner_of_copy()
returns void
language plpgsql
volatile
as $$
begin
  if exists (select from perdure.holds as h where h.is_copy)
    and (select r.rolsuper from pg_roles as r where r.rolname = current_user) then
    raise exception 'the functions of this copy belong to the superuser "%"', current_user
      using errcode = '55000',
            detail = 'They would run as superuser for everyone who may call them.',
            hint = 'Restore the dump with a plain owner: pg_restore --no-owner --role=perdure_owner.';
  end if;
end;
$$;
comment on function perdure._check_owner_of_copy() is
'Refuse a copy whose functions a superuser owns, as install does: so it is after a restore with --no-owner. Raises 55000.';

create or replace function perdure._put_hold(reason text, now timestamptz)
returns void
language plpgsql
volatile
as $$
declare
  v_by constant pg_catalog.name := perdure._caller()::pg_catalog.name;
begin
  update perdure.install as i
  set held_at = coalesce(i.held_at, _put_hold.now), held_by = v_by, hold_reason = _put_hold.reason
  where i.is_installed;
  perform perdure._audit('hold', null, _put_hold.reason);
end;
$$;
comment on function perdure._put_hold(text, timestamptz) is 'Put the install, whose row the caller holds, on hold.';

create or replace function perdure._note_hold(now timestamptz)
returns text
language plpgsql
volatile
as $$
declare
  v_reason constant pg_catalog.text := coalesce(perdure._hold(), perdure._hold_setting());
begin
  if v_reason is null or exists (select from perdure.install as i where i.held_at is not null) then
    return v_reason;
  end if;
  perform from perdure.install as i where i.is_installed and i.held_at is null for no key update skip locked;
  if found then  -- else somebody else notes it, or ends it
    perform perdure._put_hold(v_reason, _note_hold.now);
  end if;
  return v_reason;
end;
$$;
comment on function perdure._note_hold(timestamptz) is
'Put the install on hold for everybody where this database or a setting says so. Returns the reason; null without one.
Locks the row of the install without waiting.';

create or replace function perdure._write_identity()
returns void
language sql
volatile
as $$
  update perdure.install as i
  set
    system_identifier = n.system_identifier,
    database_id = n.database_id,
    database_name = n.database_name,
    table_id = i.tableoid
  from (
    select c.system_identifier, d.oid as database_id, d.datname as database_name
    from pg_control_system() as c
    cross join pg_database as d
    where d.datname = current_database()
    offset 0
  ) as n
  where i.is_installed
$$;
comment on function perdure._write_identity() is 'Note this database as the one of the install.';

create or replace function perdure.hold(reason text)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_reason text;
begin
  perform perdure._check_caller_of_copy();
  if coalesce(btrim(hold.reason, e' \t\r\n'), '') = '' or length(hold.reason) > 10000 then
    raise exception 'a hold needs a reason of 10,000 characters at most'
      using errcode = '22023',
            hint = 'Say why, for whoever looks at it tonight: select perdure.hold(''restored from backup'');';
  end if;
  select i.hold_reason into v_reason from perdure.install as i where i.is_installed for no key update;
  if v_reason is distinct from hold.reason collate "C" then
    perform perdure._put_hold(hold.reason, perdure._now());
  end if;
end;
$$;
comment on function perdure.hold(text) is
'Put the install on hold: from the commit on no claim brings a run, and nobody is declared dead, told or ended.
Live workers hear of it at their next beat, begin no further step and give their runs back as soon as those in flight are
saved; claims under way at that moment may still bring runs, which they give back too. Clients may go on to start and
signal. To be called before workers come back to a database restored in place; at_risk() lists what to look at. For a
server that was restored as files set perdure.hold to a reason in postgresql.conf, or with ALTER DATABASE, before it
starts: that works before anybody can connect. What a setting said counts once: after adopt() set other words, or
restart the server. hold() again with another reason: the reason is replaced.
Returns nothing. Raises 22023 without a reason, 42501 for a stranger in a copy, 55P03 after 5 s behind an open hold or
adoption. Locks the row of the install.';

create or replace function perdure._check_no_hold_setting()
returns void
language plpgsql
volatile
as $$
declare
  v_setting constant pg_catalog.text := coalesce(
    perdure._hold_setting(), nullif(current_setting('perdure.hold', true), ''));
begin
  if v_setting is not null then
    raise exception 'the setting perdure.hold still holds the install'
      using errcode = 'PD004',  -- held
            detail = format('It is "%s".', v_setting),
            hint = format('Take it out of postgresql.conf and reload, or: alter database %I reset perdure.hold; then'
                          ' connect again, and adopt.', current_database());
  end if;
end;
$$;
comment on function perdure._check_no_hold_setting() is 'Refuse while a setting says that the install is on hold. Raises PD004.';

create or replace function perdure._forget_past_workers(is_copy boolean, now timestamptz)
returns integer
language plpgsql
volatile
as $$
declare
  v_gone pg_catalog.uuid[];
  v_released integer := 0;
  v_count integer;
begin
  select array_agg(l.worker_id) into v_gone
  from (
    select w.worker_id
    from perdure.worker as w
    where _forget_past_workers.is_copy or w.registered_at < perdure._server_started_at()
    order by w.worker_id
    for update
  ) as l;
  for v_round in 1..50 loop
    update perdure.dispatch as d
    set worker_id = null, ready_at = _forget_past_workers.now, told_at = null
    where d.run_id in (
      select h.run_id from perdure.dispatch as h
      where h.worker_id = any(v_gone) or (_forget_past_workers.is_copy and h.worker_id is not null)
      order by h.run_id
      for update skip locked
    );
    get diagnostics v_count = row_count;
    v_released := v_released + v_count;
    exit when not exists (
      select from perdure.dispatch as h
      where h.worker_id = any(v_gone) or (_forget_past_workers.is_copy and h.worker_id is not null));
    if v_round = 50 then  -- to leave them behind would count as deaths
      raise exception 'runs of past workers are locked by an open transaction'
        using errcode = '55P03', hint = 'Nothing was changed. Try again.';
    end if;
    perform pg_sleep(0.02);
  end loop;
  delete from perdure.worker as w where w.worker_id = any(v_gone);
  delete from perdure.worker_beat as b  -- as stop_worker does
  where b.worker_id in (
    select o.worker_id from perdure.worker_beat as o where o.worker_id = any(v_gone) for update skip locked);
  return v_released;
end;
$$;
comment on function perdure._forget_past_workers(boolean, timestamptz) is
'Forget workers of another life: of a copy all, else those from before the server''s start.
Their runs go back to ready, which counts as no death. Returns how many runs those were. Raises 55P03. Locks the workers'' rows, then their runs.';

create or replace function perdure.adopt(reason text default null)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_now constant timestamptz := perdure._now();
  v_server_at constant timestamptz := pg_postmaster_start_time();
  v_old perdure.install;
  v_is_copy boolean;
  v_released integer;
begin
  perform perdure._check_caller_of_copy();
  perform perdure._check_owner_of_copy();
  perform perdure._check_no_hold_setting();
  select i.* into strict v_old from perdure.install as i where i.is_installed for no key update;
  if perdure._hold() is null then
    return;
  end if;
  v_is_copy := (select h.is_copy from perdure.holds as h);
  perform perdure._write_identity();
  v_released := perdure._forget_past_workers(v_is_copy, v_now);
  if v_is_copy then
    delete from perdure.timeline;  -- those of another cluster say nothing about this one's
    perform perdure._forget_namesakes();  -- as an upgrade does
    perform perdure._apply_matrix();  -- a dump without privileges leaves each function to everybody
  end if;
  insert into perdure.timeline as t (timeline, since, calm_since, watched_since)
  values (perdure._timeline(), v_now, v_now, v_now)
  on conflict on constraint timeline_pkey do update set calm_since = excluded.calm_since;
  update perdure.install as i
  set held_at = null, held_by = null, hold_reason = null, ended_reason = v_old.hold_reason, ended_server_at = v_server_at
  where i.is_installed;
  perform perdure._audit('adopt', null, adopt.reason, jsonb_build_object(
    'held_at', v_old.held_at, 'hold_reason', v_old.hold_reason, 'is_copy', v_is_copy, 'released', v_released,
    'database_name', v_old.database_name, 'database_id', v_old.database_id,
    'system_identifier', v_old.system_identifier, 'table_id', v_old.table_id));
end;
$$;
comment on function perdure.adopt(text) is
'Go on with this database: end its hold, and note it as the one of the install.
Of a copy (another cluster or database, a restored dump) all workers are forgotten, of a database restored in place those
that registered before the server was started: what they held goes back to ready without counting as a death, and who
still is one of them must register anew. The rights of a copy become those of its roles again; a dump without
privileges left them none. Deaths are declared again after the grace of a restart. Call it when nobody else
goes on with the original, and look at at_risk() before. Returns nothing, and does nothing where there is no hold.
Raises PD004 while the setting perdure.hold is there, 42501 for a stranger in a copy and 55000 for one whose functions a
superuser owns, 55P03 where an open transaction of a worker is in the way for 5 s.
Locks the row of the install, the workers'' rows, and their runs without waiting.';
