-- Invariant: a row of worker is a live worker. It is written once and deleted at death or stop, so that the fence
-- (FOR KEY SHARE on it, first lock of every worker transaction) never meets a heartbeat, which lives in worker_beat.

create table perdure.worker (
  worker_id uuid not null,
  name text collate "C" not null,
  version text,
  queues text[] collate "C" not null,
  workflows text[] collate "C" not null,
  lease interval not null,
  is_direct boolean not null,
  timeline integer not null,
  registered_at timestamptz not null,
  registered_by text not null,
  constraint worker_pkey primary key (worker_id),
  constraint worker_lease_is_between_1_second_and_1_day check (lease between interval '1 second' and interval '1 day')
);

comment on table perdure.worker is 'Live workers: written once, deleted at death or stop.';
comment on column perdure.worker.worker_id is 'Made at registration; a worker that was declared dead registers anew.';
comment on column perdure.worker.name is 'For people: host and process, say.';
comment on column perdure.worker.version is 'Version of the user''s code.';
comment on column perdure.worker.queues is 'Queues that it takes runs from.';
comment on column perdure.worker.workflows is 'Workflows that it knows; it is never given others.';
comment on column perdure.worker.lease is 'How long it counts as alive without a beat.';
comment on column perdure.worker.is_direct is
'It holds an advisory lock on a connection of its own, whose loss tells of its death early; false behind a pooler.';
comment on column perdure.worker.timeline is
'Timeline of the write-ahead log that it registered on: on another one, after a failover or a restore, it changes nothing.';
comment on column perdure.worker.registered_at is 'When it registered.';
comment on column perdure.worker.registered_by is 'Role that registered it.';

create table perdure.worker_beat (
  worker_id uuid not null,
  beat_at timestamptz not null,
  runs_held integer,
  disagreements integer not null default 0,
  activity jsonb not null default '[]',
  constraint worker_beat_pkey primary key (worker_id)
) with (fillfactor = 50);

comment on table perdure.worker_beat is 'Heartbeats: one row per worker, changed each second.';
comment on column perdure.worker_beat.worker_id is 'The worker.';
comment on column perdure.worker_beat.beat_at is 'Its last sign of life, by the database''s clock.';
comment on column perdure.worker_beat.runs_held is 'How many runs the worker says it holds.';
comment on column perdure.worker_beat.disagreements is 'Beats in a row in which that differed from what the database says.';
comment on column perdure.worker_beat.activity is
'Steps that have been running for longer than a beat: array of objects with run_id, key, since, progress.';

create table perdure.workflow (
  name text collate "C" not null,
  queue text collate "C" not null,
  timeout interval,
  max_recoveries integer not null,
  registered_at timestamptz not null,
  constraint workflow_pkey primary key (name)
);

comment on table perdure.workflow is 'Known definitions and their defaults.';
comment on column perdure.workflow.name is 'Name by which runs are started.';
comment on column perdure.workflow.queue is 'Queue of its runs unless start names another.';
comment on column perdure.workflow.timeout is 'Time-out of its runs, from the first claim; null without one.';
comment on column perdure.workflow.max_recoveries is 'Deaths in a row without progress that its runs survive.';
comment on column perdure.workflow.registered_at is 'When it was registered, or its defaults were changed last.';

create table perdure.queue (
  name text collate "C" not null,
  retention interval,
  failed_retention interval,
  created_at timestamptz not null,
  constraint queue_pkey primary key (name)
);

comment on table perdure.queue is 'Known queues.';
comment on column perdure.queue.name is 'Name by which workers take from it.';
comment on column perdure.queue.retention is 'How long completed runs are kept; null: as the setting retention says.';
comment on column perdure.queue.failed_retention is
'How long runs that ended otherwise are kept; null: the longer of retention and the setting failed_retention.';
comment on column perdure.queue.created_at is 'When it was made.';

insert into perdure.queue (name, created_at) values ('default', clock_timestamp());
