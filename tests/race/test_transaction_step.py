"""A step in the user's own transaction against the loss of its claim: its rows and its checkpoint are one commit, or none."""

from __future__ import annotations

import psycopg
import pytest

from support.database import Database, in_background
from support.engine import Connection, Held, Worker, a_run, drain, keys, signal, start, with_no_grace

ISOLATIONS = ("read committed", "repeatable read", "serializable")
REFUSED = ("PD002", "40001")


@pytest.fixture
def ledger(database: Database) -> None:
    database.connect().execute("create table public.ledger (n int)")


@pytest.fixture(params=ISOLATIONS)
def user(request: pytest.FixtureRequest, database: Database, ledger: None) -> Connection:
    """A user's connection of each isolation."""
    made = database.connect(autocommit=False)
    made.isolation_level = {
        "read committed": psycopg.IsolationLevel.READ_COMMITTED,
        "repeatable read": psycopg.IsolationLevel.REPEATABLE_READ,
        "serializable": psycopg.IsolationLevel.SERIALIZABLE,
    }[request.param]
    return made


def ledger_rows(database: Database) -> int:
    rows: int = database.value("select count(*) from public.ledger")
    return rows


def begin(database: Database, user: Connection) -> tuple[Worker, Held]:
    """Claim a run and do the user's part of its step: the snapshot is from before whatever comes then."""
    worker = Worker(database)
    start(worker.conn)
    held = worker.claim_one()
    user.execute("insert into public.ledger values (1)")
    return worker, held


def refuse(worker: Worker, held: Held) -> str:
    with pytest.raises(psycopg.Error) as refused:
        worker.transaction_step(held, "charge")
    return refused.value.sqlstate or ""


def test_rows_and_checkpoint_are_one_commit(database: Database, conn: Connection, user: Connection) -> None:
    worker, held = begin(database, user)
    assert worker.on(user).transaction_step(held, "charge", {"n": 1})["key"] == "charge"
    assert (keys(database, held.run_id), ledger_rows(database)) == ([], 0)
    user.commit()
    assert (keys(database, held.run_id), ledger_rows(database)) == (["charge"], 1)


def test_a_rollback_takes_back_both(database: Database, conn: Connection, user: Connection) -> None:
    worker, held = begin(database, user)
    worker.on(user).transaction_step(held, "charge")
    user.rollback()
    assert (keys(database, held.run_id), ledger_rows(database)) == ([], 0)


def test_a_death_before_the_save_refuses_it(database: Database, conn: Connection, user: Connection) -> None:
    worker, held = begin(database, user)
    with_no_grace(database)
    database.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01'")
    assert conn.execute("select perdure.recover()").fetchone() == (1,)
    heir = Worker(database)
    again = heir.claim_one()
    assert refuse(worker.on(user), held) in REFUSED
    user.rollback()
    assert heir.save(again, "charge") == "saved"
    assert ledger_rows(database) == 0


def test_a_claim_that_was_replaced_meanwhile_refuses_it(database: Database, conn: Connection, user: Connection) -> None:
    """The worker lives, and holds the run again by a new token; the old snapshot still shows the old one."""
    worker, held = begin(database, user)
    worker.release(held)
    again = worker.claim_one()
    assert refuse(worker.on(user), held) in REFUSED
    user.rollback()
    assert (keys(database, again.run_id), ledger_rows(database)) == ([], 0)


def test_a_death_after_the_save_finds_the_worker_at_work(
    database: Database, conn: Connection, user: Connection
) -> None:
    worker, held = begin(database, user)
    worker.on(user).transaction_step(held, "charge")
    with_no_grace(database)
    database.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01'")
    conn.execute("set lock_timeout = '50ms'")
    assert conn.execute("select perdure.recover()").fetchone() == (0,)
    user.commit()
    assert conn.execute("select perdure.recover()").fetchone() == (1,)
    again = Worker(database).claim_one()
    assert ([step["key"] for step in again.steps], ledger_rows(database)) == (["charge"], 1)


def test_an_end_meanwhile_refuses_it(database: Database, conn: Connection, user: Connection) -> None:
    worker, held = begin(database, user)
    worker.complete(held)
    assert refuse(worker.on(user), held) in REFUSED


def test_a_drain_in_between_delays_it_and_decides_nothing(
    database: Database, conn: Connection, user: Connection
) -> None:
    worker, held = begin(database, user)
    signal(conn, held.run_id)
    drainer = database.connect(autocommit=False)
    assert drain(drainer) == (1, 0)
    saving = in_background(worker.on(user).transaction_step, held, "charge")
    database.wait_blocked(user, by=drainer.info.backend_pid)
    drainer.commit()
    try:
        assert saving.result(timeout=10)["key"] == "charge"
        user.commit()
    except psycopg.errors.SerializationFailure:
        assert user.isolation_level != psycopg.IsolationLevel.READ_COMMITTED
        user.rollback()
        assert held.run_id in worker.runs(), "still held: the step runs again from its beginning"
        user.execute("insert into public.ledger values (1)")
        assert worker.on(user).transaction_step(held, "charge")["key"] == "charge"
        user.commit()
    assert (keys(database, held.run_id), ledger_rows(database)) == (["charge"], 1)


def test_a_save_waits_two_seconds_at_most(database: Database, ledger: None, conn: Connection) -> None:
    worker, held = a_run(database)
    database.admin.execute("alter function perdure.save_transaction_step set lock_timeout = '50ms'")
    signal(conn, held.run_id)
    drainer = database.connect(autocommit=False)
    drain(drainer)
    user = database.connect(autocommit=False)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        worker.on(user).transaction_step(held, "charge")


def test_of_two_transactions_for_one_step_one_takes_effect(database: Database, ledger: None, conn: Connection) -> None:
    worker, held = a_run(database)
    first, second = (database.connect(autocommit=False) for _ in range(2))
    for user in (first, second):
        user.execute("insert into public.ledger values (1)")
    assert worker.on(first).transaction_step(held, "charge")["key"] == "charge"
    rival = in_background(worker.on(second).transaction_step, held, "charge")
    database.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    with pytest.raises(psycopg.Error) as lost:
        rival.result(timeout=10)
    assert lost.value.sqlstate == "PD002"
    second.rollback()
    assert (keys(database, held.run_id), ledger_rows(database)) == (["charge"], 1)


def test_two_transaction_steps_of_one_run_do_not_meet(database: Database, ledger: None, conn: Connection) -> None:
    worker, held = a_run(database)
    first, second = (database.connect(autocommit=False) for _ in range(2))
    assert worker.on(first).transaction_step(held, "a")["key"] == "a"
    assert worker.on(second).transaction_step(held, "b")["key"] == "b"
    second.commit()
    first.commit()
    assert sorted(keys(database, held.run_id)) == ["a", "b"]
