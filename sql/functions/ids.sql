-- Invariant: ids are UUIDv7 made from _now() on every server version, so that a virtual clock rules them too. Nothing
-- but _random_uuid() makes random ids: a simulation replaces it, and the same seed gives the same run.

create or replace function perdure._random_uuid()
returns uuid
language sql  -- without a SET clause: so it is inlined, and a claim of many runs calls no function for each
volatile
parallel restricted
as $$ select pg_catalog.gen_random_uuid() $$;
comment on function perdure._random_uuid() is 'Make a random uuid: the one source of them. Tests replace it.';

create or replace function perdure._uuid7(at timestamptz default perdure._now())
returns uuid
language sql  -- without a SET clause: so it is inlined
volatile
parallel restricted
as $$
  -- 48 bits of milliseconds, version 7, 12 bits of the fraction of a millisecond; variant 2, 62 random bits. In double
  -- precision, whose functions cost a third of numeric's; microseconds are whole there until the year 2106.
  select (
    overlay(
      pg_catalog.lpad(
        pg_catalog.to_hex((pg_catalog.round(pg_catalog.date_part('epoch', _uuid7.at) * 1000000) * 512 / 125)::bigint),
        15, '0')
      placing '7' from 13 for 0)
    || pg_catalog.substr(perdure._random_uuid()::text, 20)
  )::uuid
$$;
comment on function perdure._uuid7(timestamptz) is 'Make a UUIDv7 of a time, ordered by microsecond.';

create or replace function perdure._caller()
returns text
language sql  -- without a SET clause: so it is inlined
stable
parallel restricted
as $$
  -- current_user is the owner inside a definer function
  select coalesce(nullif(pg_catalog.current_setting('role', true), 'none'), session_user)
$$;
comment on function perdure._caller() is 'Tell who is calling: the role that was set, else the one that logged in.';
