-- What an install makes, as pg_dump 15 sees it: written by `make golden`, never by hand.
-- Left out: the bodies of functions (sql/functions), comments (sql/REFERENCE.md). Periods and their bounds are called <period>.

CREATE SCHEMA perdure;

CREATE FUNCTION perdure._abandon_copy() RETURNS void
    LANGUAGE plpgsql
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

CREATE FUNCTION perdure._accepted_act(run_id uuid, act text) RETURNS perdure.act
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._answer_act(act perdure.act, answer text, now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._answer_waiting(run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._answer_waits(suspended jsonb, now timestamp with time zone) RETURNS TABLE(run_id uuid, checkpoint jsonb)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._apply_act(run_id uuid, act text, grace interval, now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._apply_acts(run_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._apply_matrix() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._ask(run_ids uuid[], act text, reason text, grace interval) RETURNS TABLE(run_id uuid, answer text, error text, state text)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._ask_one(run_id uuid, act text, reason text, grace interval) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._attach(table_name text, suffix text, begins uuid, ends uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._audit(act text, run_id uuid, reason text, detail jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._because(reason text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._begin_copy(suffix text, since timestamp with time zone, now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._bound_at(at timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._bound_idleness(bound interval) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._bring_back(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._bury_workers(now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._bytes(payload jsonb) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._caller() RETURNS text
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    AS $$…$$;

CREATE FUNCTION perdure._catch_up(open uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_array(what text, list jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_caller_of_copy() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_interval(what text, duration interval) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_isolation() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_key_is_free(run_id uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_kind(kind text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_many(on_duplicate text, inputs integer, keys integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_name(what text, name text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_no_hold_setting() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_object(what text, object jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_owner_of_copy() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_payload(what text, payload jsonb) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_saves(saves jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_snapshot(run_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._check_span_setting(name text, value text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_start(on_duplicate text, priority integer, max_recoveries integer, tags jsonb, headers jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_time(what text, at timestamp with time zone) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._check_times(start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._check_waits(suspensions jsonb, keep boolean) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$…$$;

CREATE TABLE perdure.step (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE pg_catalog."C",
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text COLLATE pg_catalog."C",
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_has_1_to_1000_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
)
PARTITION BY RANGE (run_id);

CREATE FUNCTION perdure._checkpoint(step perdure.step) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._clock() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._close(table_name text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._copy_some(after uuid, ends uuid, began timestamp with time zone) RETURNS uuid
    LANGUAGE plpgsql
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
    name text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    timeout interval,
    max_recoveries integer NOT NULL,
    registered_at timestamp with time zone NOT NULL
);

CREATE FUNCTION perdure._default_of(workflow text, queue text) RETURNS perdure.workflow
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._deliver_cancels(run_ids uuid[], now timestamp with time zone) RETURNS TABLE(run_id uuid, checkpoint jsonb)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._detach(table_name text, suffix text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._discard(table_name text, suffix text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._distance(a text, b text) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._do(work text, run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._do_chore(name text, due text[], now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._drain(max_runs integer) RETURNS TABLE(applied integer, skipped integer)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._drop_guards(but uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._drop_late_acts(run_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._drop_period(now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._end_by_act(run_id uuid, status text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._end_claimed(worker_id uuid, ends jsonb, status text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._end_overdue(run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE TABLE perdure.outcome (
    run_id uuid NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    result jsonb,
    error jsonb,
    begun_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
)
PARTITION BY RANGE (run_id);

CREATE FUNCTION perdure._end_runs(ends perdure.outcome[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._ended(begins uuid, ends uuid, now timestamp with time zone) RETURNS TABLE(run_id uuid, is_over boolean)
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._expire(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE TABLE perdure.dispatch (
    run_id uuid NOT NULL,
    workflow text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    ready_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone,
    timeout interval,
    worker_id uuid,
    claim uuid,
    begun_at timestamp with time zone,
    claimed_at timestamp with time zone,
    told_at timestamp with time zone,
    waits jsonb,
    cancel text,
    recoveries integer DEFAULT 0 NOT NULL,
    max_recoveries integer NOT NULL,
    is_paused boolean DEFAULT false NOT NULL,
    predecessor_id uuid
);

CREATE VIEW perdure._unfinished AS
 SELECT d.run_id,
    d.workflow,
    d.queue,
    d.priority,
        CASE
            WHEN (d.worker_id IS NOT NULL) THEN 'running'::text
            WHEN d.is_paused THEN 'paused'::text
            WHEN (d.cancel IS NOT NULL) THEN 'cancelling'::text
            WHEN (d.ready_at <= ( SELECT perdure._clock() AS _clock)) THEN 'ready'::text
            WHEN (d.begun_at IS NULL) THEN 'scheduled'::text
            WHEN ((d.waits IS NULL) OR (d.waits @? '$[*]?(@."kind" == "retry")'::jsonpath)) THEN 'backing_off'::text
            WHEN (d.waits @? '$[*]?(@."kind" == "signal")'::jsonpath) THEN 'waiting'::text
            ELSE 'sleeping'::text
        END AS state,
    d.ready_at,
    d.ends_at,
    d.worker_id,
    d.claim,
    d.claimed_at,
    jsonb_path_query_array(d.waits, '$[*]?(@.type() == "object" && ((!(exists (@."until")) || @."until" == null) || @."until" like_regex "^(-?infinity|[0-9]{4,6}-[01][0-9]-[0-3][0-9]T[0-9:.+-]+)$"))'::jsonpath) AS waits,
    d.cancel,
    d.recoveries,
    d.is_paused,
    d.predecessor_id
   FROM perdure.dispatch d;

CREATE TABLE perdure.run (
    run_id uuid NOT NULL,
    workflow text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text COLLATE pg_catalog."C",
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    predecessor_id uuid,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.step_attempt (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
)
PARTITION BY RANGE (run_id);

CREATE TABLE perdure.worker (
    worker_id uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    version text,
    queues text[] NOT NULL COLLATE pg_catalog."C",
    workflows text[] NOT NULL COLLATE pg_catalog."C",
    lease interval NOT NULL,
    is_direct boolean NOT NULL,
    timeline integer NOT NULL,
    registered_at timestamp with time zone NOT NULL,
    registered_by text NOT NULL,
    CONSTRAINT worker_lease_is_between_1_second_and_1_day CHECK (((lease >= '00:00:01'::interval) AND (lease <= '1 day'::interval)))
);

CREATE VIEW perdure.runs AS
 SELECT r.run_id,
    r.workflow,
    r.key,
    s.state,
    r.queue,
    r.priority,
    r.tags,
    r.created_at,
    r.created_by,
    r.start_at,
        CASE
            WHEN (s.worker_id IS NULL) THEN NULLIF(s.ready_at, 'infinity'::timestamp with time zone)
            ELSE NULL::timestamp with time zone
        END AS ready_at,
        CASE
            WHEN (s.cancel IS NULL) THEN COALESCE(s.ends_at, r.deadline)
            ELSE NULL::timestamp with time zone
        END AS deadline,
    s.cancel,
        CASE
            WHEN (s.cancel IS NOT NULL) THEN s.ends_at
            ELSE NULL::timestamp with time zone
        END AS grace_ends_at,
    s.worker_id,
    w.name AS worker,
    s.claimed_at,
    COALESCE(s.recoveries, 0) AS recoveries,
    r.max_recoveries,
    COALESCE(s.is_paused, false) AS is_paused,
        CASE
            WHEN s.is_paused THEN ( SELECT a.reason
               FROM perdure.act a
              WHERE ((a.run_id = r.run_id) AND (a.act = 'pause'::text) AND (a.answer = 'accepted'::text))
              ORDER BY a.applied_at DESC, a.act_id DESC
             LIMIT 1)
            ELSE NULL::text
        END AS pause_reason,
    s.predecessor_id,
        CASE
            WHEN (s.finished_at IS NOT NULL) THEN (s.error ->> 'message'::text)
            ELSE ( SELECT (t.error ->> 'message'::text)
               FROM perdure.step_attempt t
              WHERE (t.run_id = r.run_id)
              ORDER BY t.failed_at DESC
             LIMIT 1)
        END AS last_error,
    s.finished_at,
    GREATEST((COALESCE(s.finished_at, ( SELECT perdure._clock() AS _clock)) - GREATEST(r.created_at,
        CASE
            WHEN isfinite(r.start_at) THEN r.start_at
            ELSE NULL::timestamp with time zone
        END)), '00:00:00'::interval) AS duration,
    r.input,
    s.result,
    s.error,
    r.headers
   FROM ((perdure.run r
     LEFT JOIN ( SELECT u.run_id,
            u.state,
            u.ready_at,
            u.ends_at,
            u.worker_id,
            u.claimed_at,
            u.cancel,
            u.recoveries,
            u.is_paused,
            u.predecessor_id,
            NULL::timestamp with time zone AS finished_at,
            NULL::jsonb AS result,
            NULL::jsonb AS error
           FROM perdure._unfinished u
        UNION ALL
         SELECT o.run_id,
            o.status,
            NULL::timestamp with time zone,
            NULL::timestamp with time zone,
            NULL::uuid,
            NULL::timestamp with time zone,
            NULL::text,
            0,
            false,
            NULL::uuid,
            o.finished_at,
            o.result,
            o.error
           FROM perdure.outcome o) s ON ((r.run_id = s.run_id)))
     LEFT JOIN perdure.worker w ON ((s.worker_id = w.worker_id)));

CREATE FUNCTION perdure._explain_cancel(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_deaths(run perdure.runs) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_end(run perdure.runs) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_hold(now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_pause(run perdure.runs) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_pending(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_running(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE TABLE perdure.worker_beat (
    worker_id uuid NOT NULL,
    beat_at timestamp with time zone NOT NULL,
    runs_held integer,
    disagreements integer DEFAULT 0 NOT NULL,
    activity jsonb DEFAULT '[]'::jsonb NOT NULL
)
WITH (fillfactor='50');

CREATE VIEW perdure.workers AS
 SELECT w.worker_id,
    w.name,
    w.version,
    COALESCE((b.beat_at >= (( SELECT perdure._clock() AS _clock) - w.lease)), false) AS is_alive,
    b.beat_at,
        CASE
            WHEN isfinite(b.beat_at) THEN (( SELECT perdure._clock() AS _clock) - b.beat_at)
            ELSE NULL::interval
        END AS beat_age,
    w.lease,
    w.queues,
    w.workflows,
    ( SELECT count(*) AS count
           FROM perdure.dispatch d
          WHERE (d.worker_id = w.worker_id)) AS runs,
    b.runs_held,
    COALESCE(b.disagreements, 0) AS disagreements,
    COALESCE(b.activity, '[]'::jsonb) AS activity,
    w.is_direct,
    w.registered_at,
    w.registered_by
   FROM (perdure.worker w
     LEFT JOIN perdure.worker_beat b ON ((w.worker_id = b.worker_id)));

CREATE FUNCTION perdure._explain_silence(worker perdure.workers, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_start(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_takers(run perdure.runs) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_unfinished(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._explain_waits(run perdure.runs, now timestamp with time zone) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._failed_step(run_id uuid, error jsonb) RETURNS text
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._fence(worker_id uuid, is_any_isolation boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._find_answers(suspended jsonb) RETURNS TABLE(run_id uuid, checkpoint jsonb)
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._fingerprint(value jsonb) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._finish_copy(suffixes text[], begins uuid, ends uuid, began timestamp with time zone, seen jsonb) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._forget_namesakes(role name DEFAULT NULL::name) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._forget_past_workers(is_copy boolean, now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._forget_steps(run_id uuid, from_step text, error jsonb) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._free_forgotten(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._free_keys() RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._free_successors(run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._go_on_copying(copy jsonb, now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._grant_kind(role name, kind text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._group(since timestamp with time zone) RETURNS TABLE(suffixes text[], begins uuid, ends uuid)
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._guard_name(table_name text, ends uuid) RETURNS text
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._guard_old(ends uuid) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._hand_over(worker_id uuid, run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._has_key_list(suffix text) RETURNS boolean
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._head(head text, now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._hold() RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._hold_setting() RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE TABLE perdure.run_key (
    workflow text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    run_id uuid NOT NULL,
    fingerprint bytea NOT NULL,
    CONSTRAINT run_key_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16))
);

CREATE FUNCTION perdure._holder_of(workflow text, key text, is_to_move boolean) RETURNS perdure.run_key
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._holders(parts regclass[]) RETURNS text[]
    LANGUAGE sql
    AS $$…$$;

CREATE FUNCTION perdure._insert_saves(saves jsonb, run_ids uuid[]) RETURNS perdure.step[]
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._is_above(batch jsonb, bytes bigint) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._is_awaited(queue_key bigint) RETURNS boolean
    LANGUAGE sql
    AS $$…$$;

CREATE FUNCTION perdure._is_dead(worker_id uuid, now timestamp with time zone, calm_since timestamp with time zone, watched_since timestamp with time zone, looked_at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._is_gone(run_id uuid) RETURNS boolean
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._is_in_line(dispatch perdure.dispatch, now timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._is_in_use(suffixes text[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._is_light(run_ids uuid[], max_rows integer, max_bytes bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._isolate(work text, run_ids uuid[], now timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._keep_heads(setting text, whose text, kept jsonb, heads jsonb, read_at timestamp with time zone, pause integer) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._key_list(suffix text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._know_queues(names text[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lane_heads(queues text[], workflows text[], heads jsonb, now timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._lanes(queues text[], heads jsonb, now timestamp with time zone) RETURNS TABLE(queue text, priority smallint, is_probe boolean, head timestamp with time zone)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._limit_for(batch jsonb) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._limit_patience() RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lock_and_save(worker_id uuid, batch jsonb, OUT held uuid[], OUT others jsonb, OUT on_record uuid[]) RETURNS record
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lock_claimable(worker_id uuid, max_runs integer, now timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lock_key(worker_id uuid) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._lock_lanes(queues text[], workflows text[], max_runs integer, now timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lock_runs(worker_id uuid, claims jsonb, is_shared boolean, OUT held uuid[], OUT others jsonb) RETURNS record
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._lock_suspect(worker_id uuid, queues text[], workflows text[], now timestamp with time zone) RETURNS uuid
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._look(suspensions jsonb, run_ids uuid[], keep boolean, now timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._make_ahead(now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._make_parts(suffix text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._may_notify() RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._meet_deadlines(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._merge(suffix text, begins uuid, ends uuid, kept uuid[], seen jsonb) RETURNS boolean
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._nearest(word text, known text[]) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._needed(begins uuid, ends uuid, max_runs integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._needed_predecessors(begins uuid, ends uuid, max_runs integer) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._normal_waits(waits jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._note_dropped(ends uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._note_hold(now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._note_progress(run_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._notify(queue text) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._notify_of(run_ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL RESTRICTED
    AS $$…$$;

CREATE FUNCTION perdure._outcome(run_id uuid, status text, result jsonb, error jsonb) RETURNS perdure.outcome
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._part(table_name text, suffix text) RETURNS regclass
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._parts(suffixes text[]) RETURNS regclass[]
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._payload_limit() RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._pays(begins uuid, ends uuid, now timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._period_length() RETURNS interval
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._permissions() RETURNS TABLE(name name, kinds text[])
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._prepare_start(run_id uuid, now timestamp with time zone, workflow text, input jsonb, key text, on_duplicate text, queue text, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, OUT taken_by uuid, OUT run_queue text, OUT queue_key bigint, OUT run_timeout interval, OUT max_recoveries integer, OUT ready_at timestamp with time zone, OUT predecessor_id uuid) RETURNS record
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._put_hold(reason text, now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._queue_key(queue text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._raise_refused(run_id uuid, act text, error text, state text) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._raise_unknown(what text, name text, known text[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$…$$;

CREATE FUNCTION perdure._raise_unregistered(worker_id uuid, timeline integer) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._random_uuid() RETURNS uuid
    LANGUAGE sql PARALLEL RESTRICTED
    AS $$…$$;

CREATE FUNCTION perdure._read_held(worker_id uuid, now timestamp with time zone) RETURNS TABLE(runs integer, told jsonb)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._read_setting(name text) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._read_steps(run_id uuid, after integer, max_bytes integer) RETURNS TABLE(steps jsonb, has_more boolean)
    LANGUAGE plpgsql STABLE STRICT
    AS $$…$$;

CREATE FUNCTION perdure._ready_at(waits jsonb) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._reason_error(run_id uuid, status text) RETURNS jsonb
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._recall_heads(setting text, whose text, now timestamp with time zone) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._record_tries(tries jsonb, run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._retry_at(error jsonb, policy jsonb, attempt integer, now timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._revoke_all(role name DEFAULT NULL::name) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._run_state(worker_id uuid, begun_at timestamp with time zone, ready_at timestamp with time zone, waits jsonb, cancel text, is_paused boolean, now timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._run_tables() RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._server_started_at() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._sessions_since() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure._set_aside(run_id uuid, work text, sqlstate text, message text, now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._shell_word(text text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._since(run perdure.runs) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._small_payload() RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._span(span interval) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._split(top text, begins uuid, bound uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._start(run_id uuid, now timestamp with time zone, workflow text, input jsonb, key text, on_duplicate text, queue text, priority integer, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, tags jsonb, max_recoveries integer, headers jsonb) RETURNS uuid
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._states(run_ids uuid[], act text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, state text)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._still_open(began timestamp with time zone) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._stop_all(suffixes text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._suffix_of(begins uuid) RETURNS text
    LANGUAGE sql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._swap(suffixes text[], begins uuid, ends uuid) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._take_back(run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._take_back_orphans(now timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._take_key(workflow text, key text, fingerprint bytea, run_id uuid, on_duplicate text, OUT taken_by uuid, OUT is_new boolean, OUT predecessor_id uuid) RETURNS record
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._take_over(suffix text, begins uuid, ends uuid, now timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._tell(run_ids uuid[], now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._tell_of(queue_key bigint) RETURNS void
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._time_of(run_id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._timeline() RETURNS integer
    LANGUAGE plpgsql PARALLEL RESTRICTED
    AS $$…$$;

CREATE FUNCTION perdure._to_copy(after uuid, upto uuid, began timestamp with time zone) RETURNS TABLE(run_id uuid, is_ended boolean)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._told(max_runs integer, now timestamp with time zone) RETURNS TABLE(run_ids uuid[], head timestamp with time zone)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._typed(span interval) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._unexpired(begins uuid, ends uuid, now timestamp with time zone, max_runs integer) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._unfinished_predecessor(run_id uuid) RETURNS uuid
    LANGUAGE sql
    AS $$…$$;

CREATE FUNCTION perdure._unmixed(INOUT run_ids uuid[], INOUT claims uuid[]) RETURNS record
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._uuid7(at timestamp with time zone DEFAULT perdure._now()) RETURNS uuid
    LANGUAGE sql PARALLEL RESTRICTED
    AS $$…$$;

CREATE FUNCTION perdure._watch(now timestamp with time zone, OUT calm_since timestamp with time zone, OUT watched_since timestamp with time zone, OUT looked_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure._what_was_seen(begins uuid, ends uuid) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    AS $$…$$;

CREATE FUNCTION perdure._when(at timestamp with time zone, now timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._without(suspensions jsonb, answered jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$…$$;

CREATE FUNCTION perdure._write_identity() RETURNS void
    LANGUAGE sql
    AS $$…$$;

CREATE FUNCTION perdure.adopt(reason text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.at_risk(since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(run_id uuid, workflow text, key text, risk text, worker text, claimed_at timestamp with time zone, ready_at timestamp with time zone, last_step text, last_saved_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE PROCEDURE perdure.await(IN run_id uuid, IN timeout interval DEFAULT '00:01:00'::interval, INOUT result jsonb DEFAULT NULL::jsonb)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure.beat(worker_id uuid, runs_held integer DEFAULT NULL::integer, activity jsonb DEFAULT '[]'::jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.cancel(run_id uuid, reason text DEFAULT NULL::text, grace interval DEFAULT '00:05:00'::interval) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.cancel_many(run_ids uuid[], reason text DEFAULT NULL::text, grace interval DEFAULT '00:05:00'::interval) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.claim_runs(worker_id uuid, max_runs integer DEFAULT 1) RETURNS TABLE(run_id uuid, claim uuid, workflow text, input jsonb, key text, tags jsonb, headers jsonb, begun_at timestamp with time zone, scheduled_at timestamp with time zone, deadline timestamp with time zone, cancel text, recoveries integer, steps jsonb, has_more boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.complete_runs(worker_id uuid, ends jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
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
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.enable_cron(every interval DEFAULT '00:00:01'::interval, runners integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.explain(run_id uuid) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.fail_runs(worker_id uuid, ends jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.fail_steps(worker_id uuid, tries jsonb) RETURNS TABLE(run_id uuid, key text, attempt integer, answer text, retry_at timestamp with time zone, checkpoint jsonb)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.find_run(workflow text, key text) RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.get_value(run_id uuid, name text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.grant_role(role name, kind text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.hold(reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.listen(worker_id uuid, queues text[] DEFAULT NULL::text[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.next_due(worker_id uuid) RETURNS interval
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.pause(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.pause_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.put_queue(name text, retention interval DEFAULT NULL::interval, failed_retention interval DEFAULT NULL::interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.put_setting(name text, value jsonb, reason text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.put_workflow(name text, queue text DEFAULT 'default'::text, timeout interval DEFAULT NULL::interval, max_recoveries integer DEFAULT 10) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.read_steps(run_id uuid, after integer DEFAULT 0, max_bytes integer DEFAULT 262144) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.recorded_since(since timestamp with time zone) RETURNS TABLE(at timestamp with time zone, what text, run_id uuid, workflow text, run_key text, key text, detail jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.recover() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.register_worker(queues text[], workflows text[], name text DEFAULT NULL::text, version text DEFAULT NULL::text, lease interval DEFAULT '00:00:30'::interval, is_direct boolean DEFAULT false) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.release_runs(worker_id uuid, releases jsonb) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.result(run_id uuid) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.resume(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.resume_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.retry(run_id uuid, from_step text DEFAULT NULL::text, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.retry_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.revoke_role(role name, kind text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.rotate() RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET default_tablespace TO ''
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.run_results(run_ids uuid[]) RETURNS TABLE(run_id uuid, status text, result jsonb, error jsonb, finished_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE PROCEDURE perdure.run_ticks(IN max_seconds integer DEFAULT 58, IN every interval DEFAULT '00:00:01'::interval)
    LANGUAGE plpgsql
    AS $$…$$;

CREATE FUNCTION perdure.save_steps(worker_id uuid, saves jsonb) RETURNS TABLE(run_id uuid, key text, answer text, result jsonb, error jsonb, ordinal integer, kind text, fingerprint text, saved_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.save_transaction_step(worker_id uuid, save jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '2s'
    AS $$…$$;

CREATE FUNCTION perdure.selftest() RETURNS TABLE(invariant text, violations bigint)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.signal(run_id uuid, name text, payload jsonb DEFAULT '{}'::jsonb, id text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.signal_key(workflow text, key text, name text, payload jsonb DEFAULT '{}'::jsonb, id text DEFAULT NULL::text, start_input jsonb DEFAULT NULL::jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.start(workflow text, input jsonb DEFAULT '{}'::jsonb, key text DEFAULT NULL::text, on_duplicate text DEFAULT 'attach'::text, queue text DEFAULT NULL::text, priority integer DEFAULT 3, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, deadline timestamp with time zone DEFAULT NULL::timestamp with time zone, timeout interval DEFAULT NULL::interval, tags jsonb DEFAULT '{}'::jsonb, max_recoveries integer DEFAULT NULL::integer, headers jsonb DEFAULT '{}'::jsonb) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.start_many(workflow text, inputs jsonb[], keys text[] DEFAULT NULL::text[], on_duplicate text DEFAULT 'attach'::text, queue text DEFAULT NULL::text, priority integer DEFAULT 3, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, tags jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(ordinal integer, run_id uuid, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.start_run(workflow text, input jsonb DEFAULT '{}'::jsonb, key text DEFAULT NULL::text, on_duplicate text DEFAULT 'attach'::text, queue text DEFAULT NULL::text, priority integer DEFAULT 3, start_at timestamp with time zone DEFAULT NULL::timestamp with time zone, delay interval DEFAULT NULL::interval, deadline timestamp with time zone DEFAULT NULL::timestamp with time zone, timeout interval DEFAULT NULL::interval, tags jsonb DEFAULT '{}'::jsonb, max_recoveries integer DEFAULT NULL::integer, headers jsonb DEFAULT '{}'::jsonb) RETURNS TABLE(run_id uuid, is_new boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.stop_worker(worker_id uuid) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.suspend_runs(worker_id uuid, suspensions jsonb, keep boolean DEFAULT false) RETURNS TABLE(run_id uuid, answer text, checkpoint jsonb)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.terminate(run_id uuid, reason text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.terminate_many(run_ids uuid[], reason text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, answer text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$…$$;

CREATE FUNCTION perdure.tick() RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE FUNCTION perdure.truncate_wake() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$…$$;

CREATE FUNCTION perdure.unlisten(queues text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$…$$;

CREATE VIEW perdure._cuts AS
 SELECT b.suffix,
    b.begins,
    b.ends,
    to_timestamp((((((('x'::text || "left"(replace((b.begins)::text, '-'::text, ''::text), 12)))::bit(48))::bigint)::numeric / 1000.0))::double precision) AS begins_at,
    to_timestamp((((((('x'::text || "left"(replace((b.ends)::text, '-'::text, ''::text), 12)))::bit(48))::bigint)::numeric / 1000.0))::double precision) AS ends_at
   FROM ( SELECT substr((c.relname)::text, (length('run'::text) + 1)) AS suffix,
            ((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(]''([0-9a-f-]{36})''[)]'::text))[1])::uuid AS begins,
            ((regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO [(]''([0-9a-f-]{36})''[)]'::text))[1])::uuid AS ends
           FROM (pg_inherits i
             JOIN pg_class c ON ((i.inhrelid = c.oid)))
          WHERE (i.inhparent = ('perdure.run'::regclass)::oid)) b;

CREATE VIEW perdure._invariants AS
 SELECT i.invariant,
    i.meaning
   FROM ( VALUES ('a_run_is_unfinished_or_ended'::text,'A run has a row in dispatch or in outcome.'::text), ('an_ended_run_is_not_dispatched'::text,'No run has both.'::text), ('what_is_kept_belongs_to_a_run'::text,'No row of another table names a run that is not there.'::text), ('a_run_has_options_that_a_start_takes'::text,'Priority 1 to 5, a deadline or a time-out, objects as tags and headers.'::text), ('a_dispatch_row_agrees_with_its_run'::text,'What was copied into it is what the run says.'::text), ('a_held_run_has_a_token'::text,'A run that a worker holds has the token of its claim.'::text), ('a_held_run_waits_for_nothing'::text,'A run that a worker holds is not suspended.'::text), ('a_cancel_is_a_way_to_end_in_time'::text,'A cancel says cancelled or timed_out, and when its grace ends.'::text), ('a_key_names_its_run'::text,'A key names a run that was started with it, or one that was dropped.'::text), ('a_suspended_run_can_be_woken'::text,'A run that waits without end waits for a message.'::text), ('what_a_run_waits_for_is_known'::text,'A wait is an object with a time that can be read, or none.'::text), ('a_wait_ends_in_time'::text,'A suspended run is ready no later than the first of its waits ends.'::text), ('a_message_wakes_its_run'::text,'A run whose message is there is ready, or has a wake.'::text), ('a_cancel_wakes_its_run'::text,'A suspended run hears of its cancel at once.'::text), ('an_act_wakes_its_run'::text,'An act that is not answered has a wake.'::text), ('a_wake_is_drained_soon'::text,'No wake of an unfinished run is older than a minute.'::text), ('a_deadline_is_kept'::text,'No run is 5 minutes past its deadline or the end of its grace.'::text), ('a_successor_waits_for_a_run'::text,'A run that replaces another waits until that one has ended.'::text), ('a_successor_is_freed_soon'::text,'That one has ended no longer than a minute ago.'::text), ('a_claim_belongs_to_a_live_worker'::text,'Whoever holds a run is alive, or has just died.'::text), ('a_claim_is_used_once'::text,'No two runs have the same token.'::text), ('a_worker_reports_its_runs'::text,'A live worker knows of the runs that it holds.'::text), ('a_worker_has_a_heartbeat'::text,'A registered worker has a row of its own to beat in.'::text), ('only_a_claimed_run_is_told'::text,'A note to a worker goes when the worker lets go.'::text), ('a_run_dies_after_its_last_recovery'::text,'No run survives more deaths than it may.'::text), ('a_signal_is_consumed_once'::text,'No two waits of a run consumed the same message.'::text), ('a_consumed_signal_was_sent'::text,'What a wait consumed is in the mailbox, under the wait''s name.'::text), ('ordinals_of_a_run_differ'::text,'No two checkpoints of a run have the same place in its order.'::text), ('an_exhausted_step_is_on_record'::text,'A step without a next try has its error as checkpoint.'::text), ('the_install_has_one_row'::text,'It is known what is installed here.'::text), ('partitions_are_cut_alike'::text,'All tables of a run have the same partitions, open at both ends.'::text), ('tables_are_granted_to_nobody'::text,'Whoever is not the owner has views and functions only.'::text)) i(invariant, meaning);

CREATE TABLE perdure.queue (
    name text NOT NULL COLLATE pg_catalog."C",
    retention interval,
    failed_retention interval,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE perdure.setting (
    name text NOT NULL COLLATE pg_catalog."C",
    value jsonb NOT NULL,
    description text NOT NULL
);

CREATE VIEW perdure._retentions AS
 WITH general AS (
         SELECT max(((s.value #>> '{}'::text[]))::interval) FILTER (WHERE (s.name = 'retention'::text)) AS retention,
            max(((s.value #>> '{}'::text[]))::interval) FILTER (WHERE (s.name = 'failed_retention'::text)) AS failed_retention
           FROM perdure.setting s
          WHERE (s.name = ANY (ARRAY['retention'::text, 'failed_retention'::text]))
        )
 SELECT NULL::text AS queue,
    g.retention AS completed,
    g.failed_retention AS failed
   FROM general g
UNION ALL
 SELECT q.name AS queue,
    COALESCE(q.retention, g.retention) AS completed,
    COALESCE(q.failed_retention, GREATEST(q.retention, g.failed_retention)) AS failed
   FROM (perdure.queue q
     CROSS JOIN general g)
  WHERE ((q.retention IS NOT NULL) OR (q.failed_retention IS NOT NULL));

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
            WHEN ((a.act = 'retry'::text) AND (s.state = ANY (ARRAY['failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text]))) THEN 'accepted'::text
            WHEN (a.act = 'retry'::text) THEN 'illegal'::text
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

CREATE TABLE perdure.chore (
    name text NOT NULL COLLATE pg_catalog."C",
    next_at timestamp with time zone NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT chore_is_known CHECK ((name = ANY (ARRAY['periods'::text, 'dropped'::text, 'copy'::text, 'expired'::text, 'keys'::text])))
);

CREATE VIEW perdure.errors AS
 SELECT e.sqlstate,
    e.name,
    e.meaning
   FROM ( VALUES ('PD001'::text,'run_not_found'::text,'No run has this id or key.'::text), ('PD002'::text,'claim_lost'::text,'The worker lost the run, or is not registered any more; it must drop what it holds.'::text), ('PD003'::text,'run_finished'::text,'The run has ended, so the act has no effect.'::text), ('PD004'::text,'held'::text,'The install is on hold, and what was asked for cannot be done on hold.'::text), ('PD005'::text,'key_conflict'::text,'The key is taken: by a run with another input, or it was asked to be new.'::text), ('PD007'::text,'not_finished'::text,'The run has no result yet.'::text), ('PD008'::text,'run_failed'::text,'The run failed; the detail holds its error.'::text), ('PD009'::text,'illegal_act'::text,'The act does not fit the state of the run.'::text), ('PD010'::text,'limit_exceeded'::text,'A payload is larger than the install allows.'::text), ('PD012'::text,'run_cancelled'::text,'The run was cancelled.'::text), ('PD013'::text,'run_timed_out'::text,'The run ran into its deadline.'::text), ('PD014'::text,'run_terminated'::text,'The run was terminated.'::text), ('PD015'::text,'run_dead'::text,'The run was given up after too many deaths of its workers.'::text)) e(sqlstate, name, meaning);

CREATE TABLE perdure.signal (
    run_id uuid NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
)
PARTITION BY RANGE (run_id);

CREATE VIEW perdure.history AS
 SELECT r.run_id,
    r.created_at AS at,
    'run started'::text AS what,
    r.key,
    jsonb_strip_nulls(jsonb_build_object('workflow', r.workflow, 'queue', r.queue, 'by', r.created_by, 'start_at', r.start_at)) AS detail
   FROM perdure.run r
UNION ALL
 SELECT d.run_id,
    d.claimed_at AS at,
    'run claimed'::text AS what,
    NULL::text AS key,
    jsonb_strip_nulls(jsonb_build_object('worker', w.name, 'worker_id', d.worker_id, 'recoveries', NULLIF(d.recoveries, 0))) AS detail
   FROM (perdure.dispatch d
     LEFT JOIN perdure.worker w ON ((d.worker_id = w.worker_id)))
  WHERE (d.claimed_at IS NOT NULL)
UNION ALL
 SELECT s.run_id,
    s.saved_at AS at,
        CASE
            WHEN ((s.kind = 'signal'::text) AND (s.signal_id IS NULL)) THEN 'wait timed out'::text
            WHEN (s.kind = 'signal'::text) THEN 'signal consumed'::text
            WHEN (s.kind = ANY (ARRAY['sleep'::text, 'timer'::text])) THEN (s.kind || ' ended'::text)
            WHEN (s.kind = 'cancel'::text) THEN 'cancel delivered'::text
            WHEN (s.kind = 'started'::text) THEN 'step began'::text
            WHEN (s.error IS NOT NULL) THEN 'step failed'::text
            ELSE (
            CASE s.kind
                WHEN 'value'::text THEN 'value'::text
                ELSE 'step'::text
            END || ' saved'::text)
        END AS what,
    s.key,
    jsonb_strip_nulls(jsonb_build_object('ordinal', s.ordinal, 'kind', s.kind, 'name', s.name, 'attempt', NULLIF(s.attempt, 1), 'signal_id', s.signal_id, 'started_at', s.started_at, 'type', (s.error ->> 'type'::text), 'message', (s.error ->> 'message'::text))) AS detail
   FROM perdure.step s
UNION ALL
 SELECT t.run_id,
    t.failed_at AS at,
    'try failed'::text AS what,
    t.key,
    jsonb_strip_nulls(jsonb_build_object('attempt', t.attempt, 'type', (t.error ->> 'type'::text), 'message', (t.error ->> 'message'::text), 'started_at', t.started_at, 'retry_at', t.retry_at)) AS detail
   FROM perdure.step_attempt t
UNION ALL
 SELECT s.run_id,
    s.sent_at AS at,
    'signal sent'::text AS what,
    s.name AS key,
    jsonb_build_object('id', s.id, 'by', s.sent_by) AS detail
   FROM perdure.signal s
UNION ALL
 SELECT a.run_id,
    a.asked_at AS at,
    (a.act || ' asked'::text) AS what,
    NULL::text AS key,
    jsonb_strip_nulls(jsonb_build_object('reason', a.reason, 'by', a.asked_by, 'grace', a.grace)) AS detail
   FROM perdure.act a
UNION ALL
 SELECT a.run_id,
    a.applied_at AS at,
    (a.act || ' answered'::text) AS what,
    NULL::text AS key,
    jsonb_build_object('answer', a.answer) AS detail
   FROM perdure.act a
  WHERE (a.applied_at IS NOT NULL)
UNION ALL
 SELECT a.run_id,
    a.done_at AS at,
    a.act AS what,
    NULL::text AS key,
    jsonb_strip_nulls((jsonb_build_object('reason', a.reason, 'by', a.done_by, 'was', ((a.detail -> 'outcome'::text) ->> 'status'::text)) || ((a.detail - 'outcome'::text) - 'steps'::text))) AS detail
   FROM perdure.audit a
  WHERE ((a.run_id IS NOT NULL) AND (a.act <> ALL (ARRAY['cancel'::text, 'terminate'::text, 'pause'::text, 'resume'::text])))
UNION ALL
 SELECT o.run_id,
    o.finished_at AS at,
    ('run '::text || o.status) AS what,
    NULL::text AS key,
    COALESCE(o.error, '{}'::jsonb) AS detail
   FROM perdure.outcome o;

CREATE TABLE perdure.install (
    is_installed boolean DEFAULT true NOT NULL,
    version text NOT NULL,
    installed_at timestamp with time zone DEFAULT transaction_timestamp() NOT NULL,
    installed_by name DEFAULT SESSION_USER NOT NULL,
    system_identifier bigint NOT NULL,
    database_id oid NOT NULL,
    database_name name NOT NULL,
    table_id oid NOT NULL,
    held_at timestamp with time zone,
    held_by name,
    hold_reason text,
    ended_reason text,
    ended_server_at timestamp with time zone,
    CONSTRAINT install_has_one_row CHECK (is_installed),
    CONSTRAINT install_hold_has_a_time_and_a_reason CHECK (((held_at IS NULL) = (hold_reason IS NULL)))
);

CREATE VIEW perdure.holds AS
 SELECT h.reason,
    h.held_at,
    h.held_by,
    h.is_copy
   FROM ( SELECT
                CASE
                    WHEN (i.held_at IS NOT NULL) THEN i.hold_reason
                    WHEN i.is_copy THEN 'this is not the database that was installed: it is a restored dump, a copy, or a cluster after pg_upgrade'::text
                    WHEN ((i.ended_reason = current_setting('perdure.hold'::text, true)) AND (i.ended_server_at = pg_postmaster_start_time())) THEN NULL::text
                    ELSE NULLIF(current_setting('perdure.hold'::text, true), ''::text)
                END AS reason,
            i.held_at,
            i.held_by,
            i.is_copy
           FROM ( SELECT n.is_installed,
                    n.version,
                    n.installed_at,
                    n.installed_by,
                    n.system_identifier,
                    n.database_id,
                    n.database_name,
                    n.table_id,
                    n.held_at,
                    n.held_by,
                    n.hold_reason,
                    n.ended_reason,
                    n.ended_server_at,
                    ((n.table_id <> n.tableoid) OR (n.system_identifier <> (pg_control_system()).system_identifier) OR COALESCE((n.database_id <> ( SELECT d.oid
                           FROM pg_database d
                          WHERE (d.datname = current_database()))), true)) AS is_copy
                   FROM perdure.install n
                  WHERE n.is_installed
                 OFFSET 0) i) h
  WHERE (h.reason IS NOT NULL);

CREATE VIEW perdure.periods AS
 WITH size AS (
         SELECT p.relname,
            t.relname AS parent,
            pg_total_relation_size((p.oid)::regclass) AS bytes
           FROM ((pg_class t
             JOIN pg_inherits i ON ((t.oid = i.inhparent)))
             JOIN pg_class p ON ((i.inhrelid = p.oid)))
          WHERE ((t.relnamespace = ('perdure'::regnamespace)::oid) AND (t.relkind = 'p'::"char"))
        ), kept AS (
         SELECT min(k_1.completed) AS span,
            GREATEST(max(k_1.completed), max(k_1.failed)) AS failed_span
           FROM perdure._retentions k_1
        )
 SELECT ('run'::text || c.suffix) AS name,
    c.begins_at,
    c.ends_at,
    ( SELECT (sum(z.bytes))::bigint AS sum
           FROM size z
          WHERE (z.relname = ((z.parent)::text || c.suffix))) AS bytes,
        CASE
            WHEN (c.begins IS NULL) THEN NULL::timestamp with time zone
            WHEN ((h.detail ->> 'waits'::text) = c.suffix) THEN (c.ends_at + k.span)
            WHEN (c.ends <= ((d.detail ->> 'to'::text))::uuid) THEN (c.ends_at + k.failed_span)
            ELSE (c.ends_at + k.span)
        END AS due_at,
        CASE
            WHEN ((h.detail ->> 'waits'::text) = c.suffix) THEN format('more than 3,000 of its runs, or of large ones less, are unfinished, since %s'::text, (h.detail ->> 'since'::text))
            ELSE NULL::text
        END AS waits
   FROM (((perdure._cuts c
     CROSS JOIN kept k)
     LEFT JOIN perdure.chore h ON ((h.name = 'periods'::text)))
     LEFT JOIN perdure.chore d ON ((d.name = 'dropped'::text)));

CREATE VIEW perdure.stuck WITH (security_barrier='true') AS
 SELECT s.run_id,
    s.workflow,
    s.queue,
    s.state,
    s.reason,
    s.since,
        CASE
            WHEN isfinite(s.since) THEN (( SELECT perdure._clock() AS _clock) - s.since)
            ELSE NULL::interval
        END AS age
   FROM ( SELECT u.run_id,
            u.workflow,
            u.queue,
            u.state,
                CASE
                    WHEN (u.worker_id IS NOT NULL) THEN
                    CASE
                        WHEN (NOT COALESCE(w.is_alive, false)) THEN 'worker_is_silent'::text
                        ELSE NULL::text
                    END
                    WHEN u.is_paused THEN 'paused'::text
                    WHEN (u.ready_at > ( SELECT perdure._clock() AS _clock)) THEN NULL::text
                    WHEN (EXISTS ( SELECT
                       FROM perdure.holds)) THEN 'held'::text
                    WHEN (q.queue IS NULL) THEN 'no_worker_takes_the_queue'::text
                    WHEN (k.workflow IS NULL) THEN 'no_worker_knows_the_workflow'::text
                    WHEN (u.ready_at > (( SELECT perdure._clock() AS _clock) - '00:01:00'::interval)) THEN NULL::text
                    WHEN (u.recoveries >= 2) THEN 'suspect'::text
                    ELSE 'ready_for_long'::text
                END AS reason,
                CASE
                    WHEN (u.worker_id IS NOT NULL) THEN COALESCE(w.beat_at, u.claimed_at)
                    WHEN u.is_paused THEN ( SELECT max(a.applied_at) AS max
                       FROM perdure.act a
                      WHERE ((a.run_id = u.run_id) AND (a.act = 'pause'::text) AND (a.answer = 'accepted'::text)))
                    ELSE u.ready_at
                END AS since
           FROM (((perdure._unfinished u
             LEFT JOIN perdure.workers w ON ((u.worker_id = w.worker_id)))
             LEFT JOIN ( SELECT DISTINCT t.queue
                   FROM (perdure.workers l
                     CROSS JOIN LATERAL unnest(l.queues) t(queue))
                  WHERE l.is_alive) q ON ((u.queue = q.queue)))
             LEFT JOIN ( SELECT DISTINCT t.queue,
                    f.workflow
                   FROM ((perdure.workers l
                     CROSS JOIN LATERAL unnest(l.queues) t(queue))
                     CROSS JOIN LATERAL unnest(l.workflows) f(workflow))
                  WHERE l.is_alive) k ON (((u.queue = k.queue) AND (u.workflow = k.workflow))))) s
  WHERE (s.reason IS NOT NULL);

CREATE TABLE perdure.timeline (
    timeline integer NOT NULL,
    since timestamp with time zone NOT NULL,
    calm_since timestamp with time zone NOT NULL,
    watched_since timestamp with time zone NOT NULL,
    ticked_at timestamp with time zone,
    reached_at timestamp with time zone
);

CREATE VIEW perdure.versions AS
 SELECT w.version,
    count(*) AS workers,
    (sum(w.runs))::bigint AS runs,
    min(w.registered_at) AS first_registered_at,
    max(w.registered_at) AS last_registered_at
   FROM perdure.workers w
  WHERE w.is_alive
  GROUP BY w.version;

CREATE TABLE perdure.wake (
    run_id uuid NOT NULL,
    told_at timestamp with time zone NOT NULL
);

CREATE VIEW perdure.metrics AS
 WITH counted AS (
         SELECT u.queue,
            u.state,
            count(*) AS runs,
            count(*) FILTER (WHERE (u.recoveries >= 2)) AS suspects,
            min(u.ready_at) AS ready_at
           FROM perdure._unfinished u
          GROUP BY u.queue, u.state
        )
 SELECT 'perdure_runs'::text AS name,
    jsonb_build_object('queue', c.queue, 'state', c.state) AS labels,
    (c.runs)::double precision AS value
   FROM counted c
UNION ALL
 SELECT 'perdure_suspect_runs'::text AS name,
    jsonb_build_object('queue', c.queue) AS labels,
    (sum(c.suspects))::double precision AS value
   FROM counted c
  GROUP BY c.queue
UNION ALL
 SELECT 'perdure_oldest_ready_age_seconds'::text AS name,
    jsonb_build_object('queue', c.queue) AS labels,
    (EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - c.ready_at)))::double precision AS value
   FROM counted c
  WHERE ((c.state = 'ready'::text) AND isfinite(c.ready_at))
UNION ALL
 SELECT 'perdure_workers'::text AS name,
    jsonb_build_object('version', COALESCE(v.version, ''::text)) AS labels,
    (v.workers)::double precision AS value
   FROM perdure.versions v
UNION ALL
 SELECT 'perdure_worker_runs'::text AS name,
    jsonb_build_object('worker', w.name, 'worker_id', w.worker_id) AS labels,
    (w.runs)::double precision AS value
   FROM perdure.workers w
UNION ALL
 SELECT 'perdure_worker_beat_age_seconds'::text AS name,
    jsonb_build_object('worker', w.name, 'worker_id', w.worker_id) AS labels,
    (EXTRACT(epoch FROM w.beat_age))::double precision AS value
   FROM perdure.workers w
  WHERE (w.beat_age IS NOT NULL)
UNION ALL
 SELECT 'perdure_last_tick_age_seconds'::text AS name,
    '{}'::jsonb AS labels,
    (EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - max(t.ticked_at))))::double precision AS value
   FROM perdure.timeline t
 HAVING (max(t.ticked_at) IS NOT NULL)
UNION ALL
 SELECT 'perdure_failover_age_seconds'::text AS name,
    jsonb_build_object('timeline', (max(t.timeline))::text) AS labels,
    (EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - max(t.since))))::double precision AS value
   FROM perdure.timeline t
 HAVING (count(*) > 1)
UNION ALL
 SELECT 'perdure_held'::text AS name,
    '{}'::jsonb AS labels,
    (count(*))::double precision AS value
   FROM perdure.holds
UNION ALL
 SELECT 'perdure_undrained_wakes'::text AS name,
    '{}'::jsonb AS labels,
    (count(*))::double precision AS value
   FROM perdure.wake
UNION ALL
 SELECT 'perdure_oldest_wake_age_seconds'::text AS name,
    '{}'::jsonb AS labels,
    (COALESCE(EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - min(w.told_at))), (0)::numeric))::double precision AS value
   FROM perdure.wake w
UNION ALL
 SELECT 'perdure_periods'::text AS name,
    '{}'::jsonb AS labels,
    (count(*))::double precision AS value
   FROM perdure.periods
UNION ALL
 SELECT 'perdure_retention_overdue_seconds'::text AS name,
    '{}'::jsonb AS labels,
    (GREATEST(EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - min(p.due_at))), (0)::numeric))::double precision AS value
   FROM perdure.periods p
UNION ALL
 SELECT 'perdure_last_period_age_seconds'::text AS name,
    '{}'::jsonb AS labels,
    (GREATEST(EXTRACT(epoch FROM (( SELECT perdure._clock() AS _clock) - max(p.begins_at))), (0)::numeric))::double precision AS value
   FROM perdure.periods p
UNION ALL
 SELECT 'perdure_stuck_runs'::text AS name,
    jsonb_build_object('reason', s.reason) AS labels,
    (count(*))::double precision AS value
   FROM perdure.stuck s
  GROUP BY s.reason
UNION ALL
 SELECT 'perdure_ended_runs_of_last_hour'::text AS name,
    jsonb_build_object('status', o.status) AS labels,
    (count(*))::double precision AS value
   FROM perdure.outcome o
  WHERE (o.run_id >= (rpad(lpad(to_hex(((EXTRACT(epoch FROM (perdure._clock() - '01:00:00'::interval)) * (1000)::numeric))::bigint), 12, '0'::text), 32, '0'::text))::uuid)
  GROUP BY o.status;

CREATE TABLE perdure.outcome_<period> (
    run_id uuid NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    result jsonb,
    error jsonb,
    begun_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
);

CREATE TABLE perdure.outcome_<period> (
    run_id uuid NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    result jsonb,
    error jsonb,
    begun_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
);

CREATE TABLE perdure.outcome_old (
    run_id uuid NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    result jsonb,
    error jsonb,
    begun_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    claim uuid,
    CONSTRAINT outcome_has_a_result_only_when_completed CHECK (((result IS NOT NULL) = (status = 'completed'::text))),
    CONSTRAINT outcome_has_an_error_unless_completed CHECK (((status = ANY (ARRAY['completed'::text, 'continued'::text])) OR (error IS NOT NULL))),
    CONSTRAINT outcome_status_is_known CHECK ((status = ANY (ARRAY['completed'::text, 'failed'::text, 'cancelled'::text, 'timed_out'::text, 'terminated'::text, 'dead'::text, 'continued'::text])))
);

CREATE VIEW perdure.queues AS
 WITH counted AS (
         SELECT u.queue,
            u.state,
            count(*) AS runs,
            min(u.ready_at) AS ready_at
           FROM perdure._unfinished u
          GROUP BY u.queue, u.state
        ), pivoted AS (
         SELECT n.queue,
            sum(n.runs) FILTER (WHERE (n.state = 'scheduled'::text)) AS scheduled,
            sum(n.runs) FILTER (WHERE (n.state = 'ready'::text)) AS ready,
            sum(n.runs) FILTER (WHERE (n.state = 'running'::text)) AS running,
            sum(n.runs) FILTER (WHERE (n.state = 'sleeping'::text)) AS sleeping,
            sum(n.runs) FILTER (WHERE (n.state = 'waiting'::text)) AS waiting,
            sum(n.runs) FILTER (WHERE (n.state = 'backing_off'::text)) AS backing_off,
            sum(n.runs) FILTER (WHERE (n.state = 'paused'::text)) AS paused,
            sum(n.runs) FILTER (WHERE (n.state = 'cancelling'::text)) AS cancelling,
            min(n.ready_at) FILTER (WHERE (n.state = 'ready'::text)) AS oldest_ready_at
           FROM counted n
          GROUP BY n.queue
        )
 SELECT COALESCE(q.name, c.queue) AS name,
    ( SELECT count(*) AS count
           FROM perdure.workers w
          WHERE (w.is_alive AND (COALESCE(q.name, c.queue) = ANY (w.queues)))) AS workers,
    (COALESCE(c.scheduled, (0)::numeric))::bigint AS scheduled,
    (COALESCE(c.ready, (0)::numeric))::bigint AS ready,
    (COALESCE(c.running, (0)::numeric))::bigint AS running,
    (COALESCE(c.sleeping, (0)::numeric))::bigint AS sleeping,
    (COALESCE(c.waiting, (0)::numeric))::bigint AS waiting,
    (COALESCE(c.backing_off, (0)::numeric))::bigint AS backing_off,
    (COALESCE(c.paused, (0)::numeric))::bigint AS paused,
    (COALESCE(c.cancelling, (0)::numeric))::bigint AS cancelling,
    c.oldest_ready_at,
        CASE
            WHEN isfinite(c.oldest_ready_at) THEN (( SELECT perdure._clock() AS _clock) - c.oldest_ready_at)
            ELSE NULL::interval
        END AS oldest_ready_age,
    q.retention,
    q.failed_retention
   FROM (perdure.queue q
     FULL JOIN pivoted c ON ((q.name = c.queue)));

CREATE TABLE perdure.role_grant (
    role_name name NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    granted_at timestamp with time zone DEFAULT transaction_timestamp() NOT NULL,
    granted_by name DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT role_grant_kind_is_known CHECK ((kind = ANY (ARRAY['client'::text, 'worker'::text, 'observer'::text, 'admin'::text])))
);

CREATE TABLE perdure.run_<period> (
    run_id uuid NOT NULL,
    workflow text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text COLLATE pg_catalog."C",
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    predecessor_id uuid,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL
);

CREATE TABLE perdure.run_<period> (
    run_id uuid NOT NULL,
    workflow text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text COLLATE pg_catalog."C",
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    predecessor_id uuid,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL
);

CREATE TABLE perdure.run_old (
    run_id uuid NOT NULL,
    workflow text NOT NULL COLLATE pg_catalog."C",
    queue text NOT NULL COLLATE pg_catalog."C",
    priority smallint NOT NULL,
    input jsonb NOT NULL,
    key text COLLATE pg_catalog."C",
    tags jsonb NOT NULL,
    headers jsonb NOT NULL,
    start_at timestamp with time zone,
    deadline timestamp with time zone,
    timeout interval,
    max_recoveries integer NOT NULL,
    scheduled_at timestamp with time zone,
    predecessor_id uuid,
    created_at timestamp with time zone NOT NULL,
    created_by text NOT NULL
);

CREATE VIEW perdure.settings AS
 SELECT s.name,
    s.value,
    s.description
   FROM perdure.setting s;

CREATE TABLE perdure.signal_<period> (
    run_id uuid NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);

CREATE TABLE perdure.signal_<period> (
    run_id uuid NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    payload jsonb NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    sequence bigint NOT NULL,
    sent_by text NOT NULL,
    CONSTRAINT signal_id_is_short_and_not_empty CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);

CREATE TABLE perdure.signal_old (
    run_id uuid NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
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

CREATE VIEW perdure.signals AS
 SELECT s.run_id,
    s.id,
    s.name,
    s.payload,
    s.sent_at,
    s.sent_by,
    (c.run_id IS NOT NULL) AS is_consumed,
    c.key AS consumed_by,
    c.saved_at AS consumed_at
   FROM (perdure.signal s
     LEFT JOIN perdure.step c ON (((s.run_id = c.run_id) AND (s.id = c.signal_id))));

CREATE TABLE perdure.step_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE pg_catalog."C",
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text COLLATE pg_catalog."C",
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_has_1_to_1000_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
);

CREATE TABLE perdure.step_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE pg_catalog."C",
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text COLLATE pg_catalog."C",
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_has_1_to_1000_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
);

CREATE TABLE perdure.step_attempt_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
);

CREATE TABLE perdure.step_attempt_<period> (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
);

CREATE TABLE perdure.step_attempt_old (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    error jsonb NOT NULL,
    started_at timestamp with time zone,
    failed_at timestamp with time zone NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT step_attempt_counts_from_1 CHECK ((attempt >= 1))
);

CREATE TABLE perdure.step_old (
    run_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    ordinal integer NOT NULL,
    name text COLLATE pg_catalog."C",
    fingerprint bytea,
    result jsonb,
    error jsonb,
    signal_id text COLLATE pg_catalog."C",
    attempt integer DEFAULT 1 NOT NULL,
    started_at timestamp with time zone,
    saved_at timestamp with time zone NOT NULL,
    CONSTRAINT step_consumes_a_signal_only_as_a_wait CHECK (((signal_id IS NULL) OR (kind = 'signal'::text))),
    CONSTRAINT step_fingerprint_has_16_bytes CHECK ((octet_length(fingerprint) = 16)),
    CONSTRAINT step_has_a_result_or_an_error_not_both CHECK (((result IS NULL) OR (error IS NULL))),
    CONSTRAINT step_key_has_1_to_1000_bytes CHECK (((octet_length(key) >= 1) AND (octet_length(key) <= 1000))),
    CONSTRAINT step_kind_is_known CHECK ((kind = ANY (ARRAY['step'::text, 'transaction'::text, 'sql'::text, 'value'::text, 'signal'::text, 'sleep'::text, 'timer'::text, 'cancel'::text, 'started'::text]))),
    CONSTRAINT step_without_result_and_error_is_a_wait CHECK (((result IS NOT NULL) OR (error IS NOT NULL) OR (kind = ANY (ARRAY['signal'::text, 'sleep'::text, 'timer'::text]))))
);

CREATE VIEW perdure.steps AS
 SELECT s.run_id,
    s.ordinal,
    s.key,
    s.kind,
        CASE
            WHEN (s.error IS NULL) THEN 'completed'::text
            ELSE 'failed'::text
        END AS state,
    s.name,
    s.result,
    s.error,
    s.attempt AS attempts,
    NULL::timestamp with time zone AS retry_at,
    s.started_at,
    s.saved_at,
        CASE
            WHEN isfinite(s.started_at) THEN (s.saved_at - s.started_at)
            ELSE NULL::interval
        END AS duration,
    s.signal_id,
    encode(s.fingerprint, 'hex'::text) AS fingerprint
   FROM perdure.step s
UNION ALL
 SELECT f.run_id,
    NULL::integer AS ordinal,
    f.key,
    NULL::text AS kind,
    'backing_off'::text AS state,
    NULL::text AS name,
    NULL::jsonb AS result,
    f.error,
    f.attempt AS attempts,
    f.retry_at,
    f.started_at,
    NULL::timestamp with time zone AS saved_at,
    NULL::interval AS duration,
    NULL::text AS signal_id,
    NULL::text AS fingerprint
   FROM ( SELECT DISTINCT ON (t.run_id, t.key) t.run_id,
            t.key,
            t.attempt,
            t.error,
            t.started_at,
            t.failed_at,
            t.retry_at
           FROM perdure.step_attempt t
          ORDER BY t.run_id, t.key, t.attempt DESC) f
  WHERE (NOT (EXISTS ( SELECT
           FROM perdure.step s
          WHERE ((s.run_id = f.run_id) AND (s.key = f.key)))));

CREATE VIEW perdure.violations WITH (security_barrier='true') AS
 WITH cut AS (
         SELECT c.relname,
            string_agg(p.bounds, ', '::text ORDER BY p.bounds) AS bounds
           FROM (((pg_class c
             LEFT JOIN pg_inherits i ON ((c.oid = i.inhparent)))
             LEFT JOIN pg_class b ON ((i.inhrelid = b.oid)))
             CROSS JOIN LATERAL pg_get_expr(b.relpartbound, b.oid) p(bounds))
          WHERE ((c.relnamespace = ('perdure'::regnamespace)::oid) AND (c.relkind = 'p'::"char"))
          GROUP BY c.relname
        )
 SELECT 'a_run_is_unfinished_or_ended'::text AS invariant,
    r.run_id,
    'neither a dispatch row nor an outcome'::text AS detail
   FROM perdure.run r
  WHERE ((NOT (EXISTS ( SELECT
           FROM perdure.dispatch d
          WHERE (d.run_id = r.run_id)))) AND (NOT (EXISTS ( SELECT
           FROM perdure.outcome o
          WHERE (o.run_id = r.run_id)))))
UNION ALL
 SELECT 'an_ended_run_is_not_dispatched'::text AS invariant,
    d.run_id,
    ('it ended as '::text || o.status) AS detail
   FROM (perdure.dispatch d
     JOIN perdure.outcome o ON ((d.run_id = o.run_id)))
UNION ALL
 SELECT 'what_is_kept_belongs_to_a_run'::text AS invariant,
    k.run_id,
    ('a row of '::text || k.kept_in) AS detail
   FROM ( SELECT d.run_id,
            'dispatch'::text AS kept_in
           FROM perdure.dispatch d
        UNION ALL
         SELECT o.run_id,
            'outcome'::text
           FROM perdure.outcome o
        UNION ALL
         SELECT s.run_id,
            'step'::text
           FROM perdure.step s
        UNION ALL
         SELECT t.run_id,
            'step_attempt'::text
           FROM perdure.step_attempt t
        UNION ALL
         SELECT s.run_id,
            'signal'::text
           FROM perdure.signal s
        UNION ALL
         SELECT a.run_id,
            'act'::text
           FROM perdure.act a) k
  WHERE (NOT (EXISTS ( SELECT
           FROM perdure.run r
          WHERE (r.run_id = k.run_id))))
UNION ALL
 SELECT 'a_run_has_options_that_a_start_takes'::text AS invariant,
    r.run_id,
    format('priority %s, deadline %s, timeout %s, tags %s, headers %s'::text, r.priority, r.deadline, r.timeout, jsonb_typeof(r.tags), jsonb_typeof(r.headers)) AS detail
   FROM perdure.run r
  WHERE (((r.priority < 1) OR (r.priority > 5)) OR ((r.deadline IS NOT NULL) AND (r.timeout IS NOT NULL)) OR (jsonb_typeof(r.tags) <> 'object'::text) OR (jsonb_typeof(r.headers) <> 'object'::text))
UNION ALL
 SELECT 'a_dispatch_row_agrees_with_its_run'::text AS invariant,
    d.run_id,
    format('workflow %s, queue %s, priority %s'::text, d.workflow, d.queue, d.priority) AS detail
   FROM (perdure.dispatch d
     JOIN perdure.run r ON ((d.run_id = r.run_id)))
  WHERE ((d.workflow <> r.workflow) OR (d.queue <> r.queue) OR (d.priority <> r.priority) OR (d.max_recoveries <> r.max_recoveries))
UNION ALL
 SELECT 'a_held_run_has_a_token'::text AS invariant,
    d.run_id,
    format('worker %s'::text, d.worker_id) AS detail
   FROM perdure.dispatch d
  WHERE ((d.worker_id IS NOT NULL) AND (d.claim IS NULL))
UNION ALL
 SELECT 'a_held_run_waits_for_nothing'::text AS invariant,
    d.run_id,
    format('worker %s'::text, d.worker_id) AS detail
   FROM perdure.dispatch d
  WHERE ((d.worker_id IS NOT NULL) AND (d.waits IS NOT NULL))
UNION ALL
 SELECT 'a_cancel_is_a_way_to_end_in_time'::text AS invariant,
    d.run_id,
    format('%s, ends at %s'::text, d.cancel, d.ends_at) AS detail
   FROM perdure.dispatch d
  WHERE ((d.cancel <> ALL (ARRAY['cancelled'::text, 'timed_out'::text])) OR ((d.cancel IS NOT NULL) AND (d.ends_at IS NULL)))
UNION ALL
 SELECT 'a_key_names_its_run'::text AS invariant,
    k.run_id,
    format('key %s of workflow %s'::text, k.key, k.workflow) AS detail
   FROM ((perdure.run_key k
     LEFT JOIN perdure.run r ON ((k.run_id = r.run_id)))
     LEFT JOIN perdure.chore g ON ((g.name = 'dropped'::text)))
  WHERE
        CASE
            WHEN (r.run_id IS NULL) THEN (k.run_id >= COALESCE(((g.detail ->> 'to'::text))::uuid, k.run_id))
            ELSE ((r.workflow IS DISTINCT FROM k.workflow) OR (r.key IS DISTINCT FROM k.key))
        END
UNION ALL
 SELECT 'a_suspended_run_can_be_woken'::text AS invariant,
    d.run_id,
    'it waits for nothing that can come'::text AS detail
   FROM (perdure.dispatch d
     LEFT JOIN perdure.run r ON ((d.run_id = r.run_id)))
  WHERE ((d.worker_id IS NULL) AND (d.ready_at = 'infinity'::timestamp with time zone) AND (d.predecessor_id IS NULL) AND (r.start_at IS DISTINCT FROM 'infinity'::timestamp with time zone) AND (NOT COALESCE((d.waits @? '$[*]?(@."kind" == "signal")'::jsonpath), false)))
UNION ALL
 SELECT 'what_a_run_waits_for_is_known'::text AS invariant,
    d.run_id,
    format('readable is %s'::text, u.waits) AS detail
   FROM (perdure.dispatch d
     JOIN perdure._unfinished u ON ((d.run_id = u.run_id)))
  WHERE ((jsonb_typeof(d.waits) <> 'array'::text) OR (jsonb_array_length(u.waits) < jsonb_array_length(jsonb_path_query_array(d.waits, '$[*]'::jsonpath))))
UNION ALL
 SELECT 'a_wait_ends_in_time'::text AS invariant,
    d.run_id,
    format('it ends at %s, ready at %s'::text, w.until, d.ready_at) AS detail
   FROM (perdure._unfinished d
     CROSS JOIN LATERAL ( SELECT min(j.until) AS until
           FROM jsonb_to_recordset(d.waits) j(until timestamp with time zone)) w)
  WHERE ((d.waits IS NOT NULL) AND (d.ready_at > w.until) AND (d.ready_at > ( SELECT perdure._clock() AS _clock)))
UNION ALL
 SELECT DISTINCT 'a_message_wakes_its_run'::text AS invariant,
    d.run_id,
    format('signal %s'::text, s.name) AS detail
   FROM ((perdure._unfinished d
     CROSS JOIN LATERAL jsonb_to_recordset(d.waits) w(kind text, name text))
     JOIN perdure.signal s ON (((d.run_id = s.run_id) AND (w.name = s.name))))
  WHERE ((d.waits IS NOT NULL) AND (NOT d.is_paused) AND (d.ready_at > ( SELECT perdure._clock() AS _clock)) AND (w.kind = 'signal'::text) AND (NOT (EXISTS ( SELECT
           FROM perdure.step c
          WHERE ((c.run_id = s.run_id) AND (c.signal_id = s.id))))) AND (NOT (EXISTS ( SELECT
           FROM perdure.wake k
          WHERE (k.run_id = d.run_id)))))
UNION ALL
 SELECT 'a_cancel_wakes_its_run'::text AS invariant,
    d.run_id,
    format('%s, ready at %s'::text, d.cancel, d.ready_at) AS detail
   FROM perdure.dispatch d
  WHERE ((d.waits IS NOT NULL) AND (d.cancel IS NOT NULL) AND (NOT d.is_paused) AND (d.ready_at > ( SELECT perdure._clock() AS _clock)) AND (NOT (EXISTS ( SELECT
           FROM perdure.step s
          WHERE ((s.run_id = d.run_id) AND (s.kind = 'cancel'::text))))))
UNION ALL
 SELECT 'an_act_wakes_its_run'::text AS invariant,
    a.run_id,
    format('%s, asked at %s'::text, a.act, a.asked_at) AS detail
   FROM (perdure.act a
     JOIN perdure.dispatch d ON ((a.run_id = d.run_id)))
  WHERE ((a.applied_at IS NULL) AND (NOT (EXISTS ( SELECT
           FROM perdure.wake k
          WHERE (k.run_id = a.run_id)))))
UNION ALL
 SELECT 'a_wake_is_drained_soon'::text AS invariant,
    k.run_id,
    format('told at %s; does anybody tick?'::text, k.told_at) AS detail
   FROM (perdure.wake k
     JOIN perdure.dispatch d ON ((k.run_id = d.run_id)))
  WHERE ((k.told_at < (( SELECT perdure._clock() AS _clock) - '00:01:00'::interval)) AND (NOT (EXISTS ( SELECT
           FROM perdure.holds))))
UNION ALL
 SELECT 'a_deadline_is_kept'::text AS invariant,
    d.run_id,
    format('it was to end at %s; does anybody tick?'::text, d.ends_at) AS detail
   FROM perdure.dispatch d
  WHERE ((d.ends_at < (( SELECT perdure._clock() AS _clock) - '00:05:00'::interval)) AND (NOT (EXISTS ( SELECT
           FROM perdure.holds))))
UNION ALL
 SELECT 'a_successor_waits_for_a_run'::text AS invariant,
    d.run_id,
    format('run %s'::text, d.predecessor_id) AS detail
   FROM perdure.dispatch d
  WHERE ((d.predecessor_id IS NOT NULL) AND ((d.ready_at <> 'infinity'::timestamp with time zone) OR (NOT (EXISTS ( SELECT
           FROM perdure.run p
          WHERE (p.run_id = d.predecessor_id))))))
UNION ALL
 SELECT 'a_successor_is_freed_soon'::text AS invariant,
    d.run_id,
    format('run %s ended at %s'::text, o.run_id, o.finished_at) AS detail
   FROM (perdure.dispatch d
     JOIN perdure.outcome o ON ((d.predecessor_id = o.run_id)))
  WHERE ((o.finished_at < (( SELECT perdure._clock() AS _clock) - '00:01:00'::interval)) AND (NOT (EXISTS ( SELECT
           FROM perdure.holds))))
UNION ALL
 SELECT 'a_claim_belongs_to_a_live_worker'::text AS invariant,
    d.run_id,
    format('worker %s, last beat %s; does anybody tick?'::text, d.worker_id, b.beat_at) AS detail
   FROM ((perdure.dispatch d
     LEFT JOIN perdure.worker w ON ((d.worker_id = w.worker_id)))
     LEFT JOIN perdure.worker_beat b ON ((d.worker_id = b.worker_id)))
  WHERE ((d.worker_id IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM perdure.holds))) AND (((w.worker_id IS NULL) AND (d.claimed_at < (( SELECT perdure._clock() AS _clock) - '00:01:00'::interval))) OR (GREATEST(b.beat_at, ( SELECT perdure._sessions_since() AS _sessions_since)) < ((( SELECT perdure._clock() AS _clock) - ((2)::double precision * w.lease)) - '00:01:00'::interval))))
UNION ALL
 SELECT 'a_claim_is_used_once'::text AS invariant,
    c.run_id,
    format('claim %s'::text, c.claim) AS detail
   FROM ( SELECT u.run_id,
            u.claim,
            count(*) OVER (PARTITION BY u.claim) AS uses
           FROM ( SELECT d.run_id,
                    d.claim
                   FROM perdure.dispatch d
                  WHERE (d.claim IS NOT NULL)
                UNION
                 SELECT o.run_id,
                    o.claim
                   FROM perdure.outcome o
                  WHERE (o.claim IS NOT NULL)) u) c
  WHERE (c.uses > 1)
UNION ALL
 SELECT 'a_worker_reports_its_runs'::text AS invariant,
    NULL::uuid AS run_id,
    format('worker %s says %s runs, and has held %s for long'::text, b.worker_id, b.runs_held, h.runs) AS detail
   FROM (perdure.worker_beat b
     CROSS JOIN LATERAL ( SELECT count(*) AS runs
           FROM perdure.dispatch d
          WHERE ((d.worker_id = b.worker_id) AND (d.claimed_at < (b.beat_at - '00:00:10'::interval)))) h)
  WHERE ((b.disagreements >= 10) AND (b.runs_held < h.runs))
UNION ALL
 SELECT 'a_worker_has_a_heartbeat'::text AS invariant,
    NULL::uuid AS run_id,
    format('worker %s'::text, w.worker_id) AS detail
   FROM perdure.worker w
  WHERE (NOT (EXISTS ( SELECT
           FROM perdure.worker_beat b
          WHERE (b.worker_id = w.worker_id))))
UNION ALL
 SELECT 'only_a_claimed_run_is_told'::text AS invariant,
    d.run_id,
    format('told at %s'::text, d.told_at) AS detail
   FROM perdure.dispatch d
  WHERE ((d.told_at IS NOT NULL) AND (d.worker_id IS NULL))
UNION ALL
 SELECT 'a_run_dies_after_its_last_recovery'::text AS invariant,
    d.run_id,
    format('%s deaths of %s'::text, d.recoveries, d.max_recoveries) AS detail
   FROM perdure.dispatch d
  WHERE (d.recoveries > d.max_recoveries)
UNION ALL
 SELECT 'a_signal_is_consumed_once'::text AS invariant,
    s.run_id,
    format('signal %s, %s times'::text, s.signal_id, count(*)) AS detail
   FROM perdure.step s
  WHERE (s.signal_id IS NOT NULL)
  GROUP BY s.run_id, s.signal_id
 HAVING (count(*) > 1)
UNION ALL
 SELECT 'a_consumed_signal_was_sent'::text AS invariant,
    s.run_id,
    format('step %s consumed signal %s'::text, s.key, s.signal_id) AS detail
   FROM (perdure.step s
     LEFT JOIN perdure.signal m ON (((s.run_id = m.run_id) AND (s.signal_id = m.id))))
  WHERE ((s.signal_id IS NOT NULL) AND (m.name IS DISTINCT FROM s.name))
UNION ALL
 SELECT 'ordinals_of_a_run_differ'::text AS invariant,
    s.run_id,
    format('ordinal %s, %s times'::text, s.ordinal, count(*)) AS detail
   FROM perdure.step s
  GROUP BY s.run_id, s.ordinal
 HAVING (count(*) > 1)
UNION ALL
 SELECT 'an_exhausted_step_is_on_record'::text AS invariant,
    t.run_id,
    format('try %s of step %s'::text, t.attempt, t.key) AS detail
   FROM perdure.step_attempt t
  WHERE ((t.retry_at IS NULL) AND (NOT (EXISTS ( SELECT
           FROM perdure.step s
          WHERE ((s.run_id = t.run_id) AND (s.key = t.key))))))
UNION ALL
 SELECT 'the_install_has_one_row'::text AS invariant,
    NULL::uuid AS run_id,
    format('%s rows'::text, count(*)) AS detail
   FROM perdure.install
 HAVING (count(*) <> 1)
UNION ALL
 SELECT 'partitions_are_cut_alike'::text AS invariant,
    NULL::uuid AS run_id,
    format('%s: %s'::text, c.relname, c.bounds) AS detail
   FROM (cut c
     LEFT JOIN cut r ON ((r.relname = 'run'::name)))
  WHERE ((c.bounds IS DISTINCT FROM r.bounds) OR (c.bounds !~~ '%(MINVALUE)%'::text) OR (c.bounds !~~ '%(MAXVALUE)%'::text))
UNION ALL
 SELECT DISTINCT 'tables_are_granted_to_nobody'::text AS invariant,
    NULL::uuid AS run_id,
    format('%s to %s'::text, c.relname, COALESCE(g.rolname, 'public'::name)) AS detail
   FROM ((pg_class c
     CROSS JOIN LATERAL aclexplode(c.relacl) a(grantor, grantee, privilege_type, is_grantable))
     LEFT JOIN pg_roles g ON ((a.grantee = g.oid)))
  WHERE ((c.relnamespace = ('perdure'::regnamespace)::oid) AND (c.relkind = ANY (ARRAY['r'::"char", 'p'::"char", 'S'::"char"])) AND (a.grantee <> c.relowner));

CREATE VIEW perdure.waits WITH (security_barrier='true') AS
 SELECT u.run_id,
    u.workflow,
    u.queue,
    u.state,
    w.key,
    w.kind,
    w.name,
    w.until,
    COALESCE((w.until <= ( SELECT perdure._clock() AS _clock)), false) AS is_due
   FROM (perdure._unfinished u
     CROSS JOIN LATERAL jsonb_to_recordset(u.waits) w(key text, kind text, name text, until timestamp with time zone));

CREATE VIEW perdure.workflows AS
 SELECT f.name,
    f.queue,
    ( SELECT count(*) AS count
           FROM perdure.workers w
          WHERE (w.is_alive AND (f.queue = ANY (w.queues)) AND (f.name = ANY (w.workflows)))) AS workers,
    f.timeout,
    f.max_recoveries,
    f.registered_at
   FROM perdure.workflow f;

ALTER TABLE ONLY perdure.act ATTACH PARTITION perdure.act_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.act ATTACH PARTITION perdure.act_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.act ATTACH PARTITION perdure.act_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.outcome ATTACH PARTITION perdure.outcome_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.outcome ATTACH PARTITION perdure.outcome_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.outcome ATTACH PARTITION perdure.outcome_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.run ATTACH PARTITION perdure.run_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.run ATTACH PARTITION perdure.run_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.run ATTACH PARTITION perdure.run_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.signal ATTACH PARTITION perdure.signal_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.signal ATTACH PARTITION perdure.signal_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.signal ATTACH PARTITION perdure.signal_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.step ATTACH PARTITION perdure.step_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.step ATTACH PARTITION perdure.step_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.step_attempt ATTACH PARTITION perdure.step_attempt_<period> FOR VALUES FROM ('<period>') TO ('<period>');

ALTER TABLE ONLY perdure.step_attempt ATTACH PARTITION perdure.step_attempt_<period> FOR VALUES FROM ('<period>') TO (MAXVALUE);

ALTER TABLE ONLY perdure.step_attempt ATTACH PARTITION perdure.step_attempt_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.step ATTACH PARTITION perdure.step_old FOR VALUES FROM (MINVALUE) TO ('<period>');

ALTER TABLE ONLY perdure.act
    ADD CONSTRAINT act_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.act_<period>
    ADD CONSTRAINT act_<period>_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.act_<period>
    ADD CONSTRAINT act_<period>_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.act_old
    ADD CONSTRAINT act_old_pkey PRIMARY KEY (run_id, act_id);

ALTER TABLE ONLY perdure.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (audit_id);

ALTER TABLE ONLY perdure.chore
    ADD CONSTRAINT chore_pkey PRIMARY KEY (name);

ALTER TABLE ONLY perdure.dispatch
    ADD CONSTRAINT dispatch_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.install
    ADD CONSTRAINT install_pkey PRIMARY KEY (is_installed);

ALTER TABLE ONLY perdure.outcome
    ADD CONSTRAINT outcome_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY perdure.outcome_<period>
    ADD CONSTRAINT outcome_<period>_pkey PRIMARY KEY (run_id);

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

ALTER TABLE ONLY perdure.signal_<period>
    ADD CONSTRAINT signal_<period>_pkey PRIMARY KEY (run_id, id);

ALTER TABLE ONLY perdure.signal_old
    ADD CONSTRAINT signal_old_pkey PRIMARY KEY (run_id, id);

ALTER TABLE ONLY perdure.step
    ADD CONSTRAINT step_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.step_<period>
    ADD CONSTRAINT step_<period>_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.step_<period>
    ADD CONSTRAINT step_<period>_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY perdure.step_attempt
    ADD CONSTRAINT step_attempt_pkey PRIMARY KEY (run_id, key, attempt);

ALTER TABLE ONLY perdure.step_attempt_<period>
    ADD CONSTRAINT step_attempt_<period>_pkey PRIMARY KEY (run_id, key, attempt);

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

CREATE INDEX act_<period>_run_id_asked_at_act_id_idx ON perdure.act_<period> USING btree (run_id, asked_at, act_id) WHERE (applied_at IS NULL);

CREATE INDEX act_old_run_id_asked_at_act_id_idx ON perdure.act_old USING btree (run_id, asked_at, act_id) WHERE (applied_at IS NULL);

CREATE INDEX audit_retry_idx ON perdure.audit USING btree (run_id) WHERE (act = 'retry'::text);

CREATE INDEX audit_run_idx ON perdure.audit USING btree (run_id);

CREATE INDEX dispatch_claim_idx ON perdure.dispatch USING btree (queue, priority, ready_at, run_id) WHERE ((worker_id IS NULL) AND (NOT is_paused));

CREATE INDEX dispatch_ends_idx ON perdure.dispatch USING btree (ends_at) WHERE (ends_at IS NOT NULL);

CREATE INDEX dispatch_predecessor_idx ON perdure.dispatch USING btree (predecessor_id) WHERE (predecessor_id IS NOT NULL);

CREATE INDEX dispatch_suspect_idx ON perdure.dispatch USING btree (queue, ready_at, run_id) WHERE ((worker_id IS NULL) AND (NOT is_paused) AND (recoveries >= 2));

CREATE INDEX dispatch_worker_idx ON perdure.dispatch USING btree (worker_id, claimed_at) WHERE (worker_id IS NOT NULL);

CREATE INDEX outcome_bad_idx ON ONLY perdure.outcome USING btree (status, run_id, finished_at) WHERE (status <> 'completed'::text);

CREATE INDEX outcome_<period>_status_run_id_finished_at_idx ON perdure.outcome_<period> USING btree (status, run_id, finished_at) WHERE (status <> 'completed'::text);

CREATE INDEX outcome_<period>_status_run_id_finished_at_idx ON perdure.outcome_<period> USING btree (status, run_id, finished_at) WHERE (status <> 'completed'::text);

CREATE INDEX outcome_old_status_run_id_finished_at_idx ON perdure.outcome_old USING btree (status, run_id, finished_at) WHERE (status <> 'completed'::text);

CREATE INDEX run_lookup_idx ON ONLY perdure.run USING btree (key, run_id) WHERE (key IS NOT NULL);

CREATE INDEX run_<period>_key_run_id_idx ON perdure.run_<period> USING btree (key, run_id) WHERE (key IS NOT NULL);

CREATE INDEX run_<period>_key_run_id_idx ON perdure.run_<period> USING btree (key, run_id) WHERE (key IS NOT NULL);

CREATE INDEX run_old_key_run_id_idx ON perdure.run_old USING btree (key, run_id) WHERE (key IS NOT NULL);

CREATE UNIQUE INDEX step_consumed_idx ON ONLY perdure.step USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE UNIQUE INDEX step_<period>_run_id_signal_id_idx ON perdure.step_<period> USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE UNIQUE INDEX step_<period>_run_id_signal_id_idx ON perdure.step_<period> USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE UNIQUE INDEX step_old_run_id_signal_id_idx ON perdure.step_old USING btree (run_id, signal_id) WHERE (signal_id IS NOT NULL);

CREATE INDEX wake_drain_idx ON perdure.wake USING btree (told_at, run_id);

CREATE INDEX wake_run_idx ON perdure.wake USING btree (run_id);

ALTER INDEX perdure.act_pkey ATTACH PARTITION perdure.act_<period>_pkey;

ALTER INDEX perdure.act_pending_idx ATTACH PARTITION perdure.act_<period>_run_id_asked_at_act_id_idx;

ALTER INDEX perdure.act_pkey ATTACH PARTITION perdure.act_<period>_pkey;

ALTER INDEX perdure.act_pending_idx ATTACH PARTITION perdure.act_<period>_run_id_asked_at_act_id_idx;

ALTER INDEX perdure.act_pkey ATTACH PARTITION perdure.act_old_pkey;

ALTER INDEX perdure.act_pending_idx ATTACH PARTITION perdure.act_old_run_id_asked_at_act_id_idx;

ALTER INDEX perdure.outcome_pkey ATTACH PARTITION perdure.outcome_<period>_pkey;

ALTER INDEX perdure.outcome_bad_idx ATTACH PARTITION perdure.outcome_<period>_status_run_id_finished_at_idx;

ALTER INDEX perdure.outcome_pkey ATTACH PARTITION perdure.outcome_<period>_pkey;

ALTER INDEX perdure.outcome_bad_idx ATTACH PARTITION perdure.outcome_<period>_status_run_id_finished_at_idx;

ALTER INDEX perdure.outcome_pkey ATTACH PARTITION perdure.outcome_old_pkey;

ALTER INDEX perdure.outcome_bad_idx ATTACH PARTITION perdure.outcome_old_status_run_id_finished_at_idx;

ALTER INDEX perdure.run_lookup_idx ATTACH PARTITION perdure.run_<period>_key_run_id_idx;

ALTER INDEX perdure.run_pkey ATTACH PARTITION perdure.run_<period>_pkey;

ALTER INDEX perdure.run_lookup_idx ATTACH PARTITION perdure.run_<period>_key_run_id_idx;

ALTER INDEX perdure.run_pkey ATTACH PARTITION perdure.run_<period>_pkey;

ALTER INDEX perdure.run_lookup_idx ATTACH PARTITION perdure.run_old_key_run_id_idx;

ALTER INDEX perdure.run_pkey ATTACH PARTITION perdure.run_old_pkey;

ALTER INDEX perdure.signal_pkey ATTACH PARTITION perdure.signal_<period>_pkey;

ALTER INDEX perdure.signal_pkey ATTACH PARTITION perdure.signal_<period>_pkey;

ALTER INDEX perdure.signal_pkey ATTACH PARTITION perdure.signal_old_pkey;

ALTER INDEX perdure.step_pkey ATTACH PARTITION perdure.step_<period>_pkey;

ALTER INDEX perdure.step_consumed_idx ATTACH PARTITION perdure.step_<period>_run_id_signal_id_idx;

ALTER INDEX perdure.step_pkey ATTACH PARTITION perdure.step_<period>_pkey;

ALTER INDEX perdure.step_consumed_idx ATTACH PARTITION perdure.step_<period>_run_id_signal_id_idx;

ALTER INDEX perdure.step_attempt_pkey ATTACH PARTITION perdure.step_attempt_<period>_pkey;

ALTER INDEX perdure.step_attempt_pkey ATTACH PARTITION perdure.step_attempt_<period>_pkey;

ALTER INDEX perdure.step_attempt_pkey ATTACH PARTITION perdure.step_attempt_old_pkey;

ALTER INDEX perdure.step_pkey ATTACH PARTITION perdure.step_old_pkey;

ALTER INDEX perdure.step_consumed_idx ATTACH PARTITION perdure.step_old_run_id_signal_id_idx;

REVOKE ALL ON FUNCTION perdure._abandon_copy() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._accepted_act(run_id uuid, act text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._answer_act(act perdure.act, answer text, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._answer_waiting(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._answer_waits(suspended jsonb, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._apply_act(run_id uuid, act text, grace interval, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._apply_acts(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._apply_matrix() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ask(run_ids uuid[], act text, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ask_one(run_id uuid, act text, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._attach(table_name text, suffix text, begins uuid, ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._audit(act text, run_id uuid, reason text, detail jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._because(reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._begin_copy(suffix text, since timestamp with time zone, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bound_at(at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bound_idleness(bound interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bring_back(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bury_workers(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._bytes(payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._caller() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._catch_up(open uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_array(what text, list jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_caller_of_copy() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_interval(what text, duration interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_isolation() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_key_is_free(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_kind(kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_many(on_duplicate text, inputs integer, keys integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_name(what text, name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_no_hold_setting() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_object(what text, object jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_owner_of_copy() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_payload(what text, payload jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_saves(saves jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_snapshot(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_span_setting(name text, value text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_start(on_duplicate text, priority integer, max_recoveries integer, tags jsonb, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_time(what text, at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_times(start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._check_waits(suspensions jsonb, keep boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._checkpoint(step perdure.step) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._clock() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._close(table_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._copy_some(after uuid, ends uuid, began timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_advice(every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_home() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_jobs(every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._cron_schedule(job_name text, schedule text, command text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._default_of(workflow text, queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._deliver_cancels(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._detach(table_name text, suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._discard(table_name text, suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._distance(a text, b text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._do(work text, run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._do_chore(name text, due text[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._drain(max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._drop_guards(but uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._drop_late_acts(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._drop_period(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_by_act(run_id uuid, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_claimed(worker_id uuid, ends jsonb, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_overdue(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._end_runs(ends perdure.outcome[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ended(begins uuid, ends uuid, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._expire(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_cancel(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_deaths(run perdure.runs) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_end(run perdure.runs) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_hold(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_pause(run perdure.runs) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_pending(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_running(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_silence(worker perdure.workers, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_start(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_takers(run perdure.runs) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_unfinished(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._explain_waits(run perdure.runs, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._failed_step(run_id uuid, error jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._fence(worker_id uuid, is_any_isolation boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._find_answers(suspended jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._fingerprint(value jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._finish_copy(suffixes text[], begins uuid, ends uuid, began timestamp with time zone, seen jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._forget_namesakes(role name) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._forget_past_workers(is_copy boolean, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._forget_steps(run_id uuid, from_step text, error jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._free_forgotten(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._free_keys() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._free_successors(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._go_on_copying(copy jsonb, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._grant_kind(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._group(since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._guard_name(table_name text, ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._guard_old(ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._hand_over(worker_id uuid, run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._has_key_list(suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._head(head text, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._hold() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._hold_setting() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._holder_of(workflow text, key text, is_to_move boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._holders(parts regclass[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._insert_saves(saves jsonb, run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_above(batch jsonb, bytes bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_awaited(queue_key bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_dead(worker_id uuid, now timestamp with time zone, calm_since timestamp with time zone, watched_since timestamp with time zone, looked_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_gone(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_in_line(dispatch perdure.dispatch, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_in_use(suffixes text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._is_light(run_ids uuid[], max_rows integer, max_bytes bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._isolate(work text, run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._keep_heads(setting text, whose text, kept jsonb, heads jsonb, read_at timestamp with time zone, pause integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._key_list(suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._know_queues(names text[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lane_heads(queues text[], workflows text[], heads jsonb, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lanes(queues text[], heads jsonb, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._limit_for(batch jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._limit_patience() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_and_save(worker_id uuid, batch jsonb, OUT held uuid[], OUT others jsonb, OUT on_record uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_claimable(worker_id uuid, max_runs integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_key(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_lanes(queues text[], workflows text[], max_runs integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_runs(worker_id uuid, claims jsonb, is_shared boolean, OUT held uuid[], OUT others jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._lock_suspect(worker_id uuid, queues text[], workflows text[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._look(suspensions jsonb, run_ids uuid[], keep boolean, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._make_ahead(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._make_parts(suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._may_notify() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._meet_deadlines(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._merge(suffix text, begins uuid, ends uuid, kept uuid[], seen jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._nearest(word text, known text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._needed(begins uuid, ends uuid, max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._needed_predecessors(begins uuid, ends uuid, max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._normal_waits(waits jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._note_dropped(ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._note_hold(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._note_progress(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._notify(queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._notify_of(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._now() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._outcome(run_id uuid, status text, result jsonb, error jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._part(table_name text, suffix text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._parts(suffixes text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._payload_limit() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._pays(begins uuid, ends uuid, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._period_length() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._permissions() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._prepare_start(run_id uuid, now timestamp with time zone, workflow text, input jsonb, key text, on_duplicate text, queue text, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, OUT taken_by uuid, OUT run_queue text, OUT queue_key bigint, OUT run_timeout interval, OUT max_recoveries integer, OUT ready_at timestamp with time zone, OUT predecessor_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._put_hold(reason text, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._queue_key(queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._raise_refused(run_id uuid, act text, error text, state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._raise_unknown(what text, name text, known text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._raise_unregistered(worker_id uuid, timeline integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._random_uuid() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._read_held(worker_id uuid, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._read_setting(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._read_steps(run_id uuid, after integer, max_bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._ready_at(waits jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._reason_error(run_id uuid, status text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._recall_heads(setting text, whose text, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._record_tries(tries jsonb, run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._retry_at(error jsonb, policy jsonb, attempt integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._revoke_all(role name) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._run_state(worker_id uuid, begun_at timestamp with time zone, ready_at timestamp with time zone, waits jsonb, cancel text, is_paused boolean, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._run_tables() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._server_started_at() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._sessions_since() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._set_aside(run_id uuid, work text, sqlstate text, message text, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._shell_word(text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._since(run perdure.runs) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._small_payload() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._span(span interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._split(top text, begins uuid, bound uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._start(run_id uuid, now timestamp with time zone, workflow text, input jsonb, key text, on_duplicate text, queue text, priority integer, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, tags jsonb, max_recoveries integer, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._states(run_ids uuid[], act text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._still_open(began timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._stop_all(suffixes text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._suffix_of(begins uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._swap(suffixes text[], begins uuid, ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_back(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_back_orphans(now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_key(workflow text, key text, fingerprint bytea, run_id uuid, on_duplicate text, OUT taken_by uuid, OUT is_new boolean, OUT predecessor_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._take_over(suffix text, begins uuid, ends uuid, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._tell(run_ids uuid[], now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._tell_of(queue_key bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._time_of(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._timeline() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._to_copy(after uuid, upto uuid, began timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._told(max_runs integer, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._typed(span interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._unexpired(begins uuid, ends uuid, now timestamp with time zone, max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._unfinished_predecessor(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._unmixed(INOUT run_ids uuid[], INOUT claims uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._uuid7(at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._watch(now timestamp with time zone, OUT calm_since timestamp with time zone, OUT watched_since timestamp with time zone, OUT looked_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._what_was_seen(begins uuid, ends uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._when(at timestamp with time zone, now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._without(suspensions jsonb, answered jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure._write_identity() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.adopt(reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.at_risk(since timestamp with time zone, until timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON PROCEDURE perdure.await(IN run_id uuid, IN timeout interval, INOUT result jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.beat(worker_id uuid, runs_held integer, activity jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.cancel(run_id uuid, reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.cancel_many(run_ids uuid[], reason text, grace interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.claim_runs(worker_id uuid, max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.complete_runs(worker_id uuid, ends jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.disable_cron() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.drain(max_runs integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.enable_cron(every interval, runners integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.explain(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.fail_runs(worker_id uuid, ends jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.fail_steps(worker_id uuid, tries jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.find_run(workflow text, key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.get_value(run_id uuid, name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.grant_role(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.hold(reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.listen(worker_id uuid, queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.next_due(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.pause(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.pause_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_queue(name text, retention interval, failed_retention interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_setting(name text, value jsonb, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.put_workflow(name text, queue text, timeout interval, max_recoveries integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.read_steps(run_id uuid, after integer, max_bytes integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.recorded_since(since timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.recover() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.register_worker(queues text[], workflows text[], name text, version text, lease interval, is_direct boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.release_runs(worker_id uuid, releases jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.result(run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.resume(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.resume_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.retry(run_id uuid, from_step text, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.retry_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.revoke_role(role name, kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.rotate() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.run_results(run_ids uuid[]) FROM PUBLIC;

REVOKE ALL ON PROCEDURE perdure.run_ticks(IN max_seconds integer, IN every interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.save_steps(worker_id uuid, saves jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.save_transaction_step(worker_id uuid, save jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.selftest() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.signal(run_id uuid, name text, payload jsonb, id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.signal_key(workflow text, key text, name text, payload jsonb, id text, start_input jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.start(workflow text, input jsonb, key text, on_duplicate text, queue text, priority integer, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, tags jsonb, max_recoveries integer, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.start_many(workflow text, inputs jsonb[], keys text[], on_duplicate text, queue text, priority integer, start_at timestamp with time zone, tags jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.start_run(workflow text, input jsonb, key text, on_duplicate text, queue text, priority integer, start_at timestamp with time zone, delay interval, deadline timestamp with time zone, timeout interval, tags jsonb, max_recoveries integer, headers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.stop_worker(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.suspend_runs(worker_id uuid, suspensions jsonb, keep boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.terminate(run_id uuid, reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.terminate_many(run_ids uuid[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.tick() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.truncate_wake() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.unlisten(queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.version() FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.worker_lock(worker_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION perdure.worker_runs(worker_id uuid) FROM PUBLIC;
