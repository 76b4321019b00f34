-- What this installation is, and whom it was opened to. One row in install, always.

create table perdure.install (
  is_installed boolean not null default true,
  version text not null,
  installed_at timestamptz not null default pg_catalog.transaction_timestamp(),
  installed_by name not null default session_user,
  system_identifier bigint not null,
  database_id oid not null,
  database_name name not null,
  table_id oid not null,
  held_at timestamptz,
  held_by name,
  hold_reason text,
  ended_reason text,
  ended_server_at timestamptz,
  constraint install_pkey primary key (is_installed),
  constraint install_has_one_row check (is_installed),
  constraint install_hold_has_a_time_and_a_reason check ((held_at is null) = (hold_reason is null))
);

comment on table perdure.install is 'This installation: its version and the database it was made in.';
comment on column perdure.install.is_installed is 'Always true: the key that keeps the table at one row.';
comment on column perdure.install.version is 'Version that the tables have.';
comment on column perdure.install.installed_at is 'When it was installed.';
comment on column perdure.install.installed_by is 'Role that was logged in.';
comment on column perdure.install.system_identifier is
'Identity of the cluster, as initdb made it: at install, or when this database was adopted.';
comment on column perdure.install.database_id is 'OID of the database at that time; another one in a copy.';
comment on column perdure.install.database_name is 'Name of the database at that time; it may be renamed.';
comment on column perdure.install.table_id is 'OID of this table at that time; another one where a dump was restored.';
comment on column perdure.install.held_at is 'Since when the install is on hold; null while it is not.';
comment on column perdure.install.held_by is 'Role that asked for the hold, or whose session noted it.';
comment on column perdure.install.hold_reason is 'Why it is on hold.';
comment on column perdure.install.ended_reason is
'Reason of the hold that was ended last: sessions that began under a setting with these words still show it.';
comment on column perdure.install.ended_server_at is 'When the server of that time had started; such sessions end with it.';

create table perdure.role_grant (
  role_name name not null,
  kind text collate "C" not null,
  granted_at timestamptz not null default pg_catalog.transaction_timestamp(),
  granted_by name not null default session_user,
  constraint role_grant_pkey primary key (role_name, kind),
  constraint role_grant_kind_is_known check (kind in ('client', 'worker', 'observer', 'admin'))
);

comment on table perdure.role_grant is
'Roles that may use this installation; grants.sql gives each its part of the matrix again.';
comment on column perdure.role_grant.role_name is 'The role.';
comment on column perdure.role_grant.kind is 'What it may do: client, worker, observer or admin.';
comment on column perdure.role_grant.granted_at is 'Since when.';
comment on column perdure.role_grant.granted_by is 'Who gave it.';

-- open.sql made the roles, or found that it may not.
insert into perdure.role_grant (role_name, kind)
select 'perdure' || '_' || k.kind, k.kind
from unnest(array['client', 'worker', 'observer', 'admin']) as k (kind)
where current_setting('perdure.install_makes_roles') = 'on';
