-- Invariant: the privileges of a role are those of its rows in role_grant, and no others; what a
-- kind may do is the matrix in grants.sql.
-- Lock order: role_grant, then the catalog rows of what is granted.

create or replace function perdure._grant_kind(
  role name,
  kind text
)
returns void
language plpgsql
volatile
as $$
declare
  v_routine pg_catalog.regprocedure;
  v_view pg_catalog.regclass;
begin
  execute format('grant usage on schema perdure to %I', _grant_kind.role);
  for v_routine in
    select p.oid::regprocedure
    from perdure._permissions() as m
    join pg_proc as p on p.proname = m.name and p.pronamespace = 'perdure'::regnamespace
    where _grant_kind.kind = any (m.kinds)
    order by p.proname
  loop
    execute format('grant execute on routine %s to %I', v_routine, _grant_kind.role);
  end loop;
  for v_view in
    select c.oid::regclass
    from perdure._permissions() as m
    join pg_class as c
      on c.relname = m.name and c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v'
    where _grant_kind.kind = any (m.kinds)
    order by c.relname
  loop
    execute format('grant select on %s to %I', v_view, _grant_kind.role);
  end loop;
end;
$$;

comment on function perdure._grant_kind(name, text) is
'Give a role everything that the matrix has for a kind.
Locks the catalog rows of the functions and views until the transaction ends.';

create or replace function perdure._revoke_all(role name default null)
returns void
language plpgsql
volatile
as $$
declare
  v_statement pg_catalog.text;
begin
  for v_statement in
    with held as (
      select 'routine ' || p.oid::regprocedure::text as object, a.grantee
      from pg_proc as p
      cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
      where p.pronamespace = 'perdure'::regnamespace and a.grantee <> p.proowner
      union
      select
        case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass::text,
        a.grantee
      from pg_class as c
      cross join aclexplode(c.relacl) as a
      where c.relnamespace = 'perdure'::regnamespace and a.grantee <> c.relowner
      union  -- a revoke from the table takes its columns' too
      select 'table ' || c.oid::regclass::text, a.grantee
      from pg_class as c
      join pg_attribute as t on t.attrelid = c.oid
      cross join aclexplode(t.attacl) as a
      where c.relnamespace = 'perdure'::regnamespace and a.grantee <> c.relowner
      union
      -- by default PUBLIC may use a type, so also a table's row: in tables of its own, which then hold up a change of ours
      select 'type ' || t.oid::regtype::text, a.grantee
      from pg_type as t
      cross join aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) as a
      where t.typnamespace = 'perdure'::regnamespace and t.typelem = 0 and a.grantee <> t.typowner
      union
      select 'schema ' || n.oid::regnamespace::text, a.grantee
      from pg_namespace as n
      cross join aclexplode(n.nspacl) as a
      where n.oid = 'perdure'::regnamespace and a.grantee <> n.nspowner
    )
    select format('revoke all on %s from %s cascade', h.object, coalesce(quote_ident(r.rolname), 'public'))
    from held as h
    left join pg_roles as r on r.oid = h.grantee
    where _revoke_all.role is null or r.rolname = _revoke_all.role
  loop
    execute v_statement;
  end loop;
end;
$$;

comment on function perdure._revoke_all(name) is
'Take every privilege in the schema from a role, or from everyone but the owner.
Locks the catalog rows of what was granted until the transaction ends.';

create or replace function perdure._apply_matrix()
returns void
language plpgsql
volatile
as $$
declare
  v_grant pg_catalog.record;
begin
  perform perdure._revoke_all();
  for v_grant in
    select g.role_name, g.kind
    from perdure.role_grant as g
    join pg_roles as r on r.rolname = g.role_name
    order by g.role_name, g.kind
  loop
    perform perdure._grant_kind(v_grant.role_name, v_grant.kind);
  end loop;
end;
$$;

comment on function perdure._apply_matrix() is
'Make the privileges in the schema those of role_grant, and no others.
Locks the catalog rows of the functions and views until the transaction ends.';

create or replace function perdure._check_kind(kind text)
returns void
language plpgsql
immutable
as $$
begin
  if _check_kind.kind is null
     or _check_kind.kind not in ('client', 'worker', 'observer', 'admin') then
    raise exception 'kind of role "%" is unknown', _check_kind.kind
      using errcode = '22023',
            hint = 'Use client, worker, observer or admin.';
  end if;
end;
$$;

