-- Invariant: every queue has a row here, the known ones and those that runs are in.

create or replace view perdure.queues as
with counted as (
  select
    u.queue,
    u.state,
    count(*) as runs,
    min(u.ready_at) as ready_at
  from perdure._unfinished as u
  group by u.queue, u.state
),

pivoted as (
  select
    n.queue,
    sum(n.runs) filter (where n.state = 'scheduled') as scheduled,
    sum(n.runs) filter (where n.state = 'ready') as ready,
    sum(n.runs) filter (where n.state = 'running') as running,
    sum(n.runs) filter (where n.state = 'sleeping') as sleeping,
    sum(n.runs) filter (where n.state = 'waiting') as waiting,
    sum(n.runs) filter (where n.state = 'backing_off') as backing_off,
    sum(n.runs) filter (where n.state = 'paused') as paused,
    sum(n.runs) filter (where n.state = 'cancelling') as cancelling,
    min(n.ready_at) filter (where n.state = 'ready') as oldest_ready_at
  from counted as n
  group by n.queue
)

select
  coalesce(q.name, c.queue) as name,
  (
    select count(*)
    from perdure.workers as w
    where w.is_alive and coalesce(q.name, c.queue) = any(w.queues)
  ) as workers,
  coalesce(c.scheduled, 0)::bigint as scheduled,
  coalesce(c.ready, 0)::bigint as ready,
  coalesce(c.running, 0)::bigint as running,
  coalesce(c.sleeping, 0)::bigint as sleeping,
  coalesce(c.waiting, 0)::bigint as waiting,
  coalesce(c.backing_off, 0)::bigint as backing_off,
  coalesce(c.paused, 0)::bigint as paused,
  coalesce(c.cancelling, 0)::bigint as cancelling,
  c.oldest_ready_at,
  case
    when isfinite(c.oldest_ready_at) then (select perdure._clock()) - c.oldest_ready_at
  end as oldest_ready_age,
  q.retention,
  q.failed_retention
from perdure.queue as q
full join pivoted as c on q.name = c.queue;

comment on view perdure.queues is
'Queues, with their unfinished runs counted by state: it reads each of these, about a second for a million.';
comment on column perdure.queues.name is 'The queue.';
comment on column perdure.queues.workers is 'Live workers that take from it.';
comment on column perdure.queues.scheduled is 'Runs that are to begin later.';
comment on column perdure.queues.ready is 'Runs that a worker may take now.';
comment on column perdure.queues.running is 'Runs that a worker holds.';
comment on column perdure.queues.sleeping is 'Runs that wait for a time.';
comment on column perdure.queues.waiting is 'Runs that wait for a message.';
comment on column perdure.queues.backing_off is 'Runs that wait to try a step, or themselves, again.';
comment on column perdure.queues.paused is 'Runs that are paused.';
comment on column perdure.queues.cancelling is 'Runs that were told to end and that no worker holds.';
comment on column perdure.queues.oldest_ready_at is 'Since when the first of the ready runs is ready.';
comment on column perdure.queues.oldest_ready_age is 'How long that is.';
comment on column perdure.queues.retention is 'How long its completed runs are kept; null: as the setting retention says.';
comment on column perdure.queues.failed_retention is
'How long its runs that ended otherwise are kept; null: the longer of retention and the setting failed_retention.';
