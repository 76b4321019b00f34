-- Invariant: one row per partition of the tables of a run, the oldest first, from the catalog: no table is read.

create or replace view perdure.periods as
select
  'run' || c.suffix as name,
  c.begins_at,
  c.ends_at,
  (
    select sum(pg_total_relation_size(p.oid))::bigint
    from pg_class as p
    inner join pg_inherits as i on i.inhrelid = p.oid
    inner join pg_class as t on t.oid = i.inhparent
    where t.relnamespace = 'perdure'::regnamespace and t.relkind = 'p' and p.relname = t.relname || c.suffix
  ) as bytes,
  case when c.begins is not null then c.ends_at + k.least_kept end as due_at,
  case
    when h.detail ->> 'waits' = c.suffix
      then format('more than 5,000 of its runs are to be kept, since %s', h.detail ->> 'since')
  end as waits
from perdure._cuts as c
cross join (
  select least((select (s.value #>> '{}')::interval from perdure.setting as s where s.name = 'retention'), min(q.retention))
    as least_kept
  from perdure.queue as q
) as k
cross join (select o.detail from perdure.chore as o where o.name = 'periods') as h;

comment on view perdure.periods is
'How the runs that are kept are cut by the time of their start: each period is dropped as a whole.';
comment on column perdure.periods.name is 'Partition of run; those of the other tables are called alike.';
comment on column perdure.periods.begins_at is 'From when on its runs were started; null for what outlived its period.';
comment on column perdure.periods.ends_at is 'Up to when; null for the last one, which is empty until its time comes.';
comment on column perdure.periods.bytes is 'What it takes of the disk, indexes included.';
comment on column perdure.periods.due_at is 'From when on it is to be dropped; null for the first and the last.';
comment on column perdure.periods.waits is 'Why one that is due stays; null otherwise.';
