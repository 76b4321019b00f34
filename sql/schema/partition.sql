-- Invariant: every row has a home. <table>_old begins at MINVALUE, the current partition ends at MAXVALUE.
-- All tables of a run are cut at the same run_id, so a period is dropped as a whole.

do $$
declare
  v_day constant timestamptz := date_trunc('day', now(), 'UTC');
  v_bound constant uuid := rpad(
    lpad(to_hex((extract(epoch from v_day) * 1000)::bigint), 12, '0'), 32, '0')::uuid;
  v_table text;
begin
  foreach v_table in array array['run', 'outcome', 'step', 'step_attempt', 'signal', 'act'] loop
    execute format(
      'create table perdure.%I partition of perdure.%I for values from (minvalue) to (%L)',
      v_table || '_old', v_table, v_bound);
    execute format(
      'comment on table perdure.%I is %L', v_table || '_old', 'Rows of ' || v_table || ' before the current period.');
    execute format(
      'create table perdure.%I partition of perdure.%I for values from (%L) to (maxvalue)',
      v_table || to_char(v_day at time zone 'UTC', '_YYYYMMDD'), v_table, v_bound);
    execute format(
      'comment on table perdure.%I is %L', v_table || to_char(v_day at time zone 'UTC', '_YYYYMMDD'),
      'Rows of ' || v_table || ' of the current period.');
  end loop;
end;
$$;
