"""An act that comes too late, or while the run may not listen, is neither lost nor left behind."""

from __future__ import annotations

from support.database import Database
from support.engine import Connection, Worker, a_run, act, drain, outcome, scalar, state, wait


def test_an_act_that_came_too_late_does_not_outlive_the_end(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    late = database.connect(autocommit=False)
    assert act(late, "cancel", held.run_id, reason="too late") == "accepted"  # by what it sees
    assert worker.fail(held) == "done"
    late.commit()
    drain(conn)
    assert database.value("select answer from perdure.act where run_id = %s", held.run_id) == "finished"


def test_an_act_after_a_retry_is_not_taken_for_one_before_the_end(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    late = database.connect(autocommit=False)
    act(late, "cancel", held.run_id)
    worker.fail(held)
    late.commit()
    drain(conn)
    scalar(conn, "retry", run_id=held.run_id)
    drain(conn)
    assert state(database, held.run_id) == "ready"
    assert database.value("select count(*) from perdure.violations") == 0
    assert act(conn, "cancel", held.run_id) == "accepted"
    drain(conn)
    assert state(database, held.run_id) == "cancelling" or outcome(database, held.run_id) == "cancelled"


def test_a_cancel_reaches_a_run_that_was_paused_before_it_heard(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "cancel", held.run_id, reason="not wanted")
    act(conn, "pause", held.run_id)
    drain(conn)
    assert worker.suspend(held, wait("paid")) == "suspended"  # it is paused: it hears nothing now
    act(conn, "resume", held.run_id)
    drain(conn)
    assert database.value("select count(*) from perdure.violations") == 0
    [again] = Worker(database).claim()
    assert (again.run_id, again.cancel) == (held.run_id, "cancelled")
