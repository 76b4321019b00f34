-- Invariant: every row has a home. <table>_old begins at MINVALUE, the last partition ends at MAXVALUE and is empty
-- until its time comes. All tables of a run are cut at the same run_ids, so a period is dropped as a whole.

create table perdure.chore (
  name text collate "C" not null,
  next_at timestamptz not null,
  detail jsonb not null default '{}',
  constraint chore_pkey primary key (name),
  constraint chore_is_known check (name in ('periods', 'dropped', 'copy', 'expired', 'keys'))
);

comment on table perdure.chore is
'What rotate does from time to time, and how far it came: whoever does it holds the row periods.';
comment on column perdure.chore.name is
'periods (make one ahead, drop one), expired (runs in _old whose time is over), keys (of dropped runs); dropped and copy are
no chores but tell of those.';
comment on column perdure.chore.next_at is 'Not before this time.';
comment on column perdure.chore.detail is
'periods: waits, which period is due and stays, and since when; dropped: to, up to which run_id; copy: the
periods that are made anew, and how far that came; keys: after, up to where they are freed.';

insert into perdure.chore (name, next_at)
select c.name, '-infinity' from unnest(array['periods', 'dropped', 'copy', 'expired', 'keys']) as c (name);

do $$
declare
  v_day constant timestamptz := date_trunc('day', now(), 'UTC');
  v_begins constant timestamptz[] := array[null, v_day, v_day + interval '7 days', null];
  v_bounds constant text[] := array(
    select coalesce(
      quote_literal(rpad(lpad(to_hex((extract(epoch from b.at) * 1000)::bigint), 12, '0'), 32, '0')),
      case when b.ordinality = 1 then 'minvalue' else 'maxvalue' end)
    from unnest(v_begins) with ordinality as b (at, ordinality)
    order by b.ordinality);
  v_table text;
  v_name text;
begin
  foreach v_table in array array['run', 'outcome', 'step', 'step_attempt', 'signal', 'act'] loop
    for v_n in 1 .. 3 loop
      v_name := v_table || coalesce(to_char(v_begins[v_n] at time zone 'UTC', '_YYYYMMDD'), '_old');
      execute format(
        'create table perdure.%I partition of perdure.%I for values from (%s) to (%s)',
        v_name, v_table, v_bounds[v_n], v_bounds[v_n + 1]);
      execute format(
        'comment on table perdure.%I is %L', v_name,
        'Rows of ' || v_table || case when v_n = 1 then ' before all periods.' else ' of one period.' end);
    end loop;
  end loop;
end;
$$;
