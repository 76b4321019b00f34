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
language plpgsql
volatile
parallel restricted
as $$
declare
  v_micros constant bigint := (extract(epoch from _uuid7.at) * 1000000)::bigint;
begin
  -- 48 bits of milliseconds, version 7, 12 bits of the fraction of a millisecond; variant 2, 62 random bits
  return encode(
    int8send(v_micros / 1000 << 16 | 28672 + v_micros % 1000 * 4096 / 1000)
    || substring(uuid_send(perdure._random_uuid()) from 9),
    'hex')::uuid;
end;
$$;
comment on function perdure._uuid7(timestamptz) is 'Make a UUIDv7 of a time, ordered by microsecond.';

create or replace function perdure._caller()
returns name
language plpgsql
stable
parallel restricted
as $$
begin
  -- current_user is the owner inside a definer function
  return coalesce(nullif(current_setting('role', true), 'none'), session_user)::name;
end;
$$;
comment on function perdure._caller() is 'Tell who is calling: the role that was set, else the one that logged in.';
