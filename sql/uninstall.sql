-- Uninstalls Perdure, its data included, in one transaction, its own or the caller's.
-- Refuses while objects of others depend on the schema, unless perdure.force is on.
-- Lock order: cron.job, then everything in the schema, then the roles.

do $$
begin
  -- First the caller's path away, which could hold types and operators of anybody's.
  perform
    pg_catalog.set_config('perdure.install_path', pg_catalog.current_setting('search_path'), true),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  perform set_config('perdure.install_transaction', txid_current()::text, true);
end;
$$;

do $$
declare
  v_messages constant text := current_setting('client_min_messages');
  v_lock_timeout constant text := current_setting('lock_timeout');
  v_quotes constant text := current_setting('quote_all_identifiers');
  v_jobs constant text[] := array[
    'perdure.tick@' || current_database(), 'perdure.purge@' || current_database()];
  v_cron_home name;
  v_owner name;
  v_others text;
  v_kind text;
  v_job record;
begin
  if coalesce(current_setting('perdure.install_transaction', true), '') <> txid_current()::text then
    raise exception 'Perdure has to be uninstalled in one transaction'
      using errcode = '25P01',
            detail = 'Each statement of this file was committed alone.',
            hint = 'Use psql -1 -v ON_ERROR_STOP=1, or put begin and commit around the file.';
  end if;

  select r.rolname into v_owner
  from pg_namespace as n
  join pg_roles as r on r.oid = n.nspowner
  where n.nspname = 'perdure';
  if not found or not exists (  -- not to_regclass, which wants the right to look into the schema
    select from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = 'perdure' and c.relname = 'install'
  ) then
    raise exception 'Perdure is not installed in schema "%" of database "%"',
      'perdure', current_database()
      using errcode = '3F000',
            hint = 'Name the schema and the database that it was installed in.';
  end if;
  if not pg_has_role(v_owner, 'usage') then
    raise exception 'schema "%" belongs to role "%"', 'perdure', v_owner
      using errcode = '42501',
            detail = format('Role %I may not drop it.', current_user),
            hint = 'Uninstall as its owner or as a superuser.';
  end if;

  -- What CASCADE would take that is not ours: followed from our objects through pg_depend, each
  -- part (rule, trigger, default and so on) told as the object that it belongs to. Ours are known
  -- by their names, which a caller may have had quoted.
  perform set_config('quote_all_identifiers', 'off', true);
  with recursive taken as (
    select 'pg_namespace'::regclass::oid as classid, n.oid as objid, 0 as objsubid
    from pg_namespace as n
    where n.nspname = 'perdure'
    union
    select whole.classid, whole.objid, whole.objsubid
    from taken as t
    join pg_depend as d on d.refclassid = t.classid and d.refobjid = t.objid
      and t.objsubid in (0, d.refobjsubid)
      and d.deptype not in ('e', 'x')
    cross join lateral (
      select d.classid, d.objid, d.objsubid
      union all
      select 'pg_class'::regclass, r.ev_class, 0
      from pg_rewrite as r
      where d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.rulename = '_RETURN'
    ) as whole
  ),
  foreigners as (
    select distinct pg_describe_object(t.classid, t.objid, t.objsubid) as description
    from taken as t
    cross join lateral pg_identify_object(t.classid, t.objid, t.objsubid) as o
    left join pg_rewrite as w on t.classid = 'pg_rewrite'::regclass and w.oid = t.objid
    left join pg_trigger as g on t.classid = 'pg_trigger'::regclass and g.oid = t.objid
    left join pg_constraint as k on t.classid = 'pg_constraint'::regclass and k.oid = t.objid
    left join pg_attrdef as a on t.classid = 'pg_attrdef'::regclass and a.oid = t.objid
    left join pg_policy as p on t.classid = 'pg_policy'::regclass and p.oid = t.objid
    left join pg_class as c
      on c.oid = coalesce(
        w.ev_class, g.tgrelid, nullif(k.conrelid, 0), a.adrelid, p.polrelid,
        case when t.classid = 'pg_class'::regclass then t.objid end)
    left join pg_namespace as n on n.oid = c.relnamespace
    where t.classid not in ('pg_namespace'::regclass, 'pg_default_acl'::regclass)
      and coalesce(w.rulename, '') <> '_RETURN'
      and not coalesce(g.tgisinternal, false)  -- a foreign key's own triggers
      and coalesce(n.nspname, o.schema, '') not in ('perdure', 'pg_toast')
      -- row types and array types go with their origin
      and not (t.classid = 'pg_type'::regclass and exists (
        select from pg_type as y
        where y.oid = t.objid and y.typrelid <> 0 or y.typarray = t.objid))
    union
    -- What others put into the schema itself.
    select pg_describe_object(x.classid, x.objid, 0)
    from (
      select 'pg_class'::regclass as classid, c.oid as objid, c.relowner as owner
      from pg_class as c
      where c.relnamespace = 'perdure'::regnamespace
      union all
      select 'pg_proc'::regclass, p.oid, p.proowner
      from pg_proc as p
      where p.pronamespace = 'perdure'::regnamespace
    ) as x
    where x.owner <> (select n.nspowner from pg_namespace as n where n.nspname = 'perdure')
  )
  select string_agg(f.description, e'\n' order by f.description) into v_others
  from foreigners as f;
  perform set_config('quote_all_identifiers', v_quotes, true);

  if v_others is not null
     and coalesce(current_setting('perdure.force', true), '') not in ('on', '1', 'true') then
    raise exception 'objects of others depend on schema "%"', 'perdure'
      using errcode = '2BP01',
            detail = v_others,
            hint = 'Drop or change them first, or uninstall with force (make uninstall FORCE=1,'
                   ' perdure uninstall --force), which drops them too. Nothing was changed.';
  end if;

  if exists (select from pg_extension as e where e.extname = 'pg_cron')
     and has_schema_privilege('cron', 'usage') then
    for v_job in
      execute 'select j.jobid from cron.job as j where j.jobname = any ($1)'
      using v_jobs
    loop
      execute 'delete from cron.job_run_details as d where d.jobid = $1' using v_job.jobid;
      execute 'select cron.unschedule($1)' using v_job.jobid;
    end loop;
  end if;
  begin
    v_cron_home := current_setting('cron.database_name', true);
  exception
    when insufficient_privilege then
      v_cron_home := '';
  end;
  if v_cron_home <> current_database() then
    raise notice 'pg_cron lives in another database: jobs of this installation stay there'
      using hint = format('If enable_cron had them made, run there: select cron.unschedule(j.jobid)'
                          ' from cron.job as j where j.jobname = any (%L);', v_jobs);
  end if;

  perform
    set_config('lock_timeout', '10s', true),
    set_config('client_min_messages', 'warning', true);  -- not the list of all that CASCADE takes
  begin
    drop schema perdure cascade;
  exception
    when lock_not_available then
      raise exception 'schema "%" is in use', 'perdure'
        using errcode = '55P03',
              detail = 'A transaction held a lock on it for more than 10 seconds. Nothing was changed.',
              hint = 'Stop the workers, end open transactions (pg_stat_activity), then try again.';
  end;
  perform
    set_config('lock_timeout', v_lock_timeout, true),
    set_config('client_min_messages', v_messages, true);

  foreach v_kind in array array['client', 'worker', 'observer', 'admin', 'owner'] loop
    continue when not exists (
      select from pg_roles as r
      where r.rolname = 'perdure' || '_' || v_kind
        and shobj_description(r.oid, 'pg_authid') like 'Made by Perdure %'
    );
    begin
      execute format('drop role %I', 'perdure' || '_' || v_kind);
    exception
      when dependent_objects_still_exist then
        raise notice 'role "%" stays, because other objects depend on it',
          'perdure' || '_' || v_kind;
      when insufficient_privilege then
        raise notice 'role "%" stays, because role "%" may not drop it',
          'perdure' || '_' || v_kind, current_user;
    end;
  end loop;
  perform set_config('search_path', current_setting('perdure.install_path'), true);
end;
$$;
