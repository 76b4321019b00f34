-- Invariant: what is listed is read in one snapshot. Both functions are for whoever restores: one for the database that
-- goes on, the other for the one that was lost, where it can still be read. They read all tables and lock nothing.

create or replace function perdure.at_risk(since timestamptz default null, until timestamptz default null)
returns table (
  run_id uuid,
  workflow text,
  key text,
  risk text,
  worker text,
  claimed_at timestamptz,
  ready_at timestamptz,
  last_step text,
  last_saved_at timestamptz
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    d.run_id, d.workflow, r.key,
    case
      when d.worker_id is not null then 'running'
      when d.ready_at <= u.until then 'due'
      else 'told'
    end as risk,
    w.name, d.claimed_at, nullif(d.ready_at, 'infinity'), s.key, s.saved_at
  from perdure.dispatch as d
  inner join perdure.run as r on r.run_id = d.run_id
  cross join (
    select coalesce(at_risk.until, (select h.held_at from perdure.holds as h where not h.is_copy), perdure._clock()) as until
  ) as u
  left join perdure.worker as w on w.worker_id = d.worker_id
  left join lateral (
    select o.key, o.saved_at from perdure.step as o where o.run_id = d.run_id order by o.ordinal desc limit 1
  ) as s on true
  where r.created_at <= coalesce(at_risk.since, 'infinity')
    and (
      d.worker_id is not null
      or (
        not d.is_paused
        and (d.ready_at <= u.until or d.predecessor_id is not null or d.waits @? '$[*] ? (@.kind == "signal")')
      )
    )
  order by
    d.worker_id is null, d.ready_at > u.until, coalesce(s.saved_at, d.claimed_at, r.created_at) desc, d.run_id
$$;
comment on function perdure.at_risk(timestamptz, timestamptz) is
'List unfinished runs that may have gone on elsewhere after the point to which this database was restored.
Their effects outside may have happened and are not on record here: look at them before adopt(), which hands them on.
since is the restore point, by default all that is recorded counts as before it; until is when the other database stopped,
by default the beginning of the hold, and in a copy now, for its original may live on. risk: running (a worker held it: a
step may have been under way, begun after the last one on record), due (a worker may have taken it), told (only if a
message or the end of another run came meanwhile). Runs that were paused, or asleep beyond until, are not listed: only an
act of somebody could have woken them. ready_at is null where it waits until it is told. last_step is the last on record.
Ordered by risk, the latest first. What was started after the restore point is not in here at all: see
recorded_since() in the database that was lost. Locks nothing.';

create or replace function perdure.recorded_since(since timestamptz)
returns table (
  at timestamptz,
  what text,
  run_id uuid,
  workflow text,
  run_key text,
  key text,
  detail jsonb
)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select h.at, h.what, h.run_id, r.workflow, r.key, h.key, h.detail
  from perdure.history as h
  inner join perdure.run as r on r.run_id = h.run_id
  where h.at >= recorded_since.since
  order by h.at, h.run_id, h.what
$$;
comment on function perdure.recorded_since(timestamptz) is
'List what was recorded from a time on, as the view history tells it: runs started, steps saved, signals sent, runs ended.
For the database that was lost, with the restore point of the one that goes on: these steps had their effects, and the
restored database does not know. key is that of the step or signal. A step counts from when its result was there, before its
commit by as long as its worker could not save: pass a time as much earlier. Without payloads; reads all tables, locks nothing.';