comment on function perdure._check_kind(text) is
'Refuse a kind of role that does not exist.
Raises 22023.';

create or replace function perdure._forget_namesakes(role name default null)
returns void
language plpgsql
volatile
as $$
declare
  v_gone pg_catalog.record;
begin
  for v_gone in
    delete from perdure.role_grant as g
    where (_forget_namesakes.role is null or g.role_name = _forget_namesakes.role)
      and exists (select from pg_roles as r where r.rolname = g.role_name)
      and not exists (
        select from pg_namespace as n
        cross join aclexplode(n.nspacl) as a
        join pg_roles as r on r.oid = a.grantee
        where n.oid = 'perdure'::regnamespace and r.rolname = g.role_name
      )
    returning g.role_name, g.kind
  loop
    raise warning 'role "%" is not the one that was made a %: it gets nothing', v_gone.role_name, v_gone.kind
      using detail = 'That one was dropped or renamed, or its rights here were revoked by hand.',
            hint = format('If it is to have them: select perdure.grant_role(%L, %L);', v_gone.role_name, v_gone.kind);
  end loop;
end;
$$;

comment on function perdure._forget_namesakes(name) is
'Forget what was granted to a role whose name another one has by now, which holds nothing in this schema.
With null all such. Warns of each.';

create or replace function perdure.grant_role(
  role name,
  kind text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
begin
  perform perdure._check_caller_of_copy();
  perform perdure._check_kind(grant_role.kind collate "C");
  if grant_role.role is null
     or not exists (select from pg_roles as r where r.rolname = grant_role.role) then
    raise exception 'role "%" does not exist', grant_role.role
      using errcode = '42704',
            hint = 'Create the role first.';
  end if;

  -- one after the other: of two who change the privileges of one function at once the second fails (XX000)
  lock table perdure.role_grant in share row exclusive mode;
  perform perdure._forget_namesakes(grant_role.role);
  insert into perdure.role_grant as g (role_name, kind, granted_at, granted_by)
  values (grant_role.role, grant_role.kind, perdure._now(), perdure._caller())
  on conflict on constraint role_grant_pkey do nothing;
  perform perdure._grant_kind(grant_role.role, grant_role.kind collate "C");
  perform perdure._audit('grant_role', null, null,
    jsonb_build_object('role', grant_role.role, 'kind', grant_role.kind));
end;
$$;

comment on function perdure.grant_role(name, text) is
'Let a role use this installation as client, worker, observer or admin.
A role may have several kinds; upgrades keep them. Needs no CREATEROLE. It is audited each time. Returns nothing.
Raises 22023 for an unknown kind, 42704 for an unknown role, 55P03 after 5 s behind an open transaction that changes
grants too. Locks the table role_grant against others who do, and the catalog rows of the functions and views until the transaction ends.';

create or replace function perdure.revoke_role(
  role name,
  kind text
)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_kind text;
begin
  perform perdure._check_caller_of_copy();
  perform perdure._check_kind(revoke_role.kind collate "C");
  if revoke_role.role is null then
    raise exception 'a role must be named'
      using errcode = '22023',
            hint = 'See the table role_grant for the roles that have a kind.';
  end if;
  lock table perdure.role_grant in share row exclusive mode;  -- as grant_role does
  delete from perdure.role_grant as g
  where g.role_name = revoke_role.role and g.kind = revoke_role.kind collate "C";
  perform perdure._forget_namesakes(revoke_role.role);

  perform perdure._revoke_all(revoke_role.role);
  for v_kind in
    select g.kind
    from perdure.role_grant as g
    join pg_roles as r on r.rolname = g.role_name
    where g.role_name = revoke_role.role
    order by g.kind
    for share of g  -- an older snapshot would see a kind that was taken meanwhile, and give it back: 40001
  loop
    perform perdure._grant_kind(revoke_role.role, v_kind);
  end loop;
  perform perdure._audit('revoke_role', null, null,
    jsonb_build_object('role', revoke_role.role, 'kind', revoke_role.kind));
end;
$$;

comment on function perdure.revoke_role(name, text) is
'Take back what grant_role gave; the role keeps its other kinds.
A role that was dropped or never had the kind is no error. It is audited each time. Returns nothing.
Raises 22023 for an unknown kind, 55P03 as grant_role does, 40001 where somebody took a kind after the caller''s snapshot.
Locks the table role_grant against others who change it, and the catalog rows of the functions and views until the transaction ends.';
