-- Invariant: what was made known by name is here, whether a worker is alive for it or not.

create or replace view perdure.workflows as
select
  f.name,
  f.queue,
  (
    select count(*)
    from perdure.workers as w
    where w.is_alive and f.queue = any(w.queues) and f.name = any(w.workflows)
  ) as workers,
  f.timeout,
  f.max_recoveries,
  f.registered_at
from perdure.workflow as f;

comment on view perdure.workflows is 'Known workflows, with what their runs get unless a start says otherwise.';
comment on column perdure.workflows.name is 'Name by which runs are started.';
comment on column perdure.workflows.queue is 'Queue of its runs.';
comment on column perdure.workflows.workers is 'Live workers that know it and take from this queue.';
comment on column perdure.workflows.timeout is 'Time-out of its runs, from the first claim; null without one.';
comment on column perdure.workflows.max_recoveries is 'Deaths in a row without progress that its runs survive.';
comment on column perdure.workflows.registered_at is 'When it was registered, or its defaults were changed last.';
