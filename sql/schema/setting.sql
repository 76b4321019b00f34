-- Invariant: a setting has a row from the day of install; put_setting changes its value and nothing else.

create table perdure.setting (
  name text collate "C" not null,
  value jsonb not null,
  description text not null,
  constraint setting_pkey primary key (name)
);

comment on table perdure.setting is 'What an operator can set for the whole install.';
comment on column perdure.setting.name is 'Name of the setting.';
comment on column perdure.setting.value is 'Its value.';
comment on column perdure.setting.description is 'What it does, with its unit.';

insert into perdure.setting (name, value, description) values
('payload_soft_limit', '1048576', 'Bytes of an input, payload or result above which a warning is raised.'),
('payload_hard_limit', '16777216', 'Bytes of an input, payload or result above which it is refused (PD010).'),
('retention', '"7 days"', 'How long completed runs are kept at least; a queue may have its own.'),
('failed_retention', '"30 days"', 'How long other ended runs are kept at least; a queue may have its own.'),
('partition_period', '"7 days"', 'How long a partition is, 1 day to 1 year; a third of retention where longer.'),
('notify', '"auto"', 'Whether work tells a worker that waits. auto: unless transactions can be prepared.'),
('allow_unknown_names', 'false', 'Whether start accepts workflows and queues that nobody has registered.');

create table perdure.timeline (
  timeline integer not null,
  since timestamptz not null,
  calm_since timestamptz not null,
  watched_since timestamptz not null,
  ticked_at timestamptz,
  reached_at timestamptz,
  constraint timeline_pkey primary key (timeline)
);

comment on table perdure.timeline is
'Timelines of the server that the engine has seen: after a failover nobody is declared dead for some seconds.';
comment on column perdure.timeline.timeline is 'Timeline of the write-ahead log.';
comment on column perdure.timeline.since is 'When the engine saw it first.';
comment on column perdure.timeline.calm_since is
'When the engine saw the server''s last start first: for some seconds after it nobody is declared dead.';
comment on column perdure.timeline.watched_since is
'Since when somebody has ticked without a longer pause: a silence that nobody watched is no death.';
comment on column perdure.timeline.ticked_at is
'When somebody looked for deaths last, as each tick does: it tells whether anybody does the housekeeping.';
comment on column perdure.timeline.reached_at is
'Up to where the clock had come before it was set back; null once no ready run stands in line there any more.';

create table perdure.audit (
  audit_id uuid not null,
  act text not null,
  run_id uuid,
  reason text,
  detail jsonb not null default '{}',
  done_by text not null,
  done_at timestamptz not null,
  constraint audit_pkey primary key (audit_id)
);

comment on table perdure.audit is 'Who asked for what, and what was removed by it.';
comment on column perdure.audit.audit_id is 'UUIDv7.';
comment on column perdure.audit.act is 'What was done.';
comment on column perdure.audit.run_id is 'Run that it concerned; null for acts on the install.';
comment on column perdure.audit.reason is 'Why, in the words of who asked.';
comment on column perdure.audit.detail is 'What was removed or changed.';
comment on column perdure.audit.done_by is 'Role that did it.';
comment on column perdure.audit.done_at is 'When.';

create index audit_run_idx on perdure.audit (run_id);
comment on index perdure.audit_run_idx is 'history: what was done to a run.';

create index audit_retry_idx on perdure.audit (run_id)
where act = 'retry';
comment on index perdure.audit_retry_idx is 'rotate: how often runs of a period came back to life.';
