-- Invariant: one row per partition of the tables of a run, the oldest first, from the catalog: no table is read.

create or replace view perdure.periods as
with size as (
  select
    p.relname,
    t.relname as parent,
    pg_total_relation_size(p.oid) as bytes
  from pg_class as t
  inner join pg_inherits as i on t.oid = i.inhparent
  inner join pg_class as p on i.inhrelid = p.oid
  where t.relnamespace = 'perdure'::regnamespace and t.relkind = 'p'
),

kept as (
  select
    min(k.completed) as span,
    greatest(max(k.completed), max(k.failed)) as failed_span
  from perdure._retentions as k
)

select
  'run' || c.suffix as name,
  c.begins_at,
  c.ends_at,
  (
    select sum(z.bytes)::bigint from size as z
    where z.relname = z.parent || c.suffix
  ) as bytes,
  case
    when c.begins is null then null
    when h.detail ->> 'waits' = c.suffix then c.ends_at + k.span
    when c.ends <= (d.detail ->> 'to')::uuid then c.ends_at + k.failed_span
    else c.ends_at + k.span
  end as due_at,
  case
    when h.detail ->> 'waits' = c.suffix
      then format('more than 3,000 of its runs, or of large ones less, are unfinished, since %s', h.detail ->> 'since')
  end as waits
from perdure._cuts as c
cross join kept as k
left join perdure.chore as h on h.name = 'periods'
left join perdure.chore as d on d.name = 'dropped';

comment on view perdure.periods is
'How the runs that are kept are cut by the time of their start: each period is dropped as a whole, or made anew without what is over.';
comment on column perdure.periods.name is 'Partition of run; those of the other tables are called alike.';
comment on column perdure.periods.begins_at is 'From when on its runs were started; null for what outlived its period.';
comment on column perdure.periods.ends_at is 'Up to when; null for the last one, which is empty until its time comes.';
comment on column perdure.periods.bytes is 'What it takes of the disk, indexes included.';
comment on column perdure.periods.due_at is 'From when on it is to be dropped, or made anew without what is over; null for the first and the last.';
comment on column perdure.periods.waits is 'Why one that is due stays; null otherwise.';
