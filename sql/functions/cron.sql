-- Invariant: a job of pg_cron only ticks, which anybody may do at any time. Invokers, because a job belongs to the
-- login role that scheduled it: a job of a role without login fails for ever.
-- Job names contain schema and database: one pg_cron serves all databases of its server.

create or replace procedure perdure.run_ticks(
  max_seconds integer default 58,
  every interval default '1 second'
)
language plpgsql
as $$
-- It commits, so it has no SET clause and is not a definer, and meets every caller's search_path.
-- The wall clock, not _now(): what is measured here is how long this call lasts.
declare
  v_timeout_ms double precision;
  v_next pg_catalog.timestamptz := pg_catalog.clock_timestamp();
  v_end pg_catalog.timestamptz;
begin
  if run_ticks.max_seconds is null or run_ticks.every is null
     or run_ticks.every operator(pg_catalog.<=) '0'::pg_catalog.interval
     or run_ticks.every operator(pg_catalog.>) '1 day'::pg_catalog.interval then
    raise exception 'run_ticks needs max_seconds, and every between 0 and 1 day'
      using errcode = '22023', hint = 'Leave them out for a tick each second, for 58 seconds.';
  end if;
  commit;  -- the caller's default may be an isolation in which tick refuses to work
  set transaction isolation level read committed;
  select s.setting::pg_catalog.float8 into v_timeout_ms from pg_catalog.pg_settings as s
  where s.name operator(pg_catalog.=) 'statement_timeout';
  v_end := v_next operator(pg_catalog.+) pg_catalog.make_interval(secs => case
    when v_timeout_ms operator(pg_catalog.>) 0.0::pg_catalog.float8
      then least(run_ticks.max_seconds::pg_catalog.float8,
                 v_timeout_ms operator(pg_catalog.*) 0.0008::pg_catalog.float8)
    else run_ticks.max_seconds::pg_catalog.float8
  end);

  loop
    begin
      perform perdure.tick();
    exception
      when undefined_function or invalid_schema_name then  -- uninstalled meanwhile
        raise warning 'there is no perdure.tick any more: %', sqlerrm;
        exit;
      when others then  -- one bad round must not cost the rest of the minute; where there is no rest it is told as it is
        if run_ticks.max_seconds operator(pg_catalog.<=) 0::pg_catalog.int4 then
          raise;
        end if;
        raise warning 'tick failed with %: %', sqlstate, sqlerrm;
    end;
    commit;
    set transaction isolation level read committed;
    begin
      perform perdure.truncate_wake();
    exception
      when undefined_function or invalid_schema_name then
        exit;
    end;
    commit;
    set transaction isolation level read committed;
    begin
      perform perdure.rotate();
    exception
      when undefined_function or invalid_schema_name then
        exit;
      when others then
        if run_ticks.max_seconds operator(pg_catalog.<=) 0::pg_catalog.int4 then
          raise;
        end if;
        raise warning 'rotate failed with %: %', sqlstate, sqlerrm;
    end;
    commit;
    set transaction isolation level read committed;
    v_next := greatest(
      v_next operator(pg_catalog.+) run_ticks.every, pg_catalog.clock_timestamp());
    exit when v_next operator(pg_catalog.>=) v_end;
    perform pg_catalog.pg_sleep(extract(
      epoch from v_next operator(pg_catalog.-) pg_catalog.clock_timestamp()));
  end loop;
end;
$$;

comment on procedure perdure.run_ticks(integer, interval) is  -- noqa: LT01
'Call tick, truncate_wake and rotate again and again, committing each, for max_seconds; with 0 once.
Works whatever default_transaction_isolation is. Ends earlier where statement_timeout would cut it off; a tick that
fails is a warning, not the end, unless it is the only one. Raises 22023 for a null, an interval that is not above 0 or is
longer than a day, 2D000 inside a transaction block. Locks what they lock.';

