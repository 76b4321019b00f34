"""What recovers is interrupted, comes in crowds, or meets a death of its own: each run is taken back once per death."""

from __future__ import annotations

import threading

import psycopg
import pytest

from support.bodies import between_statements
from support.database import Database, eventually, in_background
from support.engine import Worker, dispatch, outcome, scalar, start, with_no_grace

RUNS, CROWD = 300, 20


@pytest.fixture
def orphans(database: Database) -> Database:
    """A database in which three workers have died that held all runs."""
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    conn.execute("select count(*) from perdure.start_many('order', array_fill('{}'::jsonb, array[%s]))", [RUNS])
    for _ in range(3):
        assert len(Worker(database).claim(RUNS // 3)) == RUNS // 3
    with_no_grace(database)
    database.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01'")
    return database


def charged(database: Database) -> list[tuple[int, int]]:
    """How many free runs have how many recoveries."""
    found: list[tuple[int, int]] = database.admin.execute(
        "select recoveries, count(*) from perdure.dispatch where worker_id is null group by recoveries"
    ).fetchall()
    return found


@pytest.mark.parametrize("function", ["recover", "tick"])
def test_a_crowd_that_recovers_at_once_takes_each_run_back_once_and_nobody_waits(
    orphans: Database, function: str
) -> None:
    begin = threading.Barrier(CROWD)
    conns = [orphans.connect(application_name="crowd") for _ in range(CROWD)]
    for conn in conns:
        conn.execute("set lock_timeout = '50ms'")  # a wait would be an error

    def recover(conn: psycopg.Connection[object]) -> int:
        begin.wait(60)
        taken = 0
        for _ in range(5):
            answer = scalar(conn, function)
            taken += answer if function == "recover" else answer["recovered"]
        return taken

    results = [in_background(recover, conn) for conn in conns]
    assert sum(result.result(60) for result in results) == RUNS
    assert charged(orphans) == [(1, RUNS)]
    assert orphans.value("select count(*) from perdure.worker") == 0
    assert orphans.value("select count(*) from perdure.violations") == 0


def test_a_recovery_that_is_killed_again_and_again_charges_nobody_until_one_comes_through(orphans: Database) -> None:
    killed = 0
    for table in ("worker", "worker_beat", "dispatch"):
        holder = orphans.connect(autocommit=False)
        holder.execute(f"lock table perdure.{table} in access exclusive mode".encode())
        conn = orphans.connect()
        result = in_background(conn.execute, "select perdure.recover()")
        orphans.wait_blocked(conn, by=holder.info.backend_pid, seconds=60)
        orphans.admin.execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(psycopg.errors.AdminShutdown):
            result.result(60)
        holder.rollback()
        killed += 1
        assert orphans.value("select count(*) from perdure.worker") == 3
        assert charged(orphans) == []
    assert killed == 3
    assert scalar(orphans.connect(), "recover") == RUNS
    assert charged(orphans) == [(1, RUNS)]


def test_a_recovery_whose_session_stays_open_holds_up_no_other_one(orphans: Database) -> None:
    first, second = orphans.connect(autocommit=False), orphans.connect()
    second.execute("set lock_timeout = '50ms'")
    assert scalar(first, "recover") == RUNS
    assert scalar(second, "recover") == 0
    late = start(second)
    worker = Worker(orphans, conn=second)
    assert worker.claim_one().run_id == late, "what is not being taken back can be worked on"
    first.rollback()  # its client died: nothing of it happened
    assert scalar(second, "recover") == RUNS
    assert charged(orphans) == [(1, RUNS)]


def test_a_worker_that_beats_while_somebody_is_about_to_bury_it_lives(orphans: Database) -> None:
    [definition] = orphans.admin.execute("select pg_get_functiondef('perdure._bury_workers'::regproc)").fetchone() or [
        ""
    ]
    pause = "perform pg_advisory_xact_lock_shared(1);"
    between = between_statements(
        definition, lambda line: pause if "delete from perdure.worker as w" in line else "null;"
    )
    assert pause in between
    orphans.admin.execute(between.encode())
    holder, conn = orphans.connect(autocommit=False), orphans.connect()
    holder.execute("select pg_advisory_xact_lock(1)")
    recovery = in_background(scalar, conn, "recover")
    orphans.wait_blocked(conn, by=holder.info.backend_pid, seconds=60)
    [late] = orphans.admin.execute("select worker_id from perdure.worker order by worker_id limit 1").fetchone() or [
        None
    ]
    scalar(orphans.connect(), "beat", worker_id=late, runs_held=RUNS // 3)
    holder.rollback()
    assert recovery.result(60) == RUNS - RUNS // 3
    assert orphans.value("select array_agg(worker_id) from perdure.worker") == [late]


def test_runs_whose_next_worker_dies_too_are_charged_once_per_death_and_end(database: Database) -> None:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    with_no_grace(database)
    database.clock.stop()
    limit = 3
    run_id = start(conn, max_recoveries=limit)
    for death in range(1, limit + 2):
        doomed = Worker(database)
        eventually(lambda doomed=doomed: doomed.claim(10), what="the suspect is claimed in its turn")
        database.admin.execute("delete from perdure.worker where worker_id = %s", [doomed.worker_id])
        crowd = [in_background(scalar, database.connect(), "recover") for _ in range(5)]
        assert sum(each.result(60) for each in crowd) == 1
        if death <= limit:
            assert dispatch(database, run_id)["recoveries"] == death
        database.clock.advance(minutes=10)
    assert outcome(database, run_id) == "dead"
    assert database.value("select count(*) from perdure.outcome") == 1
    assert database.value("select count(*) from perdure.violations") == 0
