-- Invariant: alive means that the last beat is no older than the lease. A direct worker may be
-- found dead earlier, by its advisory lock; that is for recover to judge.

create or replace view perdure.workers as
select
  w.worker_id,
  w.name,
  w.version,
  coalesce(b.beat_at >= (select perdure._clock()) - w.lease, false) as is_alive,
  b.beat_at,
  case when isfinite(b.beat_at) then (select perdure._clock()) - b.beat_at end as beat_age,
  w.lease,
  w.queues,
  w.workflows,
  (
    select count(*) from perdure.dispatch as d
    where d.worker_id = w.worker_id
  ) as runs,
  b.runs_held,
  coalesce(b.disagreements, 0) as disagreements,
  coalesce(b.activity, '[]') as activity,
  w.is_direct,
  w.registered_at,
  w.registered_by
from perdure.worker as w
left join perdure.worker_beat as b on w.worker_id = b.worker_id;

comment on view perdure.workers is
'Registered workers. Those that stopped or were declared dead are gone from here.';
comment on column perdure.workers.worker_id is 'The worker; one that was declared dead comes back anew.';
comment on column perdure.workers.name is 'For people: host and process, say.';
comment on column perdure.workers.version is 'Version of the user''s code.';
comment on column perdure.workers.is_alive is
'Whether its last beat is younger than its lease; recover() declares dead those that are not.';
comment on column perdure.workers.beat_at is 'Its last sign of life.';
comment on column perdure.workers.beat_age is 'How long ago that was; about a second is normal.';
comment on column perdure.workers.lease is 'How long it counts as alive without a beat.';
comment on column perdure.workers.queues is 'Queues that it takes runs from.';
comment on column perdure.workers.workflows is 'Workflows that it knows.';
comment on column perdure.workers.runs is 'How many runs it holds, as the database says.';
comment on column perdure.workers.runs_held is 'How many it said in its last beat.';
comment on column perdure.workers.disagreements is
'Beats in a row in which the two differed; a busy worker differs often, an idle one never.';
comment on column perdure.workers.activity is
'Steps running for longer than a beat: array of objects with run_id, key, since, progress.';
comment on column perdure.workers.is_direct is
'Whether its session tells of its death early; false behind a pooler.';
comment on column perdure.workers.registered_at is 'When it registered.';
comment on column perdure.workers.registered_by is 'Role that registered it.';

create or replace view perdure.versions as
select
  w.version,
  count(*) as workers,
  sum(w.runs)::bigint as runs,
  min(w.registered_at) as first_registered_at,
  max(w.registered_at) as last_registered_at
from perdure.workers as w
where w.is_alive
group by w.version;

comment on view perdure.versions is 'Versions of the user''s code that live workers run: a deploy at a glance.';
comment on column perdure.versions.version is 'The version; null for workers that named none.';
comment on column perdure.versions.workers is 'Live workers that run it.';
comment on column perdure.versions.runs is 'Runs that they hold.';
comment on column perdure.versions.first_registered_at is 'When the first of them registered.';
comment on column perdure.versions.last_registered_at is 'When the last of them registered.';
