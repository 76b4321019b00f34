"""The views show what people ask for, under the names that people use, and to those alone who may look."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import Connection, Row, Worker, a_run, act, drain, scalar, signal, start, unknown_run, wait

POLICY = {"max_attempts": 3, "delay": 60, "jitter": 0}

VIEWS = (
    "runs",
    "steps",
    "signals",
    "waits",
    "queues",
    "workflows",
    "settings",
    "workers",
    "versions",
    "stuck",
    "history",
    "metrics",
    "violations",
)


def rows(database: Database, query: str, *parameters: Any) -> list[Row]:
    with database.admin.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def run(database: Database, run_id: UUID) -> Row:
    [found] = rows(database, "select * from perdure.runs where run_id = %s", run_id)
    return found


def state(database: Database, run_id: UUID) -> str:
    found: str = run(database, run_id)["state"]
    return found


def history(database: Database, run_id: UUID) -> list[str]:
    return [
        row["what"] for row in rows(database, "select * from perdure.history where run_id = %s order by at", run_id)
    ]


def make_scheduled(conn: Connection, worker: Worker) -> UUID:
    return start(conn, delay=timedelta(hours=1))


def make_ready(conn: Connection, worker: Worker) -> UUID:
    return start(conn)


def make_running(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    return worker.claim_one().run_id


def make_sleeping(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    held = worker.claim_one()
    assert worker.suspend(held, wait("nap", "sleep", until="2100-01-01")) == "suspended"
    return held.run_id


def make_waiting(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    held = worker.claim_one()
    assert worker.suspend(held, wait("paid"), wait("late", "timer", until="2100-01-01")) == "suspended"
    return held.run_id


def make_backing_off(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    held = worker.claim_one()
    failed = worker.fail_step(held, "charge", 1, policy=POLICY)
    assert worker.suspend(held, wait("charge", "retry", until=failed["retry_at"])) == "suspended"
    return held.run_id


def make_paused(conn: Connection, worker: Worker) -> UUID:
    run_id = start(conn)
    act(conn, "pause", run_id, reason="wait for the bank")
    drain(conn)
    return run_id


def make_cancelling(conn: Connection, worker: Worker) -> UUID:
    run_id = make_waiting(conn, worker)
    act(conn, "cancel", run_id, reason="not wanted")
    drain(conn)
    return run_id


def make_completed(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    held = worker.claim_one()
    worker.complete(held, {"paid": True})
    return held.run_id


def make_failed(conn: Connection, worker: Worker) -> UUID:
    start(conn)
    held = worker.claim_one()
    worker.fail(held, type="Declined", message="no money")
    return held.run_id


def make_cancelled(conn: Connection, worker: Worker) -> UUID:
    run_id = start(conn)
    act(conn, "cancel", run_id, reason="not wanted")
    drain(conn)
    return run_id


def make_terminated(conn: Connection, worker: Worker) -> UUID:
    run_id = start(conn)
    act(conn, "terminate", run_id)
    drain(conn)
    return run_id


def make_timed_out(conn: Connection, worker: Worker) -> UUID:
    run_id = start(conn, deadline="2000-01-01")
    scalar(conn, "tick")
    return run_id


def make_dead(conn: Connection, worker: Worker) -> UUID:
    run_id = start(conn, max_recoveries=0)
    [held] = worker.claim()
    worker.conn.execute("delete from perdure.worker where worker_id = %s", [worker.worker_id])
    scalar(conn, "recover")
    assert held.run_id == run_id
    return run_id


MAKERS = {name.removeprefix("make_"): make for name, make in sorted(globals().items()) if name.startswith("make_")}


@pytest.mark.parametrize("name", MAKERS)
def test_a_run_is_shown_in_its_state_by_name(database: Database, conn: Connection, name: str) -> None:
    run_id = MAKERS[name](conn, Worker(database))
    assert state(database, run_id) == name
    assert rows(database, "select * from perdure.violations") == []


def test_every_state_and_outcome_is_shown_by_a_test(database: Database) -> None:
    known = {row["state"] for row in rows(database, "select distinct state from perdure.act_rules")}
    assert known - set(MAKERS) == {"continued"}  # nothing ends so yet


def test_the_view_derives_the_state_as_the_engine_does(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = start(conn)
    worker.claim_one()
    waits = [None, *([wait(k, k, until="2100-01-01")] for k in ("signal", "sleep", "timer", "retry"))]
    waits.append([wait("a", "sleep", until="2100-01-01"), wait("b", "signal")])
    seen = set()
    for is_held, is_paused, cancel, ready_at, has_begun, each in itertools.product(
        (False, True), (False, True), (None, "cancelled"), ("-infinity", "infinity"), (False, True), range(len(waits))
    ):
        if is_held and waits[each] is not None:
            continue
        database.admin.execute(
            """
            update perdure.dispatch as d set worker_id = case when %(is_held)s then %(worker_id)s end,
              is_paused = %(is_paused)s, cancel = %(cancel)s::text, ends_at = case when %(cancel)s::text is not null then now() end,
              ready_at = %(ready_at)s, begun_at = case when %(has_begun)s then now() end, waits = %(waits)s
            where d.run_id = %(run_id)s
            """,
            {
                "is_held": is_held, "worker_id": worker.worker_id, "is_paused": is_paused, "cancel": cancel,
                "ready_at": ready_at, "has_begun": has_begun, "run_id": run_id,
                "waits": None if waits[each] is None else Jsonb(waits[each]),
            },
        )  # fmt: skip
        [derived] = rows(
            database,
            """
            select u.state, perdure._run_state(
              d.worker_id, d.begun_at, d.ready_at, d.waits, d.cancel, d.is_paused, perdure._now()) as expected
            from perdure._unfinished as u join perdure.dispatch as d using (run_id)
            """,
        )
        assert derived["state"] == derived["expected"]
        seen.add(derived["state"])
    assert len(seen) == 8


def test_a_run_shows_what_was_asked_and_where_it_stands(database: Database, conn: Connection) -> None:
    worker = Worker(database, name="host-1")
    run_id = start(conn, key="o-1", tags={"customer": "7"}, timeout=timedelta(hours=1), input={"n": 1})
    waiting = run(database, run_id)
    assert (waiting["key"], waiting["tags"], waiting["input"]) == ("o-1", {"customer": "7"}, {"n": 1})
    assert (waiting["worker"], waiting["deadline"], waiting["finished_at"]) == (None, None, None)
    assert waiting["ready_at"] == waiting["created_at"]
    held = worker.claim_one()
    claimed = run(database, run_id)
    assert claimed["worker"] == "host-1"
    assert claimed["deadline"] == claimed["claimed_at"] + timedelta(hours=1)
    assert claimed["ready_at"] is None
    worker.complete(held, {"paid": 1})
    ended = run(database, run_id)
    assert (ended["state"], ended["result"], ended["worker"]) == ("completed", {"paid": 1}, None)
    assert ended["duration"] == ended["finished_at"] - ended["created_at"]


def test_a_paused_run_shows_the_latest_reason(database: Database, conn: Connection) -> None:
    run_id = make_paused(conn, Worker(database))
    assert run(database, run_id)["pause_reason"] == "wait for the bank"
    act(conn, "resume", run_id)
    act(conn, "pause", run_id, reason="again")
    drain(conn)
    assert run(database, run_id)["pause_reason"] == "again"
    act(conn, "resume", run_id)
    drain(conn)
    shown = run(database, run_id)
    assert (shown["is_paused"], shown["pause_reason"]) == (False, None)


def test_a_run_shows_its_last_error(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = start(conn)
    held = worker.claim_one()
    assert run(database, run_id)["last_error"] is None
    worker.fail_step(held, "charge", 1, policy=POLICY, message="bank is closed")
    assert run(database, run_id)["last_error"] == "bank is closed"
    worker.fail_step(held, "charge", 2, policy=POLICY, message="bank is gone")
    assert run(database, run_id)["last_error"] == "bank is gone"
    worker.fail(held, message="gave up")
    assert run(database, run_id)["last_error"] == "gave up"


def test_a_cancelled_run_shows_the_end_of_its_grace(database: Database, conn: Connection) -> None:
    run_id = make_cancelling(conn, Worker(database))
    shown = run(database, run_id)
    assert shown["cancel"] == "cancelled"
    assert shown["deadline"] is None
    assert shown["grace_ends_at"] > shown["claimed_at"] + timedelta(minutes=4)


def test_a_successor_shows_whom_it_waits_for(database: Database, conn: Connection) -> None:
    worker, held = a_run(database, key="o-1")
    successor = start(conn, key="o-1", on_duplicate="replace")
    shown = run(database, successor)
    assert (shown["state"], shown["predecessor_id"], shown["ready_at"]) == ("scheduled", held.run_id, None)
    assert worker.runs() == {held.run_id}


def test_a_step_is_shown_once_on_record_or_failing(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.save(held, "reserve", {"n": 1}, started_at="2026-01-01T00:00:00Z")
    worker.fail_step(held, "charge", 1, policy=POLICY, message="first")
    worker.fail_step(held, "charge", 2, policy=POLICY, message="second")
    reserve, charge = rows(database, "select * from perdure.steps where run_id = %s order by ordinal", held.run_id)
    assert (reserve["key"], reserve["state"], reserve["ordinal"], reserve["attempts"]) == ("reserve", "completed", 1, 1)
    assert reserve["duration"] == reserve["saved_at"] - reserve["started_at"]
    assert (charge["key"], charge["state"], charge["ordinal"], charge["attempts"]) == ("charge", "backing_off", None, 2)
    assert charge["error"]["message"] == "second"
    assert charge["retry_at"] is not None
    worker.fail_step(held, "charge", 3, policy=POLICY, message="third")
    shown = rows(database, "select state, attempts, error from perdure.steps where key = 'charge'")
    assert [(row["state"], row["attempts"]) for row in shown] == [("failed", 3)]
    assert shown[0]["error"]["message"] == "third"


def test_a_signal_is_shown_as_consumed_by_the_wait_that_took_it(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid", id="1")
    signal(conn, held.run_id, "paid", id="2")
    assert worker.suspend(held, wait("payment", name="paid")) == "answered"
    first, second = rows(database, "select * from perdure.signals where run_id = %s order by id", held.run_id)
    assert (first["is_consumed"], first["consumed_by"]) == (True, "payment")
    assert first["consumed_at"] >= first["sent_at"]
    assert (second["is_consumed"], second["consumed_by"], second["consumed_at"]) == (False, None, None)


def test_a_wait_has_a_row_while_it_is_open(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = make_waiting(conn, worker)
    paid, late = rows(database, "select * from perdure.waits order by kind")
    assert (paid["run_id"], paid["kind"], paid["name"], paid["until"]) == (run_id, "signal", "paid", None)
    assert (late["kind"], late["name"], late["is_due"], late["state"]) == ("timer", None, False, "waiting")
    signal(conn, run_id)
    worker.claim_one()
    assert rows(database, "select * from perdure.waits") == []


def test_a_queue_counts_its_runs_by_state(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    # a run that is due would be taken by the next that claims
    for name in [*(name for name in MAKERS if name not in ("dead", "ready", "cancelling")), "cancelling"]:
        MAKERS[name](conn, worker)
    start(conn)
    scalar(conn, "put_queue", name="empty")
    shown = {row["name"]: row for row in rows(database, "select * from perdure.queues")}
    for name in ("scheduled", "ready", "running", "sleeping", "waiting", "backing_off", "paused", "cancelling"):
        assert shown["default"][name] == 1, name
        assert shown["empty"][name] == 0, name
    assert shown["default"]["workers"] == 1
    assert shown["empty"]["workers"] == 0
    assert shown["default"]["oldest_ready_age"] >= timedelta(0)
    assert shown["empty"]["oldest_ready_at"] is None


def test_a_queue_that_nobody_made_is_shown_with_its_runs(database: Database, conn: Connection) -> None:
    scalar(conn, "put_setting", name="allow_unknown_names", value=Jsonb(True))
    start(conn, queue="surprise")
    [shown] = rows(database, "select * from perdure.queues where name = 'surprise'")
    assert shown["ready"] == 1


def test_a_worker_shows_its_life_and_what_it_holds(database: Database, conn: Connection) -> None:
    worker = Worker(database, name="host-1", version="7")
    start(conn)
    worker.claim_one()
    worker.beat(3)
    [shown] = rows(database, "select * from perdure.workers")
    assert (shown["name"], shown["version"], shown["is_alive"]) == ("host-1", "7", True)
    assert (shown["runs"], shown["runs_held"], shown["disagreements"]) == (1, 3, 1)
    database.clock.advance(seconds=31)
    [shown] = rows(database, "select * from perdure.workers")
    assert shown["is_alive"] is False
    assert shown["beat_age"] > timedelta(seconds=31)


def test_a_version_counts_the_live_workers_that_run_it(database: Database, conn: Connection) -> None:
    for version in ("1", "2", "2", None):
        Worker(database, version=version)
    dead = Worker(database, version="0", lease=timedelta(seconds=1))
    database.admin.execute(
        "update perdure.worker_beat set beat_at = '-infinity' where worker_id = %s", [dead.worker_id]
    )
    shown = {row["version"]: row["workers"] for row in rows(database, "select * from perdure.versions")}
    assert shown == {"1": 1, "2": 2, None: 1}


def stuck(database: Database) -> dict[UUID, str]:
    return {row["run_id"]: row["reason"] for row in rows(database, "select * from perdure.stuck")}


def test_a_run_whose_queue_nobody_serves_is_stuck(database: Database, conn: Connection) -> None:
    scalar(conn, "put_queue", name="lonely")
    run_id = start(conn, queue="lonely")
    Worker(database)
    assert stuck(database) == {run_id: "no_worker_takes_the_queue"}
    Worker(database, queues=["lonely"])
    assert stuck(database) == {}


def test_a_run_whose_workflow_nobody_knows_is_stuck(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    Worker(database, workflows=["other"])
    assert stuck(database) == {run_id: "no_worker_knows_the_workflow"}
    Worker(database)
    assert stuck(database) == {}


def test_a_paused_run_is_stuck(database: Database, conn: Connection) -> None:
    run_id = make_paused(conn, Worker(database))
    assert stuck(database) == {run_id: "paused"}


def test_a_run_that_is_ready_for_long_is_stuck(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    worker = Worker(database)
    assert stuck(database) == {}
    database.clock.advance(minutes=2)
    worker.beat()
    assert stuck(database) == {run_id: "ready_for_long"}
    database.admin.execute("update perdure.dispatch set recoveries = 2")
    assert stuck(database) == {run_id: "suspect"}


def test_a_run_of_a_silent_worker_is_stuck(database: Database, conn: Connection) -> None:
    run_id = make_running(conn, Worker(database))
    assert stuck(database) == {}
    database.clock.advance(minutes=1)
    assert stuck(database) == {run_id: "worker_is_silent"}


def test_a_time_without_end_breaks_no_view(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for at in ("infinity", "-infinity"):
        start(conn, start_at=at)
    held = worker.claim_one()
    worker.save(held, "reserve", started_at="-infinity")
    database.admin.execute("update perdure.worker_beat set beat_at = '-infinity'")
    start(conn, start_at="-infinity")
    for view in VIEWS:
        database.admin.execute(f"select * from perdure.{view}".encode())
    for shown in rows(database, "select run_id from perdure.runs"):
        conn.execute("select * from perdure.explain(%s)", [shown["run_id"]])


@pytest.mark.parametrize("name", ["scheduled", "sleeping", "waiting", "backing_off", "completed", "cancelled"])
def test_a_run_that_waits_or_has_ended_is_not_stuck(database: Database, conn: Connection, name: str) -> None:
    MAKERS[name](conn, Worker(database))
    assert stuck(database) == {}


def test_a_history_tells_everything_in_its_order(database: Database, conn: Connection) -> None:
    worker, held = a_run(database, key="o-1")
    worker.save(held, "reserve")
    worker.fail_step(held, "charge", 1, policy=POLICY)
    signal(conn, held.run_id, "paid")
    assert worker.suspend(held, wait("payment", name="paid")) == "answered"
    held.ordinal += 1
    act(conn, "pause", held.run_id, reason="look")
    drain(conn)
    act(conn, "resume", held.run_id)
    drain(conn)
    worker.fail(held, message="no")
    assert history(database, held.run_id) == [
        "run started", "step saved", "try failed", "signal sent", "signal consumed",
        "pause asked", "pause answered", "resume asked", "resume answered", "run failed",
    ]  # fmt: skip
    scalar(conn, "retry", run_id=held.run_id, reason="the bank is back")
    told = history(database, held.run_id)
    assert "retry" in told
    assert "run failed" not in told
    [retried] = rows(database, "select * from perdure.history where what = 'retry'")
    assert (retried["detail"]["reason"], retried["detail"]["was"]) == ("the bank is back", "failed")
    [claimed] = Worker(database).claim()
    assert claimed.run_id == held.run_id
    assert history(database, held.run_id)[-1] == "run claimed"


def test_a_history_of_one_run_is_its_own(database: Database, conn: Connection) -> None:
    for make in (make_failed, make_cancelled, make_waiting):
        make(conn, Worker(database))
    assert rows(database, "select * from perdure.history where run_id = %s", unknown_run()) == []


def test_a_metric_can_be_scraped(database: Database, conn: Connection) -> None:
    worker = Worker(database, name='host "1"')
    for name in MAKERS:
        if name != "dead":
            MAKERS[name](conn, worker)
    signal(conn, make_waiting(conn, worker))
    database.admin.execute(
        "insert into perdure.timeline select 0, since - '1 day'::interval, calm_since, watched_since from perdure.timeline"
    )
    samples = set()
    for row in rows(database, "select * from perdure.metrics"):
        assert re.fullmatch(r"perdure_[a-z_]+", row["name"])
        assert all(re.fullmatch(r"[a-z_]+", name) and isinstance(text, str) for name, text in row["labels"].items())
        assert 0 <= row["value"] < float("inf")
        sample = (row["name"], tuple(sorted(row["labels"].items())))
        assert sample not in samples, "twice"
        samples.add(sample)
    value = "select value from perdure.metrics where name = %s and labels @> %s"
    assert database.value(value, "perdure_runs", Jsonb({"state": "sleeping"})) == 1
    assert database.value(value, "perdure_undrained_wakes", Jsonb({})) == 1
    assert database.value(value, "perdure_workers", Jsonb({"version": ""})) == 1
    assert database.value(value, "perdure_ended_runs_of_last_hour", Jsonb({"status": "failed"})) == 1
    assert {name for name, _ in samples} == set(
        re.findall(r"perdure_\w+", str(database.value("select col_description('perdure.metrics'::regclass, 1)")))
    ), "the comment names each metric"


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_for_observers_and_admins_alone(database: Database, conn: Connection, view: str) -> None:
    worker = Worker(database)
    for make in (make_waiting, make_failed, make_paused):
        make(conn, worker)
    for kind in ("client", "worker", "observer", "admin"):
        role = f"perdure_views_{kind}"
        database.server.create_role(role)
        conn.execute("select perdure.grant_role(%s, %s)", [role, kind])
        looking = database.connect(role)
        query = f"select * from perdure.{view}".encode()
        if kind in ("observer", "admin"):
            looking.execute(query)
        else:
            with pytest.raises(errors.InsufficientPrivilege):
                looking.execute(query)


def test_a_view_that_filters_is_a_barrier(database: Database) -> None:
    barriers = rows(
        database,
        "select relname from pg_class where relnamespace = 'perdure'::regnamespace "
        "and relkind = 'v' and 'security_barrier=true' = any(reloptions) order by relname",
    )
    assert [row["relname"] for row in barriers] == ["stuck", "violations", "waits"]


def test_workflows_tell_their_defaults_and_who_would_take_their_runs(database: Database, conn: Connection) -> None:
    scalar(conn, "put_workflow", name="report", queue="reports", timeout=timedelta(hours=1), max_recoveries=3)
    Worker(database, queues=["reports"], workflows=["report", "order"])
    Worker(database, queues=["default"], workflows=["report"])
    found = {row["name"]: row for row in rows(database, "select * from perdure.workflows")}
    assert found["report"] | {"registered_at": None} == {
        "name": "report", "queue": "reports", "workers": 1, "timeout": timedelta(hours=1), "max_recoveries": 3,
        "registered_at": None,
    }  # fmt: skip
    assert (found["order"]["queue"], found["order"]["workers"], found["order"]["max_recoveries"]) == ("default", 0, 10)


def test_settings_tell_what_put_setting_has_set(database: Database, conn: Connection) -> None:
    scalar(conn, "put_setting", name="notify", value=Jsonb("never"))
    [found] = rows(database, "select * from perdure.settings where name = 'notify'")
    assert found["value"] == "never" and found["description"]
