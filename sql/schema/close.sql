-- Closes the installation: notes what it is and on which timeline; the transaction goes on as whoever opened it.

insert into perdure.install (version, system_identifier, database_id, database_name, table_id)
select perdure.version(), c.system_identifier, d.oid, d.datname, 'perdure.install'::regclass
from pg_control_system() as c
cross join pg_database as d
where d.datname = current_database();

insert into perdure.timeline (timeline, since, calm_since)
values (perdure._timeline(), perdure._now(), perdure._now());

do $$
begin
  perform
    pg_catalog.set_config('role', pg_catalog.current_setting('perdure.install_role'), true),
    pg_catalog.set_config('search_path', pg_catalog.current_setting('perdure.install_path'), true);
end;
$$;
