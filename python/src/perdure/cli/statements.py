"""All the SQL of the command line: calls of public functions in named notation, and reads of public views.

For doctor and dev also what is beside Perdure: the server, its catalog, pg_cron, a database to be made. `{perdure}` stands for the schema. Nothing here is for the engine's tables, which nobody may read.
"""

from __future__ import annotations

# talk to runs: role client

START = """
select {perdure}.start(
  workflow => %(workflow)s, input => %(input)s::jsonb, key => %(key)s, on_duplicate => %(on_duplicate)s,
  queue => %(queue)s, priority => %(priority)s, delay => %(delay)s::interval, timeout => %(timeout)s::interval,
  tags => %(tags)s::jsonb)
"""
AWAIT = "call {perdure}.await(run_id => %(run_id)s, timeout => %(timeout)s::interval, result => null)"
SIGNAL = """
select {perdure}.signal(
  run_id => %(run_id)s, name => %(name)s, payload => %(payload)s::jsonb, id => %(id)s)
"""
SIGNAL_KEY = """
select {perdure}.signal_key(
  workflow => %(workflow)s, key => %(key)s, name => %(name)s, payload => %(payload)s::jsonb, id => %(id)s,
  start_input => %(start_input)s::jsonb)
"""
CANCEL = """
select a.run_id, a.answer
from {perdure}.cancel_many(run_ids => %(run_ids)s, reason => %(reason)s, grace => %(grace)s::interval) as a
"""

# operate: role admin

TERMINATE = "select a.run_id, a.answer from {perdure}.terminate_many(run_ids => %(run_ids)s, reason => %(reason)s) as a"
PAUSE = "select a.run_id, a.answer from {perdure}.pause_many(run_ids => %(run_ids)s, reason => %(reason)s) as a"
RESUME = "select a.run_id, a.answer from {perdure}.resume_many(run_ids => %(run_ids)s, reason => %(reason)s) as a"
RETRY = "select a.run_id, a.answer from {perdure}.retry_many(run_ids => %(run_ids)s, reason => %(reason)s) as a"
RETRY_FROM = "select {perdure}.retry(run_id => %(run_id)s, from_step => %(from_step)s, reason => %(reason)s)"
HOLD = "select {perdure}.hold(reason => %(reason)s)"
ADOPT = "select {perdure}.adopt(reason => %(reason)s)"
AT_RISK = "select count(*), count(*) filter (where r.risk = 'running') from {perdure}.at_risk() as r"
HOLDS = "select h.reason, h.held_at, h.held_by::text from {perdure}.holds as h"

# look: role observer

RUNS_BY_PREFIX = "select r.run_id from {perdure}.runs as r where r.run_id between %(lowest)s and %(highest)s limit 4"
EXPLAIN = "select e.line from {perdure}.explain(run_id => %(run_id)s) as e (line)"
FIND_RUN = "select {perdure}.find_run(workflow => %(workflow)s, key => %(key)s)"
WORKFLOW_NAMES = "select w.name from {perdure}.workflows as w order by w.name"
QUEUE_NAMES = "select q.name from {perdure}.queues as q order by q.name"
STATES = """
select a.state, a.answer = 'finished' as is_ended
from {perdure}.act_rules as a
where a.act = 'terminate'
order by a.state
"""
RUNS = """
select r.run_id, r.workflow, r.state, r.key, r.queue, r.created_at, r.finished_at
from {perdure}.runs as r
where (%(states)s::text[] is null or r.state = any(%(states)s::text[]))
  and (%(workflow)s::text is null or r.workflow = %(workflow)s)
  and (%(queue)s::text is null or r.queue = %(queue)s)
  and (%(key)s::text is null or r.key = %(key)s)
  and (%(tags)s::jsonb is null or r.tags @> %(tags)s::jsonb)
  and (%(before)s::uuid is null or r.run_id < %(before)s)
  and (%(since)s::interval is null or r.run_id >= rpad(lpad(to_hex(  -- the smallest UUIDv7 of that time
    (extract(epoch from now() - %(since)s::interval) * 1000)::bigint), 12, '0'), 32, '0')::uuid)
  -- what follows from the states, said so that nothing else is read: see the comment of the view
  and (not %(ended)s::boolean or r.finished_at is not null)
  and (not %(unfinished)s::boolean or r.finished_at is null)
  and (not %(running)s::boolean or r.worker_id is not null)
order by r.run_id desc
limit %(limit)s
"""

# keep the engine going: role worker

VERSION = "select {perdure}.version()"
TICK = "call {perdure}.run_ticks(0)"
CREATE_DEV_DATABASE = "create database perdure"

# one run, as `show` draws it: role observer

