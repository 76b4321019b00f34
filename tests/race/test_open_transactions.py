"""Whoever tells a run something may keep the transaction open for as long as they like: it holds up nobody."""

from __future__ import annotations

import pytest

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    drain,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
)

SENDS = ("signal", "cancel", "pause", "resume", "terminate")


def send(conn: Connection, what: str, run_id: object) -> None:
    if what == "signal":
        assert scalar(conn, "signal", run_id=run_id, name="paid") == "accepted"
    else:
        assert scalar(conn, what, run_id=run_id) in ("accepted", "duplicate")


@pytest.mark.parametrize("what", SENDS)
def test_a_senders_open_transaction_holds_up_nobody(database: Database, conn: Connection, what: str) -> None:
    """Saves, suspends, ends, drains, claims, ticks, beats, recoveries and other senders go on beside it."""
    worker = Worker(database)
    for each in (worker.conn, conn):
        each.execute("set lock_timeout = '50ms'")  # whoever waits, fails
    start(conn), start(conn)
    first, second = worker.claim(2)
    senders = [database.connect(autocommit=False) for _ in range(2)]
    for sender in senders:
        for held in (first, second):
            send(sender, what, held.run_id)

    assert worker.save(first, "a") == "saved"
    assert worker.suspend(first, wait("w")) == "suspended"
    assert worker.beat(1)["reconcile"] is False
    assert drain(conn) == (0, 0), "what is not committed was not told"
    signal(conn, first.run_id, "w")
    assert conn.execute("select perdure.tick()").fetchone()
    conn.execute("select perdure.recover()")
    again = worker.claim_one()
    assert worker.complete(again) == "done"
    assert worker.fail_step(second, "b", 1, policy={})["answer"] == "retry"
    assert worker.release(second) == "done"
    start(conn, priority=5)
    third = worker.claim(2)
    assert len(third) == 2

    for sender in senders:
        sender.commit()
    drain(conn)
    assert outcome(database, first.run_id) == "completed"
    if what == "terminate":
        assert outcome(database, second.run_id) == "terminated"
    assert database.value("select count(*) from perdure.violations") == 0


def test_what_was_told_takes_effect_when_it_is_committed_however_late(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    sender = database.connect(autocommit=False)
    signal(sender, held.run_id, "w", {"n": 7})
    worker.suspend(held, wait("w"))
    database.clock.advance(minutes=10)
    worker.beat()
    conn.execute("select perdure.tick()")
    assert worker.claim() == []
    sender.commit()
    assert worker.claim_one().steps[0]["result"] == {"n": 7}


def test_a_cancel_that_is_committed_late_reaches_the_run(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    sender = database.connect(autocommit=False)
    act(sender, "cancel", held.run_id)
    worker.suspend(held, wait("w"))
    assert state(database, held.run_id) == "waiting"
    sender.commit()
    assert worker.claim_one().cancel == "cancelled"


def test_an_open_start_holds_up_nobody(database: Database, conn: Connection) -> None:
    starter = database.connect(autocommit=False)
    hidden = start(starter, key="k")
    worker = Worker(database)
    worker.conn.execute("set lock_timeout = '50ms'")
    seen = start(conn)
    assert [held.run_id for held in worker.claim(5)] == [seen]
    conn.execute("select perdure.tick()")
    starter.commit()
    assert worker.claim_one().run_id == hidden


def test_a_worker_registers_beside_an_open_change_of_its_queue_and_workflow(
    database: Database, conn: Connection
) -> None:
    conn.execute("select perdure.put_queue('fast')")
    operator = database.connect(autocommit=False)
    operator.execute("select perdure.put_queue('fast', '1 day')")
    operator.execute("select perdure.put_workflow('order', timeout => '1 hour')")
    other = database.connect()
    other.execute("set lock_timeout = '50ms'")
    Worker(database, queues=["fast", "default"], conn=other)


def test_whoever_notes_a_timeline_in_an_open_transaction_holds_up_no_recovery(
    database: Database, conn: Connection
) -> None:
    first = database.connect(autocommit=False)
    first.execute("select perdure.recover()")
    assert first.execute("select count(*) from perdure.timeline").fetchone() == (1,)
    conn.execute("set lock_timeout = '50ms'")
    conn.execute("select perdure.recover()")
    conn.execute("select perdure.tick()")
