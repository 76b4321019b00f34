"""fail_steps: whether and when a step is tried again is decided in the database, once per try."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest

from support.database import Database
from support.engine import Connection, Worker, a_run, declare_dead, keys, scalar, start, state, wait


def delays(worker: Worker, policy: dict[str, Any], tries: int = 3, **error: Any) -> list[float]:
    """The seconds between each failed try of a fresh run's step and the next one."""
    start(worker.conn)
    held = worker.claim_one()
    found = []
    for attempt in range(1, tries + 1):
        row = worker.fail_step(held, "a", attempt, policy=policy, **error)
        if row["answer"] == "exhausted":
            break
        assert row["answer"] == "retry"
        failed_at = scalar(worker.conn, "_now")
        found.append((row["retry_at"] - failed_at).total_seconds())
    return found


@pytest.fixture
def worker(database: Database) -> Worker:
    """A worker whose clock stands still."""
    database.clock.stop()
    return Worker(database)


def test_a_policy_says_how_long_to_wait(worker: Worker) -> None:
    table: list[tuple[dict[str, Any], list[float]]] = [
        ({}, [1, 3, 9]),
        ({"delay": 0}, [0, 0, 0]),
        ({"delay": 2, "factor": 1}, [2, 2, 2]),
        ({"delay": 2, "factor": 10, "max_delay": 50}, [2, 20, 50]),
        ({"delay": 100, "max_delay": 5}, [5, 5, 5]),
        ({"max_attempts": 1}, []),
        ({"max_attempts": 2}, [1]),
        ({"max_attempts": None, "factor": 1}, [1, 1, 1]),
    ]
    for policy, expected in table:
        assert delays(worker, {"jitter": 0, **policy}) == pytest.approx(expected, abs=0.001), policy


def test_four_tries_are_made_by_default_and_nothing_waits_after_the_last(worker: Worker) -> None:
    assert len(delays(worker, {}, tries=9)) == 3


def test_without_end_means_without_end(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for attempt in (100, 100_000, 2_000_000_000):
        row = worker.fail_step(held, "a", attempt, policy={"max_attempts": None, "factor": 1000})
        assert row["answer"] == "retry"


def test_jitter_stays_within_its_bounds_and_is_not_always_the_same(worker: Worker) -> None:
    found = delays(worker, {"max_attempts": None, "factor": 1, "delay": 10}, tries=60)
    assert all(8 <= delay <= 12 for delay in found)
    assert max(found) - min(found) > 1


def test_some_errors_stop_at_once(worker: Worker) -> None:
    for types, policy, is_final in [
        (["ValueError", "Exception"], {}, False),
        (["TypeError", "Exception"], {}, True),
        (["AssertionError", "Exception"], {}, True),
        (["DoNotRetry", "Exception"], {}, True),
        (["Mine", "DoNotRetry", "Exception"], {}, True),
        (["CardDeclined", "PaymentError"], {"stop_on": ["PaymentError"]}, True),
        (["CardDeclined", "PaymentError"], {"stop_on": ["Other"]}, False),
    ]:
        assert (delays(worker, policy, types=types, type=types[0]) == []) is is_final, types


def test_an_error_may_know_better_when_to_come_back(worker: Worker) -> None:
    assert delays(worker, {"jitter": 0}, retry_after=42) == pytest.approx([42, 42, 42], abs=0.001)
    assert delays(worker, {"jitter": 0}, retry_after=-5) == pytest.approx([0, 0, 0], abs=0.001)
    assert delays(worker, {"jitter": 0}, retry_after=None) == pytest.approx([1, 3, 9], abs=0.001)
    assert delays(worker, {"max_attempts": 1}, retry_after=42) == []


def test_the_last_try_saves_its_error_as_the_steps_checkpoint(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    row = worker.fail_step(held, "a", 1, policy={"max_attempts": 1}, message="broken")
    assert (row["answer"], row["retry_at"]) == ("exhausted", None)
    assert row["checkpoint"]["error"]["message"] == "broken"
    assert row["checkpoint"]["ordinal"] == 1
    worker.release(held)
    [step] = worker.claim_one().steps
    assert (step["key"], step["kind"], step["error"]["message"]) == ("a", "step", "broken")


def test_every_failed_try_is_kept_with_its_error(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for attempt in (1, 2, 3, 4):
        worker.fail_step(held, "a", attempt, policy={}, message=f"no {attempt}")
    found = database.admin.execute(
        "select attempt, error ->> 'message' from perdure.step_attempt order by 1"
    ).fetchall()
    assert found == [(n, f"no {n}") for n in (1, 2, 3, 4)]


def test_a_step_that_works_in_the_end_forgets_no_try(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.fail_step(held, "a", 1, policy={})
    assert worker.save(held, "a", attempt=2) == "saved"
    worker.release(held)
    assert [step["kind"] for step in worker.claim_one().steps] == ["step"]
    assert database.value("select attempt from perdure.step") == 2


def test_a_back_off_can_be_waited_for_in_the_database(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker, held = a_run(database)
    row = worker.fail_step(held, "a", 1, policy={"delay": 3600, "max_delay": 3600, "jitter": 0})
    retry_at: datetime = row["retry_at"]
    assert worker.suspend(held, wait("a", "retry", until=retry_at)) == "suspended"
    assert state(database, held.run_id) == "backing_off"
    database.clock.advance(minutes=59)
    assert worker.claim() == []
    database.clock.advance(minutes=1)
    again = worker.claim_one()
    assert [(step["kind"], step["attempt"]) for step in again.steps] == [("attempt", 1)]
    assert keys(database, held.run_id) == [], "a back-off leaves no checkpoint"
    assert worker.suspend(again, wait("a", "retry", until=retry_at)) == "retry_due"
    assert worker.save(again, "a", attempt=2) == "saved"


def test_tries_survive_a_death(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for attempt in (1, 2, 3):
        worker.fail_step(held, "a", attempt, policy={})
    declare_dead(database, worker)
    heir = Worker(database)
    again = heir.claim_one()
    assert again.steps[0]["attempt"] == 3
    assert heir.fail_step(again, "a", 4, policy={})["answer"] == "exhausted"


def test_a_policy_out_of_range_is_refused(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for policy in ({"delay": -1}, {"factor": -1}, {"max_delay": -1}, {"jitter": 2}, {"max_attempts": 0}):
        with pytest.raises(psycopg.Error) as refused:
            worker.fail_step(held, "a", 1, policy=policy)
        assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("22023", True), policy
