-- Invariant: empty, always: in each snapshot of a busy database, whatever is under way. What may
-- be so for a moment (a wake that nobody has drained yet) counts only when it lasts too long.
-- Read it in a transaction of its own: an old snapshot looks like an engine that stands still.

create or replace view perdure._invariants as
select
  i.invariant,
  i.meaning
from (
  values
  ('a_run_is_unfinished_or_ended', 'A run has a row in dispatch or in outcome.'),
  ('an_ended_run_is_not_dispatched', 'No run has both.'),
  ('what_is_kept_belongs_to_a_run', 'No row of another table names a run that is not there.'),
  ('a_run_has_options_that_a_start_takes', 'Priority 1 to 5, a deadline or a time-out, objects as tags and headers.'),
  ('a_dispatch_row_agrees_with_its_run', 'What was copied into it is what the run says.'),
  ('a_held_run_has_a_token', 'A run that a worker holds has the token of its claim.'),
  ('a_held_run_waits_for_nothing', 'A run that a worker holds is not suspended.'),
  ('a_cancel_is_a_way_to_end_in_time', 'A cancel says cancelled or timed_out, and when its grace ends.'),
  ('a_key_names_its_run', 'A key names a run that was started with it, or one that was dropped.'),
  ('a_suspended_run_can_be_woken', 'A run that waits without end waits for a message.'),
  ('what_a_run_waits_for_is_known', 'A wait is an object with a time that can be read, or none.'),
  ('a_wait_ends_in_time', 'A suspended run is ready no later than the first of its waits ends.'),
  ('a_message_wakes_its_run', 'A run whose message is there is ready, or has a wake.'),
  ('a_cancel_wakes_its_run', 'A suspended run hears of its cancel at once.'),
  ('an_act_wakes_its_run', 'An act that is not answered has a wake.'),
  ('a_wake_is_drained_soon', 'No wake of an unfinished run is older than a minute.'),
  ('a_deadline_is_kept', 'No run is 5 minutes past its deadline or the end of its grace.'),
  ('a_successor_waits_for_a_run', 'A run that replaces another waits until that one has ended.'),
  ('a_successor_is_freed_soon', 'That one has ended no longer than a minute ago.'),
  ('a_claim_belongs_to_a_live_worker', 'Whoever holds a run is alive, or has just died.'),
  ('a_claim_is_used_once', 'No two runs have the same token.'),
  ('a_worker_reports_its_runs', 'A live worker knows of the runs that it holds.'),
  ('a_worker_has_a_heartbeat', 'A registered worker has a row of its own to beat in.'),
  ('only_a_claimed_run_is_told', 'A note to a worker goes when the worker lets go.'),
  ('a_run_dies_after_its_last_recovery', 'No run survives more deaths than it may.'),
  ('a_signal_is_consumed_once', 'No two waits of a run consumed the same message.'),
  ('a_consumed_signal_was_sent', 'What a wait consumed is in the mailbox, under the wait''s name.'),
  ('ordinals_of_a_run_differ', 'No two checkpoints of a run have the same place in its order.'),
  ('an_exhausted_step_is_on_record', 'A step without a next try has its error as checkpoint.'),
  ('the_install_has_one_row', 'It is known what is installed here.'),
  ('partitions_are_cut_alike', 'All tables of a run have the same partitions, open at both ends.'),
  ('tables_are_granted_to_nobody', 'Whoever is not the owner has views and functions only.')
) as i (invariant, meaning);

comment on view perdure._invariants is 'What always holds; violations has a row for each time it does not.';
comment on column perdure._invariants.invariant is 'Its name.';
comment on column perdure._invariants.meaning is 'What it says.';

create or replace view perdure.violations with (security_barrier) as
with cut as (
  select
    c.relname,
    string_agg(p.bounds, ', ' order by p.bounds) as bounds
  from pg_class as c
  left join pg_inherits as i on c.oid = i.inhparent
  left join pg_class as b on i.inhrelid = b.oid
  cross join lateral pg_get_expr(b.relpartbound, b.oid) as p (bounds)
  where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'p'
  group by c.relname
)

