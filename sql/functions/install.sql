-- Invariant: this literal is the version of the functions; the build, the package and the changelog agree with it.

create or replace function perdure.version()
returns text
language sql
immutable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
as $$
  select '0.1.0';
$$;

comment on function perdure.version() is
'Tell the version of the installed functions.
Returns a text such as 0.1.0. Raises nothing. Locks nothing.';
