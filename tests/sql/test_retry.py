"""retry: an ended run goes on from where it stopped, under its own id."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    declare_dead,
    keys,
    outcome,
    signal,
    start,
    state,
    wait,
)


def failed_at(database: Database, *good: str, bad: str = "charge") -> tuple[Worker, UUID]:
    """A run that saved some steps and failed at one."""
    worker, held = a_run(database)
    for key in good:
        worker.save(held, key)
    worker.fail_step(held, bad, 1, policy={"max_attempts": 1})
    held.ordinal += 1
    worker.fail(held, step=bad)
    return worker, held.run_id


def test_a_retry_keeps_what_was_saved_and_makes_the_failed_step_again(database: Database, conn: Connection) -> None:
    worker, run_id = failed_at(database, "a", "b")
    assert act(conn, "retry", run_id, reason="bank is back") == "accepted"
    held = worker.claim_one()
    assert (held.run_id, [step["key"] for step in held.steps]) == (run_id, ["a", "b"])
    assert worker.save(held, "charge") == "saved"
    assert worker.complete(held) == "done"


def test_what_a_retry_removes_is_kept_in_audit(database: Database, conn: Connection) -> None:
    _, run_id = failed_at(database, "a")
    act(conn, "retry", run_id, reason="bank is back")
    reason, detail = database.admin.execute("select reason, detail from perdure.audit where act = 'retry'").fetchone()  # type: ignore[misc]
    assert reason == "bank is back"
    assert detail["outcome"]["status"] == "failed"
    assert [step["key"] for step in detail["steps"]] == ["charge"]


def test_the_tries_of_the_failed_step_begin_again(database: Database, conn: Connection) -> None:
    worker, run_id = failed_at(database)
    act(conn, "retry", run_id)
    held = worker.claim_one()
    assert held.steps == []
    assert worker.fail_step(held, "charge", 1, policy={})["answer"] == "retry"


def test_a_retry_from_a_step_makes_all_that_came_after_it_again(database: Database, conn: Connection) -> None:
    worker, run_id = failed_at(database, "a", "b", "c")
    assert act(conn, "retry", run_id, from_step="b") == "accepted"
    assert [step["key"] for step in worker.claim_one().steps] == ["a"]


def test_a_retry_from_an_unknown_step_is_refused_with_the_nearest(database: Database, conn: Connection) -> None:
    _, run_id = failed_at(database, "reserve")
    with pytest.raises(psycopg.Error) as refused:
        act(conn, "retry", run_id, from_step="reserved")
    assert refused.value.sqlstate == "22023"
    assert '"reserve"' in str(refused.value.diag.message_detail)
    assert outcome(database, run_id) == "failed"


def test_a_retried_cancel_is_forgotten_and_its_clean_up_kept(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("w"))
    act(conn, "cancel", held.run_id)
    cleaning = worker.claim_one()
    worker.save(cleaning, "refund")
    worker.complete(cleaning)
    act(conn, "retry", held.run_id)
    again = worker.claim_one()
    assert (again.cancel, [step["key"] for step in again.steps]) == (None, ["refund"])
    assert worker.suspend(again, wait("w")) == "suspended"
    act(conn, "cancel", held.run_id, reason="again")
    assert worker.claim_one().steps[-1]["result"]["reason"] == "again"


def test_a_message_that_a_removed_wait_consumed_is_there_again(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid", {"n": 7})
    worker.suspend(held, wait("paid"))
    worker.fail(held)
    act(conn, "retry", held.run_id, from_step="paid")
    again = worker.claim_one()
    assert worker.suspend_row(again, wait("paid"))["checkpoint"]["result"] == {"n": 7}


def test_a_signal_may_come_to_a_retried_run(database: Database, conn: Connection) -> None:
    worker, run_id = failed_at(database)
    assert signal(conn, run_id) == "finished"
    act(conn, "retry", run_id)
    assert signal(conn, run_id, "w") == "accepted"
    assert worker.suspend(worker.claim_one(), wait("w")) == "answered"


def test_a_retried_run_has_its_timeout_again(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    start(conn, timeout="1 hour")
    worker = Worker(database, lease="1 day")
    held = worker.claim_one()
    worker.fail(held)
    database.clock.advance(hours=5)
    act(conn, "retry", held.run_id)
    assert worker.claim_one().row["deadline"].hour == 18


def test_a_deadline_that_has_passed_is_dropped_and_one_ahead_is_kept(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker = Worker(database, lease="1 day")
    for hour, kept in ((13, False), (20, True)):
        run_id = start(conn, deadline=f"2030-01-01 {hour}:00+00")
        worker.fail(worker.claim_one())
        database.clock.advance(hours=2)
        act(conn, "retry", run_id)
        held = worker.claim_one()
        assert (held.row["deadline"] is not None) is kept
        worker.complete(held)


def test_a_retried_run_keeps_its_key(database: Database, conn: Connection) -> None:
    run_id = start(conn, key="k")
    worker = Worker(database)
    worker.fail(worker.claim_one())
    act(conn, "retry", run_id)
    assert start(conn, key="k", on_duplicate="restart_if_failed") == run_id
    assert state(database, run_id) == "ready"


def test_a_dead_run_gets_a_fresh_budget(database: Database, conn: Connection) -> None:
    run_id = start(conn, max_recoveries=0)
    worker = Worker(database)
    worker.claim_one()
    declare_dead(database, worker)
    assert act(conn, "retry", run_id) == "accepted"
    held = Worker(database).claim_one()
    assert held.row["recoveries"] == 0


def test_a_run_that_never_began_can_be_retried(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    act(conn, "terminate", run_id)
    conn.execute("select perdure.tick()")
    act(conn, "retry", run_id)
    worker = Worker(database)
    held = worker.claim_one()
    assert (held.run_id, held.steps) == (run_id, [])
    assert worker.complete(held) == "done"
    assert keys(database, run_id) == []


def test_a_retry_that_is_rolled_back_leaves_the_run_ended(database: Database, conn: Connection) -> None:
    worker, run_id = failed_at(database, "a")
    with conn.transaction(force_rollback=True):
        act(conn, "retry", run_id)
    assert outcome(database, run_id) == "failed"
    assert worker.claim() == []
    assert database.value("select count(*) from perdure.step") == 2
