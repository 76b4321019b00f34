"""tick: deadlines, grace, drains, deaths and successors, whoever calls it and however often."""

from __future__ import annotations

from typing import Any

from psycopg.sql import SQL
from typing_extensions import LiteralString

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    act,
    dispatch,
    outcome,
    signal,
    start,
    state,
    wait,
    with_no_grace,
)

NOON = "2030-01-01 12:00+00"


def tick(conn: Connection) -> dict[str, Any]:
    row = conn.execute("select perdure.tick()").fetchone()
    assert row is not None
    done: dict[str, Any] = row[0]
    return done


def test_a_tick_tells_what_it_did(conn: Connection) -> None:
    nothing = {"drained": 0, "skipped": 0, "overdue": 0, "recovered": 0, "freed": 0, "brought_back": 0}
    assert tick(conn) == nothing
    run_id = start(conn)
    act(conn, "pause", run_id)
    assert tick(conn) == nothing | {"drained": 1}
    assert tick(conn) == nothing


def test_a_run_past_its_deadline_is_told_to_end_and_may_clean_up(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    run_id = start(conn, deadline="2030-01-01 13:00+00")
    worker = Worker(database, lease="1 day")
    worker.suspend(worker.claim_one(), wait("w"))
    database.clock.advance("59 minutes 59 seconds")
    assert tick(conn)["overdue"] == 0
    database.clock.advance("1 second")
    assert tick(conn)["overdue"] == 1
    held = worker.claim_one()
    assert (held.run_id, held.cancel, held.row["deadline"]) == (run_id, "timed_out", None)
    assert held.steps[-1]["result"] == {"status": "timed_out", "reason": None}
    assert worker.save(held, "refund") == "saved"
    assert worker.complete(held) == "timed_out"


def test_a_running_run_hears_of_its_deadline_by_its_beat(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    database.clock.advance(hours=1)
    tick(conn)
    [told] = worker.beat(1)["runs"]
    assert told["cancel"] == "timed_out"
    assert worker.suspend_row(held, wait("w"))["checkpoint"]["result"]["status"] == "timed_out"
    assert worker.fail(held) == "timed_out"


def test_the_grace_after_a_deadline_is_five_minutes(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    database.clock.advance(hours=1)
    tick(conn)
    database.clock.advance("4 minutes 59 seconds")
    tick(conn)
    assert worker.save(held, "refund") == "saved"
    database.clock.advance("1 second")
    tick(conn)
    assert outcome(database, held.run_id) == "timed_out"
    assert worker.complete(held) == "timed_out"


def test_a_run_that_never_began_ends_at_its_deadline(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    run_id = start(conn, deadline="2030-01-01 13:00+00", start_at="2030-01-01 14:00+00")
    late = start(conn, deadline="2029-01-01 00:00+00")
    tick(conn)
    assert (state(database, run_id), outcome(database, late)) == ("scheduled", "timed_out")
    database.clock.advance(hours=1)
    tick(conn)
    assert outcome(database, run_id) == "timed_out"


def test_a_timeout_does_not_run_before_the_first_claim(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    run_id = start(conn, timeout="1 hour")
    database.clock.advance(days=3)
    tick(conn)
    assert state(database, run_id) == "ready"


def test_a_deadline_reaches_a_paused_run(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    worker.release(held, pause_reason="look at it")
    database.clock.advance(hours=1)
    tick(conn)
    assert worker.claim_one().cancel == "timed_out"


def test_a_cancel_after_the_deadline_changes_nothing(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    database.clock.advance(hours=1)
    tick(conn)
    before = dispatch(database, held.run_id)
    assert act(conn, "cancel", held.run_id, grace="1 day") == "duplicate"
    tick(conn)
    assert dispatch(database, held.run_id) == before


def test_a_deadline_during_the_grace_of_a_cancel_is_no_second_cancel(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, deadline="2030-01-01 13:00+00")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    database.clock.advance(minutes=59)
    act(conn, "cancel", held.run_id, grace="10 minutes")
    tick(conn)
    database.clock.advance(minutes=5)
    tick(conn)
    assert dispatch(database, held.run_id)["cancel"] == "cancelled"
    assert worker.complete(held) == "cancelled"


def test_the_time_out_of_a_wait_is_not_the_end_of_the_run(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    worker.suspend(worker.claim_one(), wait("w", until="2030-01-01 12:30+00"))
    database.clock.advance(minutes=30)
    tick(conn)
    again = worker.claim_one()
    assert again.cancel is None
    assert worker.complete(again) == "done"


def test_a_tick_recovers_and_drains_without_any_worker(database: Database, conn: Connection) -> None:
    with_no_grace(database)
    database.clock.stop()
    gone, waiting = Worker(database), Worker(database)
    start(conn), start(conn)
    held = waiting.claim_one()
    waiting.suspend(held, wait("w"))
    gone.claim_one()
    signal(conn, held.run_id, "w")
    database.clock.advance(hours=1)
    done = tick(conn)
    assert (done["drained"], done["recovered"]) == (1, 1)
    assert (
        database.value("select count(*) from perdure.dispatch where worker_id is null and ready_at <= perdure._now()")
        == 2
    )
    assert database.value("select count(*) from perdure.violations") == 0


def test_many_overdue_runs_are_ended_in_one_round(database: Database, conn: Connection) -> None:
    conn.execute("select count(perdure.start('order', '{}', deadline => '2001-01-01')) from generate_series(1, 300)")
    assert tick(conn)["overdue"] == 300
    assert database.value("select count(*) from perdure.outcome where status = 'timed_out'") == 300


def test_a_tick_that_is_left_open_is_ended_by_the_server(database: Database, conn: Connection) -> None:
    """It holds what it looked at until its transaction ends."""
    bound: LiteralString = "select current_setting('idle_in_transaction_session_timeout')"
    start(conn)
    run_id = start(conn)
    for own, expected in (("0", "30s"), ("5s", "5s"), ("1h", "30s")):
        act(conn, "pause", run_id)
        with database.connect(autocommit=False) as ticking:
            ticking.execute(SQL("set idle_in_transaction_session_timeout = {}").format(own))
            ticking.commit()
            ticking.execute("select perdure.tick()")
            assert ticking.execute(bound).fetchone() == (expected,)
            ticking.commit()
            assert ticking.execute(bound).fetchone() == (own,)
