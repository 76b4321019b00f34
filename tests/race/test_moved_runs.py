"""Runs that outlive their period: nobody is told that they are unknown, whatever snapshot or lock he comes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Connection, a_run, call, scalar, start, wait


class Kept:
    """What outlives its period: a run that waits, with all that it has, and one that failed."""

    def __init__(self, database: Database) -> None:
        database.clock.stop(database.value("select date_trunc('day', now(), 'UTC') + interval '12 hours'"))
        self.worker, held = a_run(database, key="k", input={"n": 1})
        self.worker.save(held, "a", 41)
        self.worker.save(held, "v", 7, kind="value", name="v")
        assert self.worker.suspend(held, wait("paid")) == "suspended"
        self.waiting = held.run_id
        call(database.connect(), "signal", run_id=held.run_id, name="other", payload=Jsonb(1), id="once")
        failing, lost = a_run(database, key="f")
        failing.save(lost, "a", 1)
        failing.fail(lost)
        failing.stop()
        self.failed = lost.run_id
        database.clock.advance(days=15)
        ticker = database.connect()
        while scalar(ticker, "rotate").get("period") != "made ahead":
            pass


def ids(kept: Kept) -> list[UUID]:
    return [kept.waiting, kept.failed]


def answers(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["answer"] for row in rows)


Ask = Callable[[Connection, Kept], Any]
CALLS: dict[str, tuple[Ask, Any]] = {
    "find_run": (lambda c, k: scalar(c, "find_run", workflow="order", key="k") == k.waiting, True),
    "start": (lambda c, k: start(c, key="k", input={"n": 1}) == k.waiting, True),
    "start_many": (
        lambda c, k: call(c, "start_many", workflow="order", inputs=[Jsonb({"n": 1})], keys=["k"])[0]["is_new"],
        False,
    ),
    "signal": (lambda c, k: scalar(c, "signal", run_id=k.waiting, name="x"), "accepted"),
    "signal again": (lambda c, k: scalar(c, "signal", run_id=k.waiting, name="other", id="once"), "duplicate"),
    "signal to an ended run": (lambda c, k: scalar(c, "signal", run_id=k.failed, name="x"), "finished"),
    "signal_key": (lambda c, k: scalar(c, "signal_key", workflow="order", key="k", name="x"), "accepted"),
    "result": (lambda c, k: outcome_code(c, k.waiting), "PD007"),
    "result of an ended run": (lambda c, k: outcome_code(c, k.failed), "PD008"),
    "run_results": (
        lambda c, k: sorted(str(r["status"]) for r in call(c, "run_results", run_ids=ids(k))),
        ["None", "failed"],
    ),
    "get_value": (lambda c, k: scalar(c, "get_value", run_id=k.waiting, name="v"), 7),
    "explain": (lambda c, k: "waits" in str(call(c, "explain", run_id=k.waiting)), True),
    "cancel": (lambda c, k: scalar(c, "cancel", run_id=k.failed), "finished"),
    "cancel_many": (lambda c, k: answers(call(c, "cancel_many", run_ids=ids(k))), ["accepted", "finished"]),
    "terminate_many": (lambda c, k: answers(call(c, "terminate_many", run_ids=ids(k))), ["accepted", "finished"]),
    "pause_many": (lambda c, k: answers(call(c, "pause_many", run_ids=ids(k))), ["accepted", "finished"]),
    "retry": (lambda c, k: scalar(c, "retry", run_id=k.failed), "accepted"),
    "retry_many": (lambda c, k: answers(call(c, "retry_many", run_ids=ids(k))), ["accepted", "illegal"]),
    "read_steps": (
        lambda c, k: [step["key"] for step in scalar(c, "read_steps", run_id=k.waiting)],
        ["a", "v"],
    ),
}


def outcome_code(conn: Connection, run_id: UUID) -> str | None:
    try:
        scalar(conn, "result", run_id=run_id)
    except errors.Error as error:
        if isinstance(error, errors.SerializationFailure):
            raise
        return error.sqlstate
    return None


@pytest.mark.parametrize("name", CALLS)
def test_who_asks_while_a_run_is_moved_hears_the_truth(database: Database, name: str) -> None:
    kept = Kept(database)
    asked, truth = CALLS[name]
    ticker = database.connect()
    ticker.execute("begin")
    assert scalar(ticker, "rotate")["period"] == "dropped"
    conn = database.connect()
    asking = in_background(asked, conn, kept)
    database.wait_blocked(conn, by=ticker.info.backend_pid)
    ticker.execute("commit")
    assert asking.result(timeout=20) == truth


@pytest.mark.parametrize("is_read_only", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_an_older_snapshot_hears_the_truth_or_begins_again(database: Database, name: str, is_read_only: bool) -> None:
    kept = Kept(database)
    asked, truth = CALLS[name]
    conn = database.connect(autocommit=False)
    conn.execute(f"set transaction isolation level repeatable read{', read only' if is_read_only else ''}")
    conn.execute("select 1")
    assert scalar(database.connect(), "rotate")["period"] == "dropped"
    try:
        assert asked(conn, kept) == truth
    except (errors.SerializationFailure, errors.ReadOnlySqlTransaction, errors.ObjectNotInPrerequisiteState):
        conn.rollback()
    assert asked(database.connect(), kept) == truth