select
  'a_run_is_unfinished_or_ended' as invariant,
  r.run_id,
  'neither a dispatch row nor an outcome' as detail
from perdure.run as r
where not exists (
    select from perdure.dispatch as d
    where d.run_id = r.run_id
  )
  and not exists (
    select from perdure.outcome as o
    where o.run_id = r.run_id
  )
union all
select 'an_ended_run_is_not_dispatched', d.run_id, 'it ended as ' || o.status
from perdure.dispatch as d
join perdure.outcome as o on d.run_id = o.run_id
union all
select 'what_is_kept_belongs_to_a_run', k.run_id, 'a row of ' || k.kept_in
from (
  select d.run_id, 'dispatch' as kept_in from perdure.dispatch as d
  union all
  select o.run_id, 'outcome' from perdure.outcome as o
  union all
  select s.run_id, 'step' from perdure.step as s
  union all
  select t.run_id, 'step_attempt' from perdure.step_attempt as t
  union all
  select s.run_id, 'signal' from perdure.signal as s
  union all
  select a.run_id, 'act' from perdure.act as a
) as k
where not exists (
    select from perdure.run as r
    where r.run_id = k.run_id
  )
union all
select
  'a_run_has_options_that_a_start_takes',
  r.run_id,
  format(
    'priority %s, deadline %s, timeout %s, tags %s, headers %s',
    r.priority, r.deadline, r.timeout, jsonb_typeof(r.tags), jsonb_typeof(r.headers)
  )
from perdure.run as r
where r.priority not between 1 and 5
  or (r.deadline is not null and r.timeout is not null)
  or jsonb_typeof(r.tags) <> 'object'
  or jsonb_typeof(r.headers) <> 'object'
union all
select
  'a_dispatch_row_agrees_with_its_run',
  d.run_id,
  format('workflow %s, queue %s, priority %s', d.workflow, d.queue, d.priority)
from perdure.dispatch as d
join perdure.run as r on d.run_id = r.run_id
where (d.workflow, d.queue, d.priority, d.max_recoveries)
  <> (r.workflow, r.queue, r.priority, r.max_recoveries)
union all
select 'a_held_run_has_a_token', d.run_id, format('worker %s', d.worker_id)
from perdure.dispatch as d
where d.worker_id is not null and d.claim is null
union all
select 'a_held_run_waits_for_nothing', d.run_id, format('worker %s', d.worker_id)
from perdure.dispatch as d
where d.worker_id is not null and d.waits is not null
union all
select 'a_cancel_is_a_way_to_end_in_time', d.run_id, format('%s, ends at %s', d.cancel, d.ends_at)
from perdure.dispatch as d
where d.cancel not in ('cancelled', 'timed_out')
  or (d.cancel is not null and d.ends_at is null)
union all
select 'a_key_names_its_run', k.run_id, format('key %s of workflow %s', k.key, k.workflow)
from perdure.run_key as k
left join perdure.run as r on k.run_id = r.run_id
left join perdure.chore as g on g.name = 'dropped'
where case
    -- keys of runs that were dropped are freed in small rounds
    when r.run_id is null then k.run_id >= coalesce((g.detail ->> 'to')::uuid, k.run_id)
    else (r.workflow, r.key) is distinct from (k.workflow, k.key)
  end
union all
select 'a_suspended_run_can_be_woken', d.run_id, 'it waits for nothing that can come'
from perdure.dispatch as d
left join perdure.run as r on d.run_id = r.run_id
where d.worker_id is null
  and d.ready_at = 'infinity'
  and d.predecessor_id is null
  and r.start_at is distinct from 'infinity'  -- as it was asked for
  and not coalesce(d.waits @? '$[*] ? (@.kind == "signal")', false)
