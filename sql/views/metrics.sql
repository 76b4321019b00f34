-- Invariant: names and labels are those of Prometheus: gauges, in base units, one row per sample.

create or replace view perdure.metrics as
with counted as (
  select
    u.queue,
    u.state,
    count(*) as runs,
    count(*) filter (where u.recoveries >= 2) as suspects,
    min(u.ready_at) as ready_at
  from perdure._unfinished as u
  group by u.queue, u.state
)

select
  'perdure_runs' as name,
  jsonb_build_object('queue', c.queue, 'state', c.state) as labels,
  c.runs::double precision as value
from counted as c
union all
select
  'perdure_suspect_runs',
  jsonb_build_object('queue', c.queue),
  sum(c.suspects)::double precision
from counted as c
group by c.queue
union all
select
  'perdure_oldest_ready_age_seconds',
  jsonb_build_object('queue', c.queue),
  extract(epoch from (select perdure._clock()) - c.ready_at)::double precision
from counted as c
where c.state = 'ready' and isfinite(c.ready_at)
union all
select
  'perdure_workers',
  jsonb_build_object('version', coalesce(v.version, '')),
  v.workers::double precision
from perdure.versions as v
union all
select
  'perdure_worker_runs',
  jsonb_build_object('worker', w.name, 'worker_id', w.worker_id),
  w.runs::double precision
from perdure.workers as w
union all
select
  'perdure_worker_beat_age_seconds',
  jsonb_build_object('worker', w.name, 'worker_id', w.worker_id),
  extract(epoch from w.beat_age)::double precision
from perdure.workers as w
where w.beat_age is not null
union all
select
  'perdure_last_tick_age_seconds',
  '{}',
  extract(epoch from (select perdure._clock()) - max(t.ticked_at))::double precision
from perdure.timeline as t
having max(t.ticked_at) is not null
union all
select
  'perdure_failover_age_seconds',
  jsonb_build_object('timeline', max(t.timeline)::text),
  extract(epoch from (select perdure._clock()) - max(t.since))::double precision
from perdure.timeline as t
having count(*) > 1
union all
select
  'perdure_held',
  '{}',
  count(*)::double precision
from perdure.holds
union all
select
  'perdure_undrained_wakes',
  '{}',
  count(*)::double precision
from perdure.wake
union all
select
  'perdure_oldest_wake_age_seconds',
  '{}',
  coalesce(extract(epoch from (select perdure._clock()) - min(w.told_at)), 0)::double precision
from perdure.wake as w
union all
select
  'perdure_periods',
  '{}',
  count(*)::double precision
from perdure.periods
union all
select
  'perdure_retention_overdue_seconds',
  '{}',
  greatest(extract(epoch from (select perdure._clock()) - min(p.due_at)), 0)::double precision
from perdure.periods as p
union all
select
  'perdure_last_period_age_seconds',
  '{}',
  greatest(extract(epoch from (select perdure._clock()) - max(p.begins_at)), 0)::double precision
from perdure.periods as p
union all
select
  'perdure_stuck_runs',
  jsonb_build_object('reason', s.reason),
  count(*)::double precision
from perdure.stuck as s
group by s.reason
union all
select
  'perdure_ended_runs_of_last_hour',
  jsonb_build_object('status', o.status),
  count(*)::double precision
from perdure.outcome as o
where o.run_id >= rpad(lpad(to_hex(  -- the smallest UUIDv7 of an hour ago
    -- called as it is: of a subquery's value it would be thought that it asks for a third of all runs
    (extract(epoch from perdure._clock() - interval '1 hour') * 1000)::bigint
  ), 12, '0'), 32, '0')::uuid
group by o.status;

comment on view perdure.metrics is
'Gauges ready to scrape: name, labels and value as Prometheus takes them. What has ended is read for one gauge alone, those
of the last hour; the unfinished runs are counted twice, in about a second for a million: of one gauge, where name = ...';
comment on column perdure.metrics.name is
'perdure_runs (unfinished, by queue and state), perdure_suspect_runs, perdure_oldest_ready_age_seconds,
perdure_workers (alive, by version), perdure_worker_runs, perdure_worker_beat_age_seconds,
perdure_last_tick_age_seconds, perdure_failover_age_seconds (once there was one),
perdure_held (1 on hold, else 0),
perdure_undrained_wakes, perdure_oldest_wake_age_seconds, perdure_stuck_runs (by reason),
perdure_periods (partitions alive), perdure_retention_overdue_seconds (since when the oldest is to be dropped),
perdure_last_period_age_seconds (above 0 where none was made ahead),
perdure_ended_runs_of_last_hour (started within it, by status).';
comment on column perdure.metrics.labels is 'Object of strings.';
comment on column perdure.metrics.value is 'A number: runs, workers or seconds.';