create or replace function perdure._cron_jobs(every interval)
returns table (
  job_name text,
  schedule text,
  command text,
  slow_schedule text,
  slow_command text
)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  with name as (
    select
      'perdure.tick@' || current_database() as tick,
      'perdure.purge@' || current_database() as purge,
      extract(epoch from _cron_jobs.every) as seconds
  )
  select
    n.tick,
    case
      when n.seconds >= 3600 then '0 * * * *'
      when n.seconds >= 60 then format('*/%s * * * *', least(round(n.seconds / 60), 59))
      else trim_scale(n.seconds) || ' seconds'  -- fractions are refused, and so loop
    end,
    'call perdure.run_ticks(0)',  -- sets its isolation itself, whatever the default of the job's role
    '* * * * *',  -- pg_cron before 1.5 knows no seconds: a job a minute that loops inside
    format('call perdure.run_ticks(58, %L)', _cron_jobs.every)
  from name as n
  union all
  select
    n.purge,
    '17 * * * *',
    format(
      'delete from cron.job_run_details as d using cron.job as j'
      ' where j.jobid = d.jobid and j.jobname in (%L, %L)'
      ' and coalesce(d.end_time, d.start_time) < now() - interval ''1 day''', n.tick, n.purge),
    null,
    null
  from name as n
$$;

comment on function perdure._cron_jobs(interval) is
'List the jobs that keep an installation ticking, each with a slower form for a pg_cron without seconds.
Returns the tick, and the purge of both jobs'' own log, which pg_cron keeps for ever.';

create or replace function perdure._cron_home()
returns name
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return current_setting('cron.database_name', true)::name;
exception
  when insufficient_privilege then  -- loaded, but only a superuser may see where it lives
    return ''::name;
end;
$$;

comment on function perdure._cron_home() is
'Find the database that pg_cron lives in.
Returns null where pg_cron is not loaded, and an empty name where the caller may not know.';

create or replace function perdure._cron_schedule(
  job_name text,
  schedule text,
  command text
)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  execute 'select cron.schedule($1, $2, $3)'
    using _cron_schedule.job_name, _cron_schedule.schedule, _cron_schedule.command;
  return true;
exception
  when invalid_parameter_value then  -- how a pg_cron before 1.5 answers a schedule in seconds
    return false;
end;
$$;

comment on function perdure._cron_schedule(text, text, text) is
'Make or replace a job of the calling role.
Returns false where this pg_cron does not understand the schedule.';

create or replace function perdure._cron_advice(every interval)
returns text
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_home constant name := perdure._cron_home();
begin
  if v_home is null then
    return 'pg_cron is not loaded on this server, so nothing was scheduled. A live worker does the'
      ' same work. Where none may be alive, run this each minute from cron or a systemd timer:'
      ' psql -c "call perdure.run_ticks()" ' || quote_ident(current_database());
  end if;
  if v_home = current_database() then
    return 'pg_cron is loaded but not created in this database, so nothing was scheduled. As a'
      ' superuser: create extension pg_cron; then call perdure.enable_cron() again.';
  end if;
  return (
    select
      'pg_cron lives in '
      || case v_home when '' then 'another database' else format('database "%s"', v_home) end
      || ', so nothing was scheduled. Run there, as a superuser:' || e'\n'
      || string_agg(
        case
          when j.slow_command is null
            then format('select cron.schedule(%L, %L, %L);', j.job_name, j.schedule, j.command)
          else format(
            'select cron.schedule_in_database(%L, %L, %L, %L, %L);',
            j.job_name, j.slow_schedule, j.slow_command, current_database(), current_user)
        end, e'\n')
    from perdure._cron_jobs(_cron_advice.every) as j
  );
end;
$$;

comment on function perdure._cron_advice(interval) is
'Say what to do where pg_cron is not in this database.
Returns sentences, or the statements to run where pg_cron is.';

create or replace function perdure.enable_cron(
  every interval default '1 second',
  runners integer default 0
)
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job record;
  v_done text[] := array[]::text[];