SHOW_RUN = """
select
  r.run_id, r.workflow, r.key, r.state, r.queue, r.tags, r.created_at, r.created_by,
  b.start_at, r.finished_at, greatest(r.created_at, b.start_at) + r.duration as seen_at, r.worker_id, r.worker, r.recoveries, r.pause_reason,
  nullif(r.deadline, 'infinity') as deadline, r.grace_ends_at, r.last_error, r.input, r.result, r.error
from {perdure}.runs as r
cross join lateral (  -- Python has no other times
  select case when r.start_at between '1900-01-01' and '9999-01-01' then r.start_at end as start_at
) as b
where r.run_id = %(run_id)s
"""
SHOW_STEPS = """
select s.ordinal, s.key, s.kind, s.state, s.name, s.error, s.attempts, s.retry_at, s.started_at, s.saved_at
from {perdure}.steps as s
where s.run_id = %(run_id)s
order by s.ordinal nulls last, s.started_at, s.key
"""
SHOW_WAITS = """
select w.key, w.kind, w.name, nullif(w.until, 'infinity') as until, w.is_due
from {perdure}.waits as w
where w.run_id = %(run_id)s
order by w.key
"""
SHOW_HISTORY = """
select h.at, h.what, h.key, (h.detail ->> 'started_at')::timestamptz as started_at, h.detail
from {perdure}.history as h
where h.run_id = %(run_id)s
order by h.at, h.what like '%%answered', h.what  -- a worker's own act is asked and answered at once
"""
SHOW_SIGNALS = """
select s.id, s.name, s.payload, s.sent_at, s.sent_by, s.consumed_by
from {perdure}.signals as s
where s.run_id = %(run_id)s
order by s.sent_at, s.id
"""
SHOW_ACTIVITY = """
select a.activity ->> 'key' as key, (a.activity ->> 'since')::timestamptz as since, a.activity -> 'progress' as progress
from {perdure}.workers as w
cross join jsonb_array_elements(w.activity) as a (activity)
where w.worker_id = %(worker_id)s and a.activity ->> 'run_id' = %(run_id)s::text
"""

# what doctor looks at: the server first, which needs no right; then the installation, role observer

SERVER = """
select
  current_setting('server_version'), current_setting('server_version_num')::integer, pg_is_in_recovery(),
  pg_backend_pid(), current_setting('default_transaction_isolation'),
  current_setting('default_transaction_read_only')::boolean
"""
RIGHTS = """
select k.kind
from (values ('client', 'start'), ('worker', 'register_worker'), ('observer', 'explain'), ('admin', 'terminate'))
  as k (kind, function)
join pg_proc as p on p.proname = k.function and p.pronamespace = %(schema)s::regnamespace
where has_function_privilege(p.oid, 'execute') and has_schema_privilege(p.pronamespace, 'usage')
order by k.kind
"""
WORKERS = """
select
  w.name, w.is_alive, coalesce(w.beat_age, interval '0') as beat_age, w.lease, w.runs, w.disagreements, w.queues
from {perdure}.workers as w
order by w.name
"""
UNTAKEN = """
select q.name, q.runs, q.workflows
from (
  select
    q.name, q.scheduled + q.sleeping + q.waiting + q.backing_off + q.paused + q.cancelling as runs,
    array(select w.name from {perdure}.workflows as w where w.queue = q.name order by w.name) as workflows
  from {perdure}.queues as q
  where q.workers = 0 and q.ready + q.running = 0  -- those are stuck
) as q
where q.runs > 0 or cardinality(q.workflows) > 0
order by q.name
"""
NOTIFY = """
select s.value #>> '{{}}', current_setting('max_prepared_transactions')::integer, pg_notification_queue_usage()
from {perdure}.settings as s
where s.name = 'notify'
"""
STUCK = """
select
  k.reason, sum(k.runs)::bigint, max(k.age), array_agg(distinct k.queue), array_agg(distinct k.workflow),
  (array_agg(k.run_id order by k.since, k.run_id))[1]
from (  -- few, however many runs: only these are sorted
  select
    s.reason, s.queue, s.workflow, count(*) as runs, max(s.age) as age, min(s.since) as since,
    min(s.run_id::text)::uuid as run_id
  from {perdure}.stuck as s
  group by s.reason, s.queue, s.workflow
) as k
group by k.reason
order by k.reason
"""
LIMIT_TIME = "select set_config('statement_timeout', (%(seconds)s * 1000)::integer::text, true)"
BROKEN = """
select v.invariant, count(*), (array_agg(v.run_id))[1], min(v.detail)
from {perdure}.violations as v
group by v.invariant
order by v.invariant
"""
TICKS = """
select m.name, m.value
from {perdure}.metrics as m
where m.name in ('perdure_undrained_wakes', 'perdure_oldest_wake_age_seconds', 'perdure_last_tick_age_seconds')
"""
PERIODS = """
select
  m.name,
  make_interval(secs => m.value),
  (select p.waits from {perdure}.periods as p where p.waits is not null limit 1),
  (select count(*) from {perdure}.periods)
from {perdure}.metrics as m
where m.name in ('perdure_retention_overdue_seconds', 'perdure_last_period_age_seconds')
"""
FAILOVER = """
select m.labels ->> 'timeline', make_interval(secs => m.value)
from {perdure}.metrics as m
where m.name = 'perdure_failover_age_seconds'
"""
CRON_PLACE = """
select
  exists (select from pg_extension as e where e.extname = 'pg_cron') as is_here,
  coalesce((select has_schema_privilege(n.oid, 'usage') from pg_namespace as n where n.nspname = 'cron'), false) as may_use
"""
CRON_HOME = "select current_setting('cron.database_name', true)"
CRON_JOB = """
select
  j.schedule, j.active, j.username,
  l.status, l.return_message, clock_timestamp() - l.start_time as age,
  (
    select count(*) from cron.job_run_details as f
    where f.jobid = j.jobid and f.status = 'failed' and f.start_time > clock_timestamp() - interval '1 hour'
  ) as failures
from cron.job as j
left join lateral (
  select d.status, d.return_message, d.start_time
  from cron.job_run_details as d
  where d.jobid = j.jobid and d.start_time is not null
  order by d.runid desc
  limit 1
) as l on true
where j.jobname = %(name)s
order by j.jobid
"""
