-- Closes the installation: notes what it is and on which timeline; the transaction goes on as whoever opened it.

do $$
declare
  v_foreign text;
begin
  -- What somebody else has in the schema could take the place of what is called by its name.
  select string_agg(pg_describe_object(o.classid, o.objid, 0), ', ') into v_foreign
  from (
    select 'pg_class'::regclass as classid, c.oid as objid, c.relnamespace as home, c.relowner as owner from pg_class as c
    union all
    select 'pg_proc'::regclass, p.oid, p.pronamespace, p.proowner from pg_proc as p
    union all
    select 'pg_type'::regclass, t.oid, t.typnamespace, t.typowner from pg_type as t
    union all
    select 'pg_operator'::regclass, q.oid, q.oprnamespace, q.oprowner from pg_operator as q
  ) as o
  join pg_namespace as n on n.oid = o.home
  where n.nspname = 'perdure' and o.owner <> n.nspowner;
  if v_foreign is not null then
    raise exception 'somebody else put objects into schema "%"', 'perdure'
      using errcode = '55000',
            detail = v_foreign,
            hint = 'Drop them, let nobody else create there, then install again. Nothing was changed.';
  end if;
end;
$$;

insert into perdure.install (version, system_identifier, database_id, database_name, table_id)
select perdure.version(), c.system_identifier, d.oid, d.datname, 'perdure.install'::regclass
from pg_control_system() as c
cross join pg_database as d
where d.datname = current_database();

insert into perdure.timeline (timeline, since, calm_since, watched_since)
values (perdure._timeline(), perdure._now(), perdure._now(), perdure._now());

do $$
begin
  perform
    pg_catalog.set_config('role', pg_catalog.current_setting('perdure.install_role'), true),
    pg_catalog.set_config('search_path', pg_catalog.current_setting('perdure.install_path'), true);
end;
$$;