begin
  if enable_cron.runners > 0 then
    raise exception 'there are no SQL workflows to run yet'
      using errcode = '0A000',
            detail = 'This version runs workflows in workers only.',
            hint = 'Leave the argument runners away.';
  end if;
  if enable_cron.every is null
     or enable_cron.every not between interval '0.1 seconds' and interval '1 hour' then
    raise exception 'cannot tick every %', coalesce(enable_cron.every::text, 'null')
      using errcode = '22023',
            hint = 'Pass an interval between 0.1 seconds and 1 hour.';
  end if;
  if not (select r.rolcanlogin from pg_roles as r where r.rolname = current_user) then
    raise exception 'role "%" may not log in, so its jobs would fail for ever', current_user
      using errcode = '55000',
            hint = 'Call enable_cron as a role that may log in (reset role), with the kind admin.';
  end if;
  if not exists (select from pg_extension as e where e.extname = 'pg_cron') then
    return perdure._cron_advice(enable_cron.every);
  end if;
  if not has_schema_privilege('cron', 'usage') then
    raise exception 'role "%" may not use pg_cron', current_user
      using errcode = '42501',
            hint = format('Ask a superuser for: grant usage on schema cron to %I;', current_user);
  end if;

  for v_job in select * from perdure._cron_jobs(enable_cron.every) loop
    if perdure._cron_schedule(v_job.job_name, v_job.schedule, v_job.command) then
      v_done := v_done || format('%s (%s)', v_job.job_name, v_job.schedule);
    else
      perform perdure._cron_schedule(v_job.job_name, v_job.slow_schedule, v_job.slow_command);
      v_done := v_done || format(
        '%s (each minute, and inside it every %s)', v_job.job_name, enable_cron.every);
    end if;
  end loop;
  return format('pg_cron runs as role "%s": %s', current_user, array_to_string(v_done, ', '));
end;
$$;

comment on function perdure.enable_cron(interval, integer) is
'Have pg_cron tick, and purge the log of its own jobs; again with other values replaces the jobs.
The jobs belong to the calling role, which must be allowed to log in and to use schema cron.
Returns what was scheduled; where pg_cron is in another database, the statements to run there;
without pg_cron, what to do instead.
Raises 22023 for an interval outside 0.1 seconds to 1 hour, 0A000 for runners, 42501 and 55000
for a role that cannot have jobs.
Locks its rows of cron.job.';

create or replace function perdure.disable_cron()
returns text
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_names constant text[] := array(select j.job_name from perdure._cron_jobs('1 second') as j);
  v_job record;
  v_gone text[] := array[]::text[];
begin
  if not exists (select from pg_extension as e where e.extname = 'pg_cron') then
    if perdure._cron_home() is null then
      return 'pg_cron is not loaded on this server, so no job was removed.';
    end if;
    return format(
      'pg_cron lives in another database, so no job was removed. Run there, as a superuser:%s'
      'select cron.unschedule(j.jobid) from cron.job as j where j.jobname in (%L, %L);',
      e'\n', v_names[1], v_names[2]);
  end if;

  -- A role sees and removes its own jobs only, a superuser everyone's.
  for v_job in
    execute 'select j.jobid, j.jobname, j.username from cron.job as j'
            ' where j.jobname = any ($1) order by j.jobid' using v_names
  loop
    execute 'delete from cron.job_run_details as d where d.jobid = $1' using v_job.jobid;
    execute 'select cron.unschedule($1)' using v_job.jobid;
    v_gone := v_gone || format('%s of role "%s"', v_job.jobname, v_job.username);
  end loop;
  if v_gone = '{}' then
    return format('role "%s" has no jobs of this installation', current_user);
  end if;
  return 'removed ' || array_to_string(v_gone, ', ');
end;
$$;

comment on function perdure.disable_cron() is
'Remove the jobs that enable_cron made, and their log.
A role removes its own jobs, a superuser everyone''s.
Returns what was removed, or the statement to run where pg_cron is.
Locks the rows of cron.job that it removes.';