union all
select 'what_a_run_waits_for_is_known', d.run_id, format('readable is %s', u.waits)
from perdure.dispatch as d
join perdure._unfinished as u on d.run_id = u.run_id
where jsonb_typeof(d.waits) <> 'array'
  or jsonb_array_length(u.waits) < jsonb_array_length(jsonb_path_query_array(d.waits, '$[*]'))
union all
select 'a_wait_ends_in_time', d.run_id, format('it ends at %s, ready at %s', w.until, d.ready_at)
from perdure._unfinished as d
cross join
  lateral (
    select min(j.until) as until from jsonb_to_recordset(d.waits) as j (until timestamptz)
  ) as w
where d.waits is not null and d.ready_at > w.until and d.ready_at > (select perdure._clock())
union all
select distinct 'a_message_wakes_its_run', d.run_id, format('signal %s', s.name)
from perdure._unfinished as d
cross join lateral jsonb_to_recordset(d.waits) as w (kind text, name text)
join perdure.signal as s on d.run_id = s.run_id and w.name = s.name
where d.waits is not null
  and not d.is_paused  -- resume wakes it
  and d.ready_at > (select perdure._clock())
  and w.kind = 'signal'
  and not exists (
    select from perdure.step as c
    where c.run_id = s.run_id and c.signal_id = s.id
  )
  and not exists (
    select from perdure.wake as k
    where k.run_id = d.run_id
  )
union all
select 'a_cancel_wakes_its_run', d.run_id, format('%s, ready at %s', d.cancel, d.ready_at)
from perdure.dispatch as d
where d.waits is not null
  and d.cancel is not null
  and not d.is_paused
  and d.ready_at > (select perdure._clock())
  and not exists (
    select from perdure.step as s
    where s.run_id = d.run_id and s.kind = 'cancel'
  )
union all
select 'an_act_wakes_its_run', a.run_id, format('%s, asked at %s', a.act, a.asked_at)
from perdure.act as a
join perdure.dispatch as d on a.run_id = d.run_id
where a.applied_at is null
  and not exists (
    select from perdure.wake as k
    where k.run_id = a.run_id
  )
union all
select 'a_wake_is_drained_soon', k.run_id, format('told at %s; does anybody tick?', k.told_at)
from perdure.wake as k
join perdure.dispatch as d on k.run_id = d.run_id
where k.told_at < (select perdure._clock()) - interval '1 minute'
  and not exists (select from perdure.holds)  -- nor does anybody on hold, here and below
union all
select 'a_deadline_is_kept', d.run_id, format('it was to end at %s; does anybody tick?', d.ends_at)
from perdure.dispatch as d
where d.ends_at < (select perdure._clock()) - interval '5 minutes'
  and not exists (select from perdure.holds)
union all
select 'a_successor_waits_for_a_run', d.run_id, format('run %s', d.predecessor_id)
from perdure.dispatch as d
where d.predecessor_id is not null
  and (
    d.ready_at <> 'infinity'
    or not exists (
      select from perdure.run as p
      where p.run_id = d.predecessor_id
    )
  )
union all
select 'a_successor_is_freed_soon', d.run_id, format('run %s ended at %s', o.run_id, o.finished_at)
from perdure.dispatch as d
join perdure.outcome as o on d.predecessor_id = o.run_id
where o.finished_at < (select perdure._clock()) - interval '1 minute'
  and not exists (select from perdure.holds)
union all
select
  'a_claim_belongs_to_a_live_worker',
  d.run_id,
  format('worker %s, last beat %s; does anybody tick?', d.worker_id, b.beat_at)
from perdure.dispatch as d
left join perdure.worker as w on d.worker_id = w.worker_id
left join perdure.worker_beat as b on d.worker_id = b.worker_id
where d.worker_id is not null
  and not exists (select from perdure.holds)
  and (
    (w.worker_id is null and d.claimed_at < (select perdure._clock()) - interval '1 minute')
    or greatest(b.beat_at, (select perdure._sessions_since()))
    < (select perdure._clock()) - 2 * w.lease - interval '1 minute'
  )
