"""A run that suspends and whoever tells it something, in every order, with a drain at every moment: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

from support.database import Database
from support.engine import (
    Connection,
    Held,
    Row,
    Worker,
    act,
    drain,
    keys,
    outcome,
    signal,
    start,
    state,
    wait,
)

# tell: the sender inserts; told: it commits; call: the worker calls; called: it commits; drain: a third session drains;
# drained, where it is played, is when that one commits
EVENTS = ("tell", "told", "call", "called", "drain")


def orders(*more: str) -> Iterator[tuple[str, ...]]:
    """Every order of the events in which each commit follows its statement."""
    for order in permutations((*EVENTS, *more)):
        pairs = [("tell", "told"), ("call", "called")] + ([("drain", "drained")] if more else [])
        if all(order.index(first) < order.index(then) for first, then in pairs):
            yield order


class Stage:
    """Three sessions with open transactions, none of which ever waits: a wait is an error."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.worker = Worker(database)
        self.sender, self.caller, self.drainer = (database.connect(autocommit=False) for _ in range(3))
        for conn in (self.sender, self.caller, self.drainer):
            conn.execute("set lock_timeout = '50ms'")
            conn.commit()

    def play(
        self,
        order: tuple[str, ...],
        tell: Callable[[Connection, Held], Any],
        do: Callable[[Worker, Held], Row],
    ) -> tuple[Held, Row]:
        """Let the events happen in this order to a fresh run; return it and what the worker was answered."""
        start(self.worker.conn)
        held = self.worker.claim_one()
        row: Row = {}
        stays_open = "drained" in order
        for event in order:
            if event == "tell":
                tell(self.sender, held)
            elif event == "told":
                self.sender.commit()
            elif event == "call":
                row = do(self.worker.on(self.caller), held)
            elif event == "called":
                self.caller.commit()
            elif event == "drain":
                drain(self.drainer)
                if not stays_open:
                    self.drainer.commit()
            else:
                self.drainer.commit()
        while row["answer"] == "busy":  # as a worker does: again, in a later transaction
            row = do(self.worker, held)
        return held, row


def suspending(worker: Worker, held: Held) -> Row:
    return worker.suspend_row(held, wait("w"))


def completing(worker: Worker, held: Held) -> Row:
    [row] = worker.call("complete_runs", ends=[held.named(result=1)])
    return row


def releasing(worker: Worker, held: Held) -> Row:
    [row] = worker.call("release_runs", releases=[held.named()])
    return row


def no_violations(database: Database) -> None:
    assert database.value("select string_agg(invariant, ', ') from perdure.violations") is None


def check(stage: Stage, order: tuple[str, ...]) -> None:
    drain(stage.worker.conn)
    assert stage.database.value("select count(*) from perdure.wake") == 0, order
    assert stage.database.value("select count(*) from perdure.act where applied_at is null") == 0, order


def test_a_signal_reaches_a_run_that_suspends(database: Database, conn: Connection) -> None:
    stage = Stage(database)
    played = list(orders("drained"))
    assert len(played) == 90
    for order in played:
        held, row = stage.play(order, lambda sender, held: signal(sender, held.run_id, "w", {"n": 7}), suspending)
        if row["answer"] == "suspended":
            again = stage.worker.claim_one()
            assert again.run_id == held.run_id, order
            assert [step["result"] for step in again.steps] == [{"n": 7}], order
            assert stage.worker.complete(again) == "done", order
        else:
            assert (row["answer"], row["checkpoint"]["result"]) == ("answered", {"n": 7}), order
            assert stage.worker.complete(held) == "done", order
        assert keys(database, held.run_id) == ["w"], order
        check(stage, order)
    no_violations(database)


def test_a_cancel_reaches_a_run_that_suspends(database: Database, conn: Connection) -> None:
    stage = Stage(database)
    for order in orders("drained"):
        held, row = stage.play(order, lambda sender, held: act(sender, "cancel", held.run_id), suspending)
        if row["answer"] == "suspended":
            held = stage.worker.claim_one()
            assert held.cancel == "cancelled", order
        else:
            assert (row["answer"], row["checkpoint"]["kind"]) == ("answered", "cancel"), order
        assert keys(database, held.run_id) == ["~cancel"], order
        assert stage.worker.complete(held) == "cancelled", order
        check(stage, order)
    no_violations(database)


def test_a_pause_reaches_a_run_that_suspends_or_is_released(database: Database, conn: Connection) -> None:
    stage = Stage(database)
    for do in (suspending, releasing):
        for order in orders():
            held, row = stage.play(order, lambda sender, held: act(sender, "pause", held.run_id), do)
            assert row["answer"] in ("suspended", "done"), order
            assert stage.worker.claim() == [], order
            assert state(database, held.run_id) == "paused", order
            act(conn, "resume", held.run_id)
            signal(conn, held.run_id, "w")
            assert stage.worker.complete(stage.worker.claim_one()) == "done", order
            check(stage, order)
    no_violations(database)


def test_a_terminate_reaches_a_run_that_suspends(database: Database, conn: Connection) -> None:
    stage = Stage(database)
    for order in orders("drained"):
        held, row = stage.play(order, lambda sender, held: act(sender, "terminate", held.run_id), suspending)
        assert row["answer"] in ("suspended", "ended", "lost"), order
        assert stage.worker.claim() == [], order
        assert outcome(database, held.run_id) == "terminated", order
        check(stage, order)
    no_violations(database)


def test_a_run_that_completes_is_told_what_came_first(database: Database, conn: Connection) -> None:
    stage = Stage(database)
    seen = set()
    for what, ends in (("cancel", "cancelled"), ("terminate", "terminated"), ("pause", None)):
        for order in orders("drained"):

            def tell(sender: Connection, held: Held, what: str = what) -> None:
                if outcome(database, held.run_id) is None:
                    act(sender, what, held.run_id)

            held, row = stage.play(order, tell, completing)
            status = outcome(database, held.run_id)
            assert row["answer"] == ("done" if status == "completed" else status), (what, order)
            assert status in ("completed", ends), (what, order)
            if order.index("told") < order.index("call") and ends and row["answer"] != "done":
                assert status == ends, (what, order)
            if order.index("told") < order.index("call"):
                assert status == (ends or "completed"), (what, order)
            seen.add(status)
            check(stage, order)
    assert seen == {"completed", "cancelled", "terminated"}
    no_violations(database)


def test_a_message_wins_over_a_time_out_that_is_due(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w", until="2030-01-01 12:10+00"))
    database.clock.advance(minutes=10)
    signal(conn, held.run_id, "w", {"n": 7})
    assert [step["result"] for step in worker.claim_one().steps] == [{"n": 7}]


def test_a_message_that_comes_after_the_time_out_is_kept(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w", until="2030-01-01 12:10+00"))
    sender = database.connect(autocommit=False)
    signal(sender, held.run_id, "w", {"n": 7})
    database.clock.advance(minutes=10)
    again = worker.claim_one()
    sender.commit()
    assert "result" not in again.steps[0], "it timed out, and replay sees the same"
    assert worker.suspend_row(again, wait("w#2", name="w"))["checkpoint"]["result"] == {"n": 7}
