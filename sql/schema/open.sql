-- Opens the installation: decides who will own it, makes the schema and the roles, and refuses
-- what cannot work. Everything after it runs as the owner until close.sql gives the caller's role
-- and search_path back, because the transaction may be somebody else's (Flyway, Alembic).

do $$
begin
  -- First the caller's path away, which could hold types and operators of anybody's.
  perform
    pg_catalog.set_config('perdure.install_path', pg_catalog.current_setting('search_path'), true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  perform
    set_config('perdure.install_transaction', txid_current()::text, true),
    set_config('perdure.install_role', current_setting('role'), true);
end;
$$;

do $$
declare
  v_server constant int := current_setting('server_version_num')::integer;
  v_is_superuser constant boolean := (
    select r.rolsuper from pg_roles as r where r.rolname = current_user
  );
  v_makes_roles constant boolean := (
    select r.rolsuper or r.rolcreaterole from pg_roles as r where r.rolname = current_user
  );
  v_lock_timeout constant text := current_setting('lock_timeout');
  v_kinds constant text[] := array['client', 'worker', 'observer', 'admin'];
  v_schema_owner name;
  v_members text;
  v_is_installed boolean;
  v_installed text;
  v_kind text;
  v_role record;
begin
  if v_server < 150000 then
    raise exception 'PostgreSQL % is too old for Perdure', current_setting('server_version')
      using errcode = '0A000',
            detail = 'Perdure needs PostgreSQL 15 or later.',
            hint = 'Nothing was installed. Upgrade the server, then install again.';
  end if;

  if current_setting('server_encoding') in ('SQL_ASCII', 'MULE_INTERNAL') then
    raise exception 'Perdure cannot be installed in a database with encoding %', current_setting('server_encoding')
      using errcode = '0A000',
            detail = case current_setting('server_encoding')
              when 'SQL_ASCII' then 'It keeps whatever bytes it is given: a name that one client wrote, others could not read.'
              else 'It has no conversion to UTF8, in which workers read.'
            end,
            hint = 'Nothing was installed. Make the database anew: create database ... encoding ''UTF8'' template template0.';
  end if;

  if coalesce(current_setting('perdure.install_transaction', true), '')
     <> txid_current()::text then
    raise exception 'Perdure has to be installed in one transaction'
      using errcode = '25P01',
            detail = 'Each statement of this file was committed alone.',
            hint = 'Use psql -1 -v ON_ERROR_STOP=1, or put begin and commit around the file.';
  end if;

  -- Two installations at the same time: the second waits here, then sees the first. Anybody can take the lock.
  begin
    perform set_config('lock_timeout', '30s', true);
    perform pg_advisory_xact_lock(hashtextextended('perdure.install', 0));
    perform set_config('lock_timeout', v_lock_timeout, true);
  exception
    when lock_not_available then
      raise exception 'another installation is under way'
        using errcode = '55P03',
              detail = 'Some session has held its advisory lock for 30 seconds. Nothing was changed.',
              hint = 'Find it in pg_locks (locktype advisory) and pg_stat_activity, end it, then install again.';
  end;

  select r.rolname, c.oid is not null into v_schema_owner, v_is_installed
  from pg_namespace as n
  join pg_roles as r on r.oid = n.nspowner
  left join pg_class as c on c.relnamespace = n.oid and c.relname = 'install'
  where n.nspname = 'perdure';

  if v_is_installed then
    begin
      execute 'select i.version from perdure.install as i' into v_installed;
    exception
      when insufficient_privilege then
        v_installed := '(version unknown)';
    end;
    raise exception 'Perdure % is already installed in schema "%" of database "%"',
      v_installed, 'perdure', current_database()
      using errcode = '42P06',
            detail = format('The schema belongs to role %I. Nothing was changed.', v_schema_owner),
            hint = 'To replace it, uninstall it first (perdure uninstall, or make uninstall); to'
                   ' move it to a newer version, run that version''s upgrade; to install beside'
                   ' it, choose another schema.';
  end if;

  if v_schema_owner is null then
    if not has_database_privilege(current_database(), 'CREATE') then
      raise exception 'role "%" may not create a schema in database "%"',
        current_user, current_database()
        using errcode = '42501',
              hint = format(
                'Ask the owner of the database for: grant create on database %I to %I;',
                current_database(), current_user);
    end if;
    execute 'create schema perdure';
  elsif exists (
    select from pg_depend as d
    where d.refclassid = 'pg_namespace'::regclass
      and d.refobjid = (select n.oid from pg_namespace as n where n.nspname = 'perdure')
  ) then
    raise exception 'schema "%" exists already and is not empty', 'perdure'
      using errcode = '42P06',
            detail = 'Perdure wants a schema of its own. Nothing was changed.',
            hint = 'Choose another schema.';
  elsif v_schema_owner <> current_user and not v_is_superuser then
    raise exception 'schema "%" belongs to role "%", not to role "%"',
      'perdure', v_schema_owner, current_user
      using errcode = '42501',
            hint = 'Install as the owner of the schema, or choose another schema.';
  elsif v_is_superuser then
    -- Whoever made it may have let others create in it, and one of them may have done so in a transaction that is
    -- still open: a function there, of the name of one of ours, would be called with the owner's rights.
    execute 'drop schema perdure';
    execute 'create schema perdure';
  end if;

  -- Named in this way, the database's own tablespace is refused for partitioned tables.
  if current_setting('default_tablespace') = (
    select t.spcname
    from pg_tablespace as t
    join pg_database as d on d.dattablespace = t.oid
    where d.datname = current_database()
  ) then
    perform set_config('default_tablespace', '', true);
  end if;

  -- Without the right to make roles, roles of these names may be another team's: left alone.
  if v_makes_roles then
    select string_agg(format('%s of %s', m.rolname, r.rolname), ', ' order by m.rolname, r.rolname) into v_members
    from pg_auth_members as a
    join pg_roles as r on r.oid = a.roleid
    join pg_roles as m on m.oid = a.member
    where r.rolname = any(array(select 'perdure' || '_' || k.kind from unnest(v_kinds || array['owner']) as k (kind)))
      and not m.rolsuper and m.rolname <> current_user;
    if v_members is not null then
      raise notice 'roles of this installation were there before, with members: %', v_members
        using hint = 'They may do here what those roles may, and a member of an owner everything. Revoke what is not meant.';
    end if;
    foreach v_kind in array v_kinds loop
      if not exists (
        select from pg_roles as r where r.rolname = 'perdure' || '_' || v_kind
      ) then
        execute format('create role %I nologin', 'perdure' || '_' || v_kind);
        execute format(
          'comment on role %I is %L', 'perdure' || '_' || v_kind,
          'Made by Perdure for its ' || v_kind || 's.');
      end if;
    end loop;
    perform set_config('perdure.install_makes_roles', 'on', true);
  else
    perform set_config('perdure.install_makes_roles', 'off', true);
    raise notice 'role "%" may not create roles, so % were left out', current_user,
      'perdure_client, perdure_worker, perdure_observer and perdure_admin'
      using hint = 'Give an existing role its rights with:'
                   ' select perdure.grant_role(''my_role'', ''client'');';
  end if;

  -- A superuser's functions would run as superuser for everyone who may call them.
  if v_is_superuser then
    select r.rolcanlogin, r.rolsuper into v_role
    from pg_roles as r
    where r.rolname = 'perdure_owner';
    if not found then
      create role perdure_owner nologin;
      comment on role perdure_owner is 'Made by Perdure to own its schema.';
    elsif v_role.rolcanlogin or v_role.rolsuper then
      raise exception 'role "perdure_owner" exists and may log in or is a superuser'
        using errcode = '55000',
              detail = 'It would own the functions that everyone calls.',
              hint = 'Use: alter role perdure_owner nologin nosuperuser; or choose another schema.';
    end if;
    alter schema perdure owner to perdure_owner;
    set local role perdure_owner;
  end if;
end;
$$;

comment on schema perdure is 'Perdure: durable workflow execution.';