union all
select 'a_claim_is_used_once', c.run_id, format('claim %s', c.claim)
from (
  select u.run_id, u.claim, count(*) over (partition by u.claim) as uses
  from (
    select d.run_id, d.claim from perdure.dispatch as d
    where d.claim is not null
    union  -- an ended run that is dispatched as well is another violation
    select o.run_id, o.claim from perdure.outcome as o
    where o.claim is not null
  ) as u
) as c
where c.uses > 1
union all
select
  'a_worker_reports_its_runs',
  null,
  format('worker %s says %s runs, and has held %s for long', b.worker_id, b.runs_held, h.runs)
from perdure.worker_beat as b
cross join
  lateral (
    select count(*) as runs
    from perdure.dispatch as d
    -- the answer of a claim made seconds ago may be under way
    where d.worker_id = b.worker_id and d.claimed_at < b.beat_at - interval '10 seconds'
  ) as h
where b.disagreements >= 10 and b.runs_held < h.runs
union all
select 'a_worker_has_a_heartbeat', null, format('worker %s', w.worker_id)
from perdure.worker as w
where not exists (
    select from perdure.worker_beat as b
    where b.worker_id = w.worker_id
  )
union all
select 'only_a_claimed_run_is_told', d.run_id, format('told at %s', d.told_at)
from perdure.dispatch as d
where d.told_at is not null and d.worker_id is null
union all
select
  'a_run_dies_after_its_last_recovery',
  d.run_id,
  format('%s deaths of %s', d.recoveries, d.max_recoveries)
from perdure.dispatch as d
where d.recoveries > d.max_recoveries
union all
select 'a_signal_is_consumed_once', s.run_id, format('signal %s, %s times', s.signal_id, count(*))
from perdure.step as s
where s.signal_id is not null
group by s.run_id, s.signal_id
having count(*) > 1
union all
select
  'a_consumed_signal_was_sent',
  s.run_id,
  format('step %s consumed signal %s', s.key, s.signal_id)
from perdure.step as s
left join perdure.signal as m on s.run_id = m.run_id and s.signal_id = m.id
where s.signal_id is not null and m.name is distinct from s.name
union all
select 'ordinals_of_a_run_differ', s.run_id, format('ordinal %s, %s times', s.ordinal, count(*))
from perdure.step as s
group by s.run_id, s.ordinal
having count(*) > 1
union all
select 'an_exhausted_step_is_on_record', t.run_id, format('try %s of step %s', t.attempt, t.key)
from perdure.step_attempt as t
where t.retry_at is null
  and not exists (
    select from perdure.step as s
    where s.run_id = t.run_id and s.key = t.key
  )
union all
select 'the_install_has_one_row', null, format('%s rows', count(*))
from perdure.install
having count(*) <> 1
union all
select 'partitions_are_cut_alike', null, format('%s: %s', c.relname, c.bounds)
from cut as c
left join cut as r on r.relname = 'run'
where c.bounds is distinct from r.bounds
  or c.bounds not like '%(MINVALUE)%'
  or c.bounds not like '%(MAXVALUE)%'
union all
select distinct
  'tables_are_granted_to_nobody',
  null::uuid,
  format('%s to %s', c.relname, coalesce(g.rolname, 'public'))
from pg_class as c
cross join lateral aclexplode(c.relacl) as a
left join pg_roles as g on a.grantee = g.oid
where c.relnamespace = 'perdure'::regnamespace
  and c.relkind in ('r', 'p', 'S')
  and a.grantee <> c.relowner;

comment on view perdure.violations is
'Broken invariants, one row each: always empty; selftest() counts them all. It reads all tables.';
comment on column perdure.violations.invariant is 'Name of the invariant.';
comment on column perdure.violations.run_id is 'Run that breaks it; null where no single run does.';
comment on column perdure.violations.detail is 'What was found.';
