-- Invariant: a row while the install is on hold, none while it is not. A hold that was noted in the install's row is
-- there for everybody; one that only this database's identity or this session's setting tells of is there all the same.

create or replace view perdure.holds as
select
  h.reason,
  h.held_at,
  h.held_by,
  h.is_copy
from (
  select
    case
      when i.held_at is not null then i.hold_reason
      when i.is_copy
        then 'this is not the database that was installed: it is a restored dump, a copy, or a cluster after pg_upgrade'
      when i.ended_reason = current_setting('perdure.hold', true) and i.ended_server_at = pg_postmaster_start_time()
        then null  -- a session that began before adopt() shows what its database's setting was
      else nullif(current_setting('perdure.hold', true), '')
    end as reason,
    i.held_at,
    i.held_by,
    i.is_copy
  from (
    select
      n.*,
      n.table_id <> n.tableoid
      or n.system_identifier <> (pg_control_system()).system_identifier
      or coalesce(
        n.database_id <> (
          select d.oid
          from pg_database as d
          where d.datname = current_database()
        ), true
      ) as is_copy
    from perdure.install as n
    where n.is_installed
    -- asked once: the server reads its identity from a file
    offset 0  -- noqa: AM09
  ) as i
) as h
where h.reason is not null;

comment on view perdure.holds is
'Why the install is on hold: one row, or none while it is not. On hold workers are given no runs and nobody does the
housekeeping; what is recorded, started and sent is kept. adopt() ends it.';
comment on column perdure.holds.reason is
'What hold() was told, what the setting perdure.hold says, or that this is another database than at install.';
comment on column perdure.holds.held_at is 'Since when; null until somebody ticks or registers, who notes it for everybody.';
comment on column perdure.holds.held_by is 'Role that asked for it, or whose session noted it.';
comment on column perdure.holds.is_copy is 'Whether this is another database than at install, which nobody has adopted yet.';
