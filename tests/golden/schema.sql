-- What an install makes, as pg_dump 15 sees it: written by `make golden`, never by hand.
-- Left out: the bodies of functions (sql/functions), comments (sql/REFERENCE.md). Periods and their bounds are called <period>.

CREATE SCHEMA perdure;

CREATE FUNCTION perdure._answer_waits(suspended jsonb, now timestamp with time zone) RETURNS TABLE(run_id uuid, kind text, checkpoint jsonb)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._apply_act(run_id uuid, act text, grace interval, now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._apply_acts(run_ids uuid[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._ask(run_ids uuid[], act text, reason text, grace interval) RETURNS TABLE(run_id uuid, answer text, error text, state text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._ask_one(run_id uuid, act text, reason text, grace interval) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._audit(act text, run_id uuid, reason text, detail jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._bury_workers(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._caller() RETURNS name
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_array(what text, list jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_kind(kind text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_name(what text, name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_object(what text, object jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_payload(what text, payload jsonb) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_start(on_duplicate text, priority integer, tags jsonb, headers jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._check_times(start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE TABLE perdure.step (
    run_id uuid NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text,
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text,
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_is_short_and_not_empty CHECK (((length(key) >= 1) AND (length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
)
PARTITION BY RANGE (run_id);

CREATE FUNCTION perdure._checkpoint(step perdure.step) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._cron_advice(every interval) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._cron_home() RETURNS name
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._cron_jobs(every interval) RETURNS TABLE(job_name text, schedule text, command text, slow_schedule text, slow_command text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._cron_schedule(job_name text, schedule text, command text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE TABLE perdure.workflow (
    name text NOT NULL,
    queue text NOT NULL,
    timeout interval,
    max_recoveries integer NOT NULL,
    registered_at timestamp with time zone NOT NULL
);

CREATE FUNCTION perdure._default_of(workflow text, queue text) RETURNS perdure.workflow
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._deliver_cancels(run_ids uuid[], now timestamp with time zone) RETURNS TABLE(run_id uuid, checkpoint jsonb)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._distance(a text, b text) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._end_by_act(run_id uuid, act text, status text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._end_claimed(worker_id uuid, ends jsonb, status text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._end_overdue(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._end_runs(ends jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._failed_step(run_id uuid, error jsonb) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._fence(worker_id uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._fingerprint(value jsonb) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._flat_saves(batch jsonb, run_ids uuid[]) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._forget_steps(run_id uuid, from_step text, error jsonb) RETURNS jsonb
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._free_successors(run_ids uuid[], now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._grant_kind(role name, kind text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._insert_saves(saves jsonb, run_ids uuid[]) RETURNS TABLE(run_id uuid, key text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._is_dead(worker_id uuid, now timestamp with time zone, calm_since timestamp with time zone) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._lock_claimable(worker_id uuid, max_runs integer, now timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._lock_key(worker_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._lock_runs(worker_id uuid, claims jsonb, is_shared boolean) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._nearest(word text, known text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._note_timeline(now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._payload_limit() RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._permissions() RETURNS TABLE(name name, kinds text[])
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._raise_refused(run_id uuid, act text, error text, state text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._raise_unknown(what text, name text, known text[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._read_setting(name text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._read_steps(run_id uuid, after integer, max_bytes integer) RETURNS TABLE(steps jsonb, has_more boolean)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._ready_at(waits jsonb) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._reason_error(run_id uuid, act text, status text) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._retry_at(error jsonb, policy jsonb, attempt integer, now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._revoke_all(role name DEFAULT NULL::name) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._run_state(worker_id uuid, claimed_at timestamp with time zone, ready_at timestamp with time zone, waits jsonb, cancel text, is_paused boolean, now timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._server_started_at() RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._states(run_ids uuid[]) RETURNS TABLE(run_id uuid, state text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._take_back_orphans(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._take_key(workflow text, key text, fingerprint bytea, run_id uuid, on_duplicate text, OUT taken_by uuid, OUT is_new boolean, OUT predecessor_id uuid) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._timeline() RETURNS integer
    LANGUAGE sql PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._truncate_wake() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._uuid7(at timestamp with time zone DEFAULT perdure._now()) RETURNS uuid
    LANGUAGE sql PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE PROCEDURE perdure.await(IN run_id uuid, IN timeout interval DEFAULT '00:01:00'::interval, INOUT result jsonb DEFAULT NULL::jsonb)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure.beat(worker_id uuid, runs_held integer DEFAULT NULL::integer, activity jsonb DEFAULT '[]'::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.cancel(run_id uuid, reason text DEFAULT NULL::text, grace interval DEFAULT '00:05:00'::interval) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.cancel_many(run_ids uuid[], reason text DEFAULT NULL::text, grace interval DEFAULT '00:05:00'::interval) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.claim_runs(worker_id uuid, max_runs integer DEFAULT 1) RETURNS TABLE(run_id uuid, claim uuid, workflow text, input jsonb, key text, tags jsonb, headers jsonb, created_at timestamp with time zone, scheduled_at timestamp with time zone, deadline timestamp with time zone, cancel text, recoveries integer, steps jsonb, has_more boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.complete_runs(worker_id uuid, ends jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.disable_cron() RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.drain(max_runs integer DEFAULT 1000) RETURNS TABLE(applied integer, skipped integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.enable_cron(every interval DEFAULT '00:00:01'::interval, runners integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.fail_runs(worker_id uuid, ends jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.fail_steps(worker_id uuid, tries jsonb) RETURNS TABLE(run_id uuid, key text, attempt integer, answer text, retry_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.find_run(workflow text, key text) RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.get_value(run_id uuid, name text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.grant_role(role name, kind text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.pause(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.pause_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.put_queue(name text, retention interval DEFAULT NULL::interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.put_setting(name text, value jsonb, reason text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.put_workflow(name text, queue text DEFAULT 'default'::text, timeout interval DEFAULT NULL::interval, max_recoveries integer DEFAULT 10) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.read_steps(run_id uuid, after integer DEFAULT 0, max_bytes integer DEFAULT 262144) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.recover() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.register_worker(queues text[], workflows text[], name text DEFAULT NULL::text, version text DEFAULT NULL::text, lease interval DEFAULT '00:00:30'::interval, is_direct boolean DEFAULT false) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.release_runs(worker_id uuid, releases jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.result(run_id uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.resume(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.resume_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.retry(run_id uuid, from_step text DEFAULT NULL::text, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.retry_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.revoke_role(role name, kind text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.run_results(run_ids uuid[]) RETURNS TABLE(run_id uuid, status text, result jsonb, error jsonb, finished_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE PROCEDURE perdure.run_ticks(IN max_seconds integer DEFAULT 58, IN every interval DEFAULT '00:00:01'::interval)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure.save_steps(worker_id uuid, saves jsonb) RETURNS TABLE(run_id uuid, key text, answer text, result jsonb, error jsonb, ordinal integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.save_transaction_step(worker_id uuid, save jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$…$$;

CREATE FUNCTION perdure.signal(run_id uuid, name text, payload jsonb DEFAULT '{}'::jsonb, id text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.signal_key(workflow text, key text, name text, payload jsonb DEFAULT '{}'::jsonb, id text DEFAULT NULL::text, start_input jsonb DEFAULT NULL::jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.start(workflow text, input jsonb DEFAULT '{}'::jsonb, key text DEFAULT NULL::text, on_duplicate text DEFAULT 'attach'::text, queue text DEFAULT NULL::text, priority integer DEFAULT 3, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, deadline timestamp with time zone DEFAULT NULL::timestamp with time zone, timeout interval DEFAULT NULL::interval, tags jsonb DEFAULT '{}'::jsonb, max_recoveries integer DEFAULT NULL::integer, headers jsonb DEFAULT '{}'::jsonb) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.start_many(workflow text, inputs jsonb[], keys text[] DEFAULT NULL::text[], on_duplicate text DEFAULT 'attach'::text, queue text DEFAULT NULL::text, priority integer DEFAULT 3, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, tags jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(ordinal integer, run_id uuid, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.stop_worker(worker_id uuid) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.suspend_runs(worker_id uuid, suspensions jsonb, keep boolean DEFAULT false) RETURNS TABLE(run_id uuid, answer text, checkpoint jsonb)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.terminate(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.terminate_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.tick() RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.version() RETURNS text
    LANGUAGE sql IMMUTABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.worker_lock(worker_id uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.worker_runs(worker_id uuid) RETURNS TABLE(run_id uuid, claim uuid)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE TABLE perdure.act (
    run_id uuid NOT NULL,
    act_id uuid NOT NULL,
    act text NOT NULL,
    reason text,
    grace interval,
    asked_by text NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    applied_at timestamp with time zone,
    answer text,
    CONSTRAINT act_answer_comes_when_it_is_applied CHECK (((answer IS NULL) = (applied_at IS NULL))),
    CONSTRAINT act_is_known CHECK ((act = ANY (ARRAY['cancel'::text, 'terminate'::text, 'pause'::text, 'resume'::text])))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.act_<period> (
    run_id uuid NOT NULL,
    act_id uuid NOT NULL,
    act text NOT NULL,
    reason text,
    grace interval,
    asked_by text NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    applied_at timestamp with time zone,
    answer text,
    CONSTRAINT act_answer_comes_when_it_is_applied CHECK (((answer IS NULL) = (applied_at IS NULL))),
    CONSTRAINT act_is_known CHECK ((act = ANY (ARRAY['cancel'::text, 'terminate'::text, 'pause'::text, 'resume'::text])))
);

CREATE TABLE perdure.act_old (
    run_id uuid NOT NULL,
    act_id uuid NOT NULL,
    act text NOT NULL,
    reason text,
    grace interval,
    asked_by text NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    applied_at timestamp with time zone,
    answer text,
    CONSTRAINT act_answer_comes_when_it_is_applied CHECK (((answer IS NULL) = (applied_at IS NULL))),
    CONSTRAINT act_is_known CHECK ((act = ANY (ARRAY['cancel'::text, 'terminate'::text, 'pause'::text, 'resume'::text])))
);

CREATE VIEW perdure.act_rules AS
 SELECT s.state,
    a.act,
        CASE
            WHEN (a.act = 'retry'::text) THEN
            CASE
                WHEN (s.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text])) THEN 'accepted'::text
                ELSE 'illegal'::text
            END
            WHEN s.is_ended THEN 'finished'::text
            WHEN ((a.act = 'cancel'::text) AND (s.state = 'cancelling'::text)) THEN 'duplicate'::text
            WHEN ((a.act = 'pause'::text) AND (s.state = 'paused'::text)) THEN 'duplicate'::text
            WHEN ((a.act = 'resume'::text) AND (s.state <> 'paused'::text)) THEN 'duplicate'::text
            ELSE 'accepted'::text
        END AS answer,
        CASE
            WHEN ((a.act = 'retry'::text) AND (s.state <> ALL (ARRAY['failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text]))) THEN 'PD009'::text
            WHEN (s.is_ended AND (a.act = ANY (ARRAY['pause'::text, 'resume'::text]))) THEN 'PD003'::text
            ELSE NULL::text
        END AS error
   FROM (( VALUES ('scheduled'::text,false), ('ready'::text,false), ('running'::text,false), ('sleeping'::text,false), ('waiting'::text,false), ('backing_off'::text,false), ('paused'::text,false), ('cancelling'::text,false), ('completed'::text,true), ('failed'::text,true), ('cancelled'::text,true), ('timed_out'::text,true), ('terminated'::text,true), ('dead'::text,true), ('continued'::text,true)) s(state, is_ended)
     CROSS JOIN ( VALUES ('cancel'::text), ('terminate'::text), ('pause'::text), ('resume'::text), ('retry'::text)) a(act));

CREATE TABLE perdure.audit (
    audit_id uuid NOT NULL,
    act text NOT NULL,
    run_id uuid,
    reason text,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    done_by text NOT NULL,
    done_at timestamp with time zone NOT NULL
);

CREATE TABLE perdure.dispatch (
    run_id uuid NOT NULL,
    workflow text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    ready_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone,
    worker_id uuid,
    claim uuid,
    claimed_at timestamp with time zone,
    told_at timestamp with time zone,
    waits jsonb,
    cancel text,
    recoveries integer DEFAULT 0 NOT NULL,
    max_recoveries integer NOT NULL,
    is_paused boolean DEFAULT false NOT NULL,
    predecessor_id uuid,
    CONSTRAINT dispatch_cancel_has_an_end CHECK (((cancel IS NULL) OR (ends_at IS NOT NULL))),
    CONSTRAINT dispatch_cancel_is_an_outcome CHECK ((cancel = ANY (ARRAY['cancelled'::text, 'timed_out'::text]))),
    CONSTRAINT dispatch_waits_only_without_a_worker CHECK (((waits IS NULL) OR (worker_id IS NULL))),
    CONSTRAINT dispatch_worker_only_with_a_claim CHECK (((worker_id IS NULL) OR (claim IS NOT NULL)))
);

CREATE VIEW perdure.errors AS
 SELECT e.sqlstate,
    e.name,
    e.meaning
   FROM ( VALUES ('PD001'::text,'run_not_found'::text,'No run has this id or key.'::text), ('PD002'::text,'claim_lost'::text,'The worker no longer holds the run, or is no longer registered; it must drop what it has in memory.'::text), ('PD003'::text,'run_finished'::text,'The run has ended, so the act has no effect.'::text), ('PD005'::text,'key_conflict'::text,'The key is taken: by a run with another input, or it was asked to be new.'::text), ('PD007'::text,'not_finished'::text,'The run has no result yet.'::text), ('PD008'::text,'run_failed'::text,'The run failed; the detail holds its error.'::text), ('PD009'::text,'illegal_act'::text,'The act does not fit the state of the run.'::text), ('PD010'::text,'limit_exceeded'::text,'A payload is larger than the install allows.'::text), ('PD012'::text,'run_cancelled'::text,'The run was cancelled.'::text), ('PD013'::text,'run_timed_out'::text,'The run ran into its deadline.'::text), ('PD014'::text,'run_terminated'::text,'The run was terminated.'::text), ('PD015'::text,'run_dead'::text,'The run was given up after too many deaths of its workers.'::text)) e(sqlstate, name, meaning);

CREATE TABLE perdure.install (
    is_installed boolean DEFAULT true NOT NULL,
    install_id uuid DEFAULT gen_random_uuid() NOT NULL,
    version text NOT NULL,
    installed_at timestamp with time zone DEFAULT transaction_timestamp() NOT NULL,
    installed_by name DEFAULT SESSION_USER NOT NULL,
    system_identifier bigint NOT NULL,
    database_id oid NOT NULL,
    database_name name NOT NULL,
    CONSTRAINT install_has_one_row CHECK (is_installed)
);

CREATE TABLE perdure.outcome (
    run_id uuid NOT NULL,
    status text NOT NULL,
    result jsonb,
    error jsonb,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.outcome_<period> (
    run_id uuid NOT NULL,
    status text NOT NULL,
    result jsonb,
    error jsonb,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
);

CREATE TABLE perdure.outcome_old (
    run_id uuid NOT NULL,
    status text NOT NULL,
    result jsonb,
    error jsonb,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
);

CREATE TABLE perdure.queue (
    name text NOT NULL,
    retention interval,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE perdure.role_grant (
    role_name name NOT NULL,
    kind text NOT NULL,
    granted_at timestamp with time zone DEFAULT transaction_timestamp() NOT NULL,
    granted_by name DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT role_grant_kind_is_known CHECK ((kind = ANY (ARRAY['client'::text, 'worker'::text, 'observer'::text, 'admin'::text])))
);

CREATE TABLE perdure.run (
    run_id uuid NOT NULL,
    workflow text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text,
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT run_has_a_deadline_or_a_timeout_not_both CHECK (((deadline IS NULL) OR (timeout IS NULL))),
    CONSTRAINT run_headers_are_an_object CHECK ((jsonb_typeof(headers) = 'object'::text)),
    CONSTRAINT run_priority_is_between_1_and_5 CHECK (((priority >= 1) AND (priority <= 5))),
    CONSTRAINT run_tags_are_an_object CHECK ((jsonb_typeof(tags) = 'object'::text))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.run_<period> (
    run_id uuid NOT NULL,
    workflow text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text,
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT run_has_a_deadline_or_a_timeout_not_both CHECK (((deadline IS NULL) OR (timeout IS NULL))),
    CONSTRAINT run_headers_are_an_object CHECK ((jsonb_typeof(headers) = 'object'::text)),
    CONSTRAINT run_priority_is_between_1_and_5 CHECK (((priority >= 1) AND (priority <= 5))),
    CONSTRAINT run_tags_are_an_object CHECK ((jsonb_typeof(tags) = 'object'::text))
);

CREATE TABLE perdure.run_key (
    workflow text NOT NULL,
    key text NOT NULL,
    run_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    CONSTRAINT run_key_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16))
);

CREATE TABLE perdure.run_old (
    run_id uuid NOT NULL,
    workflow text NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text,
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT run_has_a_deadline_or_a_timeout_not_both CHECK (((deadline IS NULL) OR (timeout IS NULL))),
    CONSTRAINT run_headers_are_an_object CHECK ((jsonb_typeof(headers) = 'object'::text)),
    CONSTRAINT run_priority_is_between_1_and_5 CHECK (((priority >= 1) AND (priority <= 5))),
    CONSTRAINT run_tags_are_an_object CHECK ((jsonb_typeof(tags) = 'object'::text))
);

CREATE TABLE perdure.setting (
    name text NOT NULL,
    value jsonb NOT NULL,
    description text NOT NULL
);

CREATE TABLE perdure.signal (
    run_id uuid NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.signal_<period> (
    run_id uuid NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);

CREATE TABLE perdure.signal_old (
    run_id uuid NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);

CREATE SEQUENCE perdure.signal_sequence
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE perdure.step_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text,
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text,
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_is_short_and_not_empty CHECK (((length(key) >= 1) AND (length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
);

CREATE TABLE perdure.step_attempt (
    run_id uuid NOT NULL,
    key text NOT NULL,
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.step_attempt_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL,
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
);

CREATE TABLE perdure.step_attempt_old (
    run_id uuid NOT NULL,
    key text NOT NULL,
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
);

CREATE TABLE perdure.step_old (
    run_id uuid NOT NULL,
    key text NOT NULL,
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text,
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text,
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_is_short_and_not_empty CHECK (((length(key) >= 1) AND (length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
);

CREATE TABLE perdure.timeline (
    timeline integer NOT NULL,
    since timestamp with time zone NOT NULL
);

CREATE TABLE perdure.wake (
    run_id uuid NOT NULL,
    told_at timestamp with time zone NOT NULL
);

CREATE TABLE perdure.worker (
    worker_id uuid NOT NULL,
    name text NOT NULL,
    version text,
    queues text[] NOT NULL,
    workflows text[] NOT NULL,
    lease interval NOT NULL,
    is_direct boolean NOT NULL,
    registered_at timestamp with time zone NOT NULL,
    registered_by text NOT NULL,
    CONSTRAINT worker_lease_is_between_1_second_and_1_day CHECK (((lease >= '00:00:01'::interval) AND (lease <= '1 day'::interval)))
);

CREATE TABLE perdure.worker_beat (
    worker_id uuid NOT NULL,
    beat_at timestamp with time zone NOT NULL,
    runs_held integer,
    disagreements integer DEFAULT 0 NOT NULL,
    activity jsonb DEFAULT '[]'::jsonb NOT NULL
)
WITH (fillfactor='50');

ALTER TABLE ONLY perdure.act ATTACH PARTITION perdure.act_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.act ATTACH PARTITION perdure.act_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.outcome ATTACH PARTITION perdure.outcome_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.outcome ATTACH PARTITION perdure.outcome_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.run ATTACH PARTITION perdure.run_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.run ATTACH PARTITION perdure.run_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.signal ATTACH PARTITION perdure.signal_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.signal ATTACH PARTITION perdure.signal_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.step ATTACH PARTITION perdure.step_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.step_attempt ATTACH PARTITION perdure.step_attempt_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.step_attempt ATTACH PARTITION perdure.step_attempt_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.step ATTACH PARTITION perdure.step_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.act
    ADD CONSTRAINT act_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.act_<period>
    ADD CONSTRAINT act_<period>_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.act_old
    ADD CONSTRAINT act_old_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (audit_id);

ALTER TABLE ONLY perdure.dispatch
    ADD CONSTRAINT dispatch_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.install
    ADD CONSTRAINT install_pkey PRIMARY KEY (is_installed);

ALTER TABLE ONLY perdure.outcome
    ADD CONSTRAINT outcome_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.outcome_<period>
    ADD CONSTRAINT outcome_<period>_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.outcome_old
    ADD CONSTRAINT outcome_old_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (name);

ALTER TABLE ONLY perdure.role_grant
    ADD CONSTRAINT role_grant_pkey PRIMARY KEY (role_name, kind);

ALTER TABLE ONLY perdure.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.run_<period>
    ADD CONSTRAINT run_<period>_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.run_key
    ADD CONSTRAINT run_key_pkey PRIMARY KEY (workflow, key);

ALTER TABLE ONLY perdure.run_old
    ADD CONSTRAINT run_old_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (name);

ALTER TABLE ONLY perdure.signal
    ADD CONSTRAINT signal_pkey PRIMARY KEY (run_id, id);

ALTER TABLE ONLY perdure.signal_<period>
    ADD CONSTRAINT signal_<period>_pkey PRIMARY KEY (run_id, id);

ALTER TABLE ONLY perdure.signal_old
    ADD CONSTRAINT signal_old_pkey PRIMARY KEY (run_id, id);

ALTER TABLE ONLY perdure.step
    ADD CONSTRAINT step_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.step_<period>
    ADD CONSTRAINT step_<period>_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.step_attempt
    ADD CONSTRAINT step_attempt_pkey PRIMARY KEY (run_id, key, attempt);

ALTER TABLE ONLY perdure.step_attempt_<period>
    ADD CONSTRAINT step_attempt_<period>_pkey PRIMARY KEY (run_id, key, attempt);

ALTER TABLE ONLY perdure.step_attempt_old
    ADD CONSTRAINT step_attempt_old_pkey PRIMARY KEY (run_id, key, attempt);

ALTER TABLE ONLY perdure.step_old
    ADD CONSTRAINT step_old_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.timeline
    ADD CONSTRAINT timeline_pkey PRIMARY KEY (timeline);

ALTER TABLE ONLY perdure.worker_beat
    ADD CONSTRAINT worker_beat_pkey PRIMARY KEY (worker_id);

ALTER TABLE ONLY perdure.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (worker_id);

ALTER TABLE ONLY perdure.workflow
    ADD CONSTRAINT workflow_pkey PRIMARY KEY (name);

CREATE INDEX act_pending_idx ON ONLY perdure.act USING btree (run_id, asked_at, act_id) WHERE (applied_at IS NULL);

CREATE INDEX act_<period>_run_id_asked_at_act_id_idx ON perdure.act_<period> USING btree (run_id, asked_at, act_id) WHERE (applied_at IS NULL);

CREATE INDEX act_old_run_id_asked_at_act_id_idx ON perdure.act_old USING btree (run_id, asked_at, act_id) WHERE (applied_at IS NULL);

CREATE INDEX audit_run_idx ON perdure.audit USING btree (run_id);

CREATE INDEX dispatch_claim_idx ON perdure.dispatch USING btree (queue, priority, ready_at, run_id) WHERE ((worker_id IS NULL) AND (NOT is_paused));

CREATE INDEX dispatch_ends_idx ON perdure.dispatch USING btree (ends_at) WHERE (ends_at IS NOT NULL);

CREATE INDEX dispatch_predecessor_idx ON perdure.dispatch USING btree (predecessor_id) WHERE (predecessor_id IS NOT NULL);

CREATE INDEX dispatch_suspect_idx ON perdure.dispatch USING btree (queue, ready_at, run_id) WHERE ((worker_id IS NULL) AND (NOT is_paused) AND (recoveries >= 2));

CREATE INDEX dispatch_worker_idx ON perdure.dispatch USING btree (worker_id) WHERE (worker_id IS NOT NULL);

CREATE UNIQUE INDEX step_consumed_idx ON ONLY perdure.step USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE UNIQUE INDEX step_<period>_run_id_signal_id_idx ON perdure.step_<period> USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE UNIQUE INDEX step_old_run_id_signal_id_idx ON perdure.step_old USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE INDEX wake_drain_idx ON perdure.wake USING btree (told_at, run_id);

CREATE INDEX wake_run_idx ON perdure.wake USING btree (run_id);

ALTER INDEX perdure.act_pkey ATTACH PARTITION perdure.act_<period>_pkey;

ALTER INDEX perdure.act_pending_idx ATTACH PARTITION perdure.act_<period>_run_id_asked_at_act_id_idx;

ALTER INDEX perdure.act_pkey ATTACH PARTITION perdure.act_old_pkey;

ALTER INDEX perdure.act_pending_idx ATTACH PARTITION perdure.act_old_run_id_asked_at_act_id_idx;

ALTER INDEX perdure.outcome_pkey ATTACH PARTITION perdure.outcome_<period>_pkey;

ALTER INDEX perdure.outcome_pkey ATTACH PARTITION perdure.outcome_old_pkey;

ALTER INDEX perdure.run_pkey ATTACH PARTITION perdure.run_<period>_pkey;

ALTER INDEX perdure.run_pkey ATTACH PARTITION perdure.run_old_pkey;

ALTER INDEX perdure.signal_pkey ATTACH PARTITION perdure.signal_<period>_pkey;

ALTER INDEX perdure.signal_pkey ATTACH PARTITION perdure.signal_old_pkey;

ALTER INDEX perdure.step_pkey ATTACH PARTITION perdure.step_<period>_pkey;

ALTER INDEX perdure.step_consumed_idx ATTACH PARTITION perdure.step_<period>_run_id_signal_id_idx;

ALTER INDEX perdure.step_attempt_pkey ATTACH PARTITION perdure.step_attempt_<period>_pkey;

ALTER INDEX perdure.step_attempt_pkey ATTACH PARTITION perdure.step_attempt_old_pkey;

ALTER INDEX perdure.step_pkey ATTACH PARTITION perdure.step_old_pkey;

ALTER INDEX perdure.step_consumed_idx ATTACH PARTITION perdure.step_old_run_id_signal_id_idx;

REVOKE ALL ON FUNCTION perdure._answer_waits(suspended jsonb, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._apply_act(run_id uuid, act text, grace interval, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._apply_acts(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ask(run_ids uuid[], act text, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ask_one(run_id uuid, act text, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._audit(act text, run_id uuid, reason text, detail jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bury_workers(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._caller() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_array(what text, list jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_kind(kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_name(what text, name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_object(what text, object jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_payload(what text, payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_start(on_duplicate text, priority integer, tags jsonb, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_times(start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._checkpoint(step perdure.step) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_advice(every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_home() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_jobs(every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_schedule(job_name text, schedule text, command text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._default_of(workflow text, queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._deliver_cancels(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._distance(a text, b text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_by_act(run_id uuid, act text, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_claimed(worker_id uuid, ends jsonb, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_overdue(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_runs(ends jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._failed_step(run_id uuid, error jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._fence(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._fingerprint(value jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._flat_saves(batch jsonb, run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._forget_steps(run_id uuid, from_step text, error jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._free_successors(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._grant_kind(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._insert_saves(saves jsonb, run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_dead(worker_id uuid, now timestamp with time zone, calm_since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_claimable(worker_id uuid, max_runs integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_key(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_runs(worker_id uuid, claims jsonb, is_shared boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._nearest(word text, known text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._note_timeline(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._now() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._payload_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._permissions() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._raise_refused(run_id uuid, act text, error text, state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._raise_unknown(what text, name text, known text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._read_setting(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._read_steps(run_id uuid, after integer, max_bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ready_at(waits jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._reason_error(run_id uuid, act text, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._retry_at(error jsonb, policy jsonb, attempt integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._revoke_all(role name) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._run_state(worker_id uuid, claimed_at timestamp with time zone, ready_at timestamp with time zone, waits jsonb, cancel text, is_paused boolean, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._server_started_at() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._states(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_back_orphans(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_key(workflow text, key text, fingerprint bytea, run_id uuid, on_duplicate text, OUT taken_by uuid, OUT is_new boolean, OUT predecessor_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._timeline() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._truncate_wake() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._uuid7(at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON PROCEDURE perdure.await(IN run_id uuid, IN timeout interval, INOUT result jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.beat(worker_id uuid, runs_held integer, activity jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.cancel(run_id uuid, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.cancel_many(run_ids uuid[], reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.claim_runs(worker_id uuid, max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.complete_runs(worker_id uuid, ends jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.disable_cron() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.drain(max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.enable_cron(every interval, runners integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.fail_runs(worker_id uuid, ends jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.fail_steps(worker_id uuid, tries jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.find_run(workflow text, key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.get_value(run_id uuid, name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.grant_role(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.pause(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.pause_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_queue(name text, retention interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_setting(name text, value jsonb, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_workflow(name text, queue text, timeout interval, max_recoveries integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.read_steps(run_id uuid, after integer, max_bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.recover() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.register_worker(queues text[], workflows text[], name text, version text, lease interval, is_direct boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.release_runs(worker_id uuid, releases jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.result(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.resume(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.resume_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.retry(run_id uuid, from_step text, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.retry_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.revoke_role(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.run_results(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON PROCEDURE perdure.run_ticks(IN max_seconds integer, IN every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.save_steps(worker_id uuid, saves jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.save_transaction_step(worker_id uuid, save jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.signal(run_id uuid, name text, payload jsonb, id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.signal_key(workflow text, key text, name text, payload jsonb, id text, start_input jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.start(workflow text, input jsonb, key text, on_duplicate text, queue text, priority integer, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, tags jsonb, max_recoveries integer, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.start_many(workflow text, inputs jsonb[], keys text[], on_duplicate text, queue text, priority integer, start_at timestamp with time zone, tags jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.stop_worker(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.suspend_runs(worker_id uuid, suspensions jsonb, keep boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.terminate(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.terminate_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.tick() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.version() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.worker_lock(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.worker_runs(worker_id uuid) FROM PUBLIC;
