-- Invariant: nothing but _now() reads a clock. Tests replace it; a release cannot.
-- Whatever somebody else than the owner may call, a view or a procedure included, has its search_path pinned. What the
-- owner alone may call runs inside such a function, and neither sets the path again, which costs more than what most of
-- them do, nor trusts it where a type is read for a whole session: the locals of PL/pgSQL name theirs with the schema.

create or replace function perdure._now()
returns timestamptz
language sql  -- without a SET clause: so it is inlined
volatile
parallel restricted
as $$ select pg_catalog.clock_timestamp() $$;
comment on function perdure._now() is 'Tell the time, the engine''s only clock.';

create or replace function perdure._clock()
returns timestamptz
language plpgsql
stable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
  return perdure._now();
end;
$$;
comment on function perdure._clock() is
'Tell the time to a view.
Read as (select perdure._clock()) it is one time for a whole statement and, being stable, leaves the planner free.';

create or replace function perdure._server_started_at()
returns timestamptz
language plpgsql
stable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_postmaster_start_time();
end;
$$;
comment on function perdure._server_started_at() is 'Tell when the server was started.';

create or replace function perdure._sessions_since()
returns timestamptz
language plpgsql
stable
parallel restricted
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Where a backend was killed the postmaster lives on, ends all sessions and recovers; it tells nobody when. But it
  -- forgets its statistics, these two at the same moment; who resets one of them by hand leaves the other.
  return greatest(
    perdure._server_started_at(),
    least(pg_stat_get_bgwriter_stat_reset_time(), (select a.stats_reset from pg_stat_get_archiver() as a)));
end;
$$;
comment on function perdure._sessions_since() is
'Tell when the server last put an end to all sessions: by its start, or after the crash of one.
Right after it nobody is declared dead. A reset of all shared statistics looks the same.';

create or replace function perdure._timeline()
returns integer
language plpgsql
volatile
parallel restricted
as $$
begin
  return ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
end;
$$;
comment on function perdure._timeline() is 'Tell the timeline of the write-ahead log; it changes with a failover.';
