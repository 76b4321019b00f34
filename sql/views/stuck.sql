-- Invariant: a run in here needs somebody: as things are nobody will take it, or nobody has yet.

create or replace view perdure.stuck with (security_barrier) as
select
  s.run_id,
  s.workflow,
  s.queue,
  s.state,
  s.reason,
  s.since,
  case when isfinite(s.since) then (select perdure._clock()) - s.since end as age
from (
  select
    u.run_id,
    u.workflow,
    u.queue,
    u.state,
    case  -- not by state, which takes longer to find out and is no different here
      when u.worker_id is not null then case when not coalesce(w.is_alive, false) then 'worker_is_silent' end
      when u.is_paused then 'paused'
      when u.ready_at > (select perdure._clock()) then null
      when exists (select from perdure.holds) then 'held'
      when q.queue is null then 'no_worker_takes_the_queue'
      when k.workflow is null then 'no_worker_knows_the_workflow'
      when u.ready_at > (select perdure._clock()) - interval '1 minute' then null
      when u.recoveries >= 2 then 'suspect'
      else 'ready_for_long'
    end as reason,
    case
      when u.worker_id is not null then coalesce(w.beat_at, u.claimed_at)
      when u.is_paused
        then (
          select max(a.applied_at)
          from perdure.act as a
          where a.run_id = u.run_id and a.act = 'pause' and a.answer = 'accepted'
        )
      else u.ready_at
    end as since
  from perdure._unfinished as u
  left join perdure.workers as w on u.worker_id = w.worker_id
  left join (
    select distinct t.queue
    from perdure.workers as l
    cross join lateral unnest(l.queues) as t (queue)
    where l.is_alive
  ) as q on u.queue = q.queue
  left join (
    select distinct t.queue, f.workflow
    from perdure.workers as l
    cross join lateral unnest(l.queues) as t (queue)
    cross join lateral unnest(l.workflows) as f (workflow)
    where l.is_alive
  ) as k on u.queue = k.queue and u.workflow = k.workflow
) as s
where s.reason is not null;

comment on view perdure.stuck is
'Runs that nobody will take as things are, or that nobody has taken for long; explain() says more. It reads the unfinished
runs, about a second for a million, or as many as a limit asks for.';
comment on column perdure.stuck.run_id is 'The run.';
comment on column perdure.stuck.workflow is 'Its workflow.';
comment on column perdure.stuck.queue is 'Its queue.';
comment on column perdure.stuck.state is 'Its state.';
comment on column perdure.stuck.reason is
'paused; held (the install is on hold); no_worker_takes_the_queue; no_worker_knows_the_workflow; worker_is_silent (not declared dead
yet); suspect (its workers died: taken by a worker without another such run); ready_for_long (due for
more than a minute).';
comment on column perdure.stuck.since is 'Since when: the pause, the time it was due, the last beat.';
comment on column perdure.stuck.age is 'How long that is.';
