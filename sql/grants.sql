-- Who may call what: the whole matrix, last, so that every upgrade applies it anew.
-- What is not named here is for the owner alone; tables are granted to nobody; PUBLIC has nothing.
-- A name beginning with _ is here only because a procedure, an invoker function or a view calls it.

create or replace function perdure._permissions()
returns table (
  name name,
  kinds text[]
)
language sql
immutable
parallel safe
as $$
  select m.name::name, string_to_array(m.kinds, ' ')
  from (
    values
    -- start and talk to runs
    ('start', 'client admin'),
    ('start_many', 'client admin'),
    ('start_run', 'client admin'),
    ('signal', 'client admin'),
    ('signal_key', 'client admin'),
    ('cancel', 'client admin'),
    ('cancel_many', 'client admin'),
    ('result', 'client admin'),
    ('await', 'client admin'),
    ('find_run', 'client observer admin'),
    ('get_value', 'client observer admin'),
    ('run_results', 'client worker admin'),
    ('_now', 'client observer admin'),  -- for await and the views

    -- execute runs
    ('put_workflow', 'worker admin'),
    ('register_worker', 'worker'),
    ('worker_lock', 'worker'),
    ('beat', 'worker'),
    ('listen', 'worker'),
    ('unlisten', 'worker'),
    ('next_due', 'worker'),
    ('claim_runs', 'worker'),
    ('read_steps', 'worker'),
    ('save_steps', 'worker'),
    ('save_transaction_step', 'worker'),
    ('fail_steps', 'worker'),
    ('suspend_runs', 'worker'),
    ('complete_runs', 'worker'),
    ('fail_runs', 'worker'),
    ('release_runs', 'worker'),
    ('worker_runs', 'worker'),
    ('stop_worker', 'worker'),

    -- keep the engine going
    ('tick', 'worker admin'),
    ('truncate_wake', 'worker admin'),
    ('rotate', 'worker admin'),
    ('recover', 'worker admin'),
    ('drain', 'worker admin'),
    ('run_ticks', 'worker admin'),

    -- operate
    ('terminate', 'admin'),
    ('terminate_many', 'admin'),
    ('pause', 'admin'),
    ('pause_many', 'admin'),
    ('resume', 'admin'),
    ('resume_many', 'admin'),
    ('retry', 'admin'),
    ('retry_many', 'admin'),
    ('hold', 'admin'),
    ('adopt', 'admin'),
    ('put_queue', 'admin'),
    ('put_setting', 'admin'),
    ('grant_role', 'admin'),
    ('revoke_role', 'admin'),
    ('enable_cron', 'admin'),
    ('disable_cron', 'admin'),
    ('_cron_jobs', 'admin'),
    ('_cron_home', 'admin'),
    ('_cron_schedule', 'admin'),
    ('_cron_advice', 'admin'),

    -- look
    ('version', 'client worker observer admin'),
    ('explain', 'observer admin'),
    ('selftest', 'observer admin'),
    ('at_risk', 'observer admin'),
    ('recorded_since', 'observer admin'),
    ('errors', 'client worker observer admin'),
    ('act_rules', 'client observer admin'),
    ('holds', 'worker observer admin'),
    ('runs', 'observer admin'),
    ('steps', 'observer admin'),
    ('signals', 'observer admin'),
    ('waits', 'observer admin'),
    ('queues', 'observer admin'),
    ('workflows', 'observer admin'),
    ('settings', 'observer admin'),
    ('workers', 'observer admin'),
    ('versions', 'observer admin'),
    ('stuck', 'observer admin'),
    ('history', 'observer admin'),
    ('metrics', 'observer admin'),
    ('periods', 'observer admin'),
    ('violations', 'observer admin'),
    ('_clock', 'observer admin'),
    ('_server_started_at', 'observer admin'),
    ('_sessions_since', 'observer admin')
  ) as m (name, kinds)
$$;

comment on function perdure._permissions() is
'List who may call each public function and read each public view.
Returns one row per name with the kinds of roles; what has no row is for the owner alone.';

do $$
begin
  if exists (select from perdure.install) then  -- before the first one's end nobody holds anything
    perform perdure._forget_namesakes();
  end if;
  perform perdure._apply_matrix();
end;
$$;
