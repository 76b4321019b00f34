"""signal and signal_key: answers instead of errors, order, identity by id, exact consumption."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import (
    Connection,
    Held,
    Worker,
    a_run,
    act,
    dispatch,
    drain,
    keys,
    outcome,
    scalar,
    signal,
    start,
    state,
    steps,
    unknown_run,
    wait,
)


def send_key(conn: Connection, **options: object) -> str:
    answer: str = scalar(conn, "signal_key", workflow="order", key="k", name="paid", **options)
    return answer


def waiting(database: Database, *names: str) -> tuple[Worker, UUID]:
    """A run that waits for the signals named."""
    worker, held = a_run(database)
    assert worker.suspend(held, *[wait(name) for name in names]) == "suspended"
    return worker, held.run_id


def answers(held: Held) -> list[tuple[str, object]]:
    return [(step["key"], step.get("result")) for step in held.steps if step["kind"] == "signal"]


def test_a_signal_to_a_waiting_run_wakes_it(database: Database, conn: Connection) -> None:
    worker, run_id = waiting(database, "paid")
    assert state(database, run_id) == "waiting"
    assert worker.claim() == []
    assert signal(conn, run_id, "paid", {"amount": 7}) == "accepted"
    assert answers(worker.claim_one()) == [("paid", {"amount": 7})]


def test_a_signal_before_the_wait_is_kept_for_it(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid", {"amount": 7})
    answered = worker.suspend_row(held, wait("paid"))
    assert answered["answer"] == "answered"
    assert answered["checkpoint"]["result"] == {"amount": 7}


def test_a_signal_before_the_first_claim_is_kept(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    signal(conn, run_id)
    worker = Worker(database)
    assert worker.suspend(worker.claim_one(), wait("paid")) == "answered"


def test_a_signal_of_another_name_wakes_nobody(database: Database, conn: Connection) -> None:
    worker, run_id = waiting(database, "paid")
    signal(conn, run_id, "shipped")
    assert worker.claim() == []
    assert dispatch(database, run_id)["ready_at"] == "infinity"


def test_signals_are_consumed_in_the_order_sent_each_once(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for n in range(3):
        signal(conn, held.run_id, "paid", {"n": n + 1})
    got = [worker.suspend_row(held, wait(f"w{n}", name="paid"))["checkpoint"]["result"]["n"] for n in range(3)]
    assert got == [1, 2, 3]
    assert worker.suspend(held, wait("w3", name="paid")) == "suspended"


def test_signals_sent_in_one_transaction_keep_their_order(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    database.clock.stop()  # all in the same microsecond
    with conn.transaction():
        for n in range(20):
            signal(conn, held.run_id, "paid", {"n": n + 1})
    got = [worker.suspend_row(held, wait(f"w{n}", name="paid"))["checkpoint"]["result"]["n"] for n in range(20)]
    assert got == list(range(1, 21))


def test_a_consumed_signal_is_named_by_its_consumer(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, id="payment-7")
    worker.suspend(held, wait("paid"))
    assert [step["signal_id"] for step in steps(database, held.run_id)] == ["payment-7"]


def test_the_same_id_again_is_a_duplicate_and_one_message(database: Database, conn: Connection) -> None:
    _, run_id = waiting(database, "paid")
    assert [signal(conn, run_id, id="7") for _ in range(3)] == ["accepted", "duplicate", "duplicate"]
    assert database.value("select count(*) from perdure.signal") == 1


def test_a_duplicate_stays_a_duplicate_when_the_run_has_ended(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, id="7")
    worker.complete(held)
    assert signal(conn, held.run_id, id="7") == "duplicate"
    assert signal(conn, held.run_id, id="8") == "finished"


def test_the_same_id_to_two_runs_is_two_messages(conn: Connection) -> None:
    assert [signal(conn, start(conn), id="7") for _ in range(2)] == ["accepted", "accepted"]


def test_a_late_signal_is_answered_and_leaves_nothing(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.complete(held)
    with conn.transaction():
        assert signal(conn, held.run_id) == "finished"
        assert signal(conn, unknown_run()) == "unknown"
        conn.execute("select 1")  # the transaction lives
    assert database.value("select count(*) from perdure.signal") == 0
    assert database.value("select count(*) from perdure.wake") == 0


def test_a_signal_that_is_rolled_back_never_came(database: Database, conn: Connection) -> None:
    worker, run_id = waiting(database, "paid")
    with conn.transaction(force_rollback=True):
        signal(conn, run_id, id="7")
    assert worker.claim() == []
    assert signal(conn, run_id, id="7") == "accepted"


def test_a_payload_may_be_json_null_and_is_no_time_out(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    scalar(conn, "signal", run_id=held.run_id, name="paid", payload=Jsonb(None))
    checkpoint = worker.suspend_row(held, wait("paid"))["checkpoint"]
    assert "result" in checkpoint and checkpoint["result"] is None


def test_a_null_payload_is_refused(conn: Connection) -> None:
    run_id = start(conn)
    with pytest.raises(psycopg.Error) as refused:
        scalar(conn, "signal", run_id=run_id, name="paid", payload=None)
    assert refused.value.sqlstate == "22023"


def test_signal_key_finds_the_run_by_its_key(database: Database, conn: Connection) -> None:
    assert send_key(conn) == "unknown"
    run_id = start(conn, key="k")
    assert send_key(conn) == "accepted"
    assert database.value("select run_id from perdure.signal") == run_id


def test_signal_key_starts_the_run_where_there_is_none(database: Database, conn: Connection) -> None:
    assert send_key(conn, start_input=Jsonb({"n": 1}), payload=Jsonb({"m": 1})) == "accepted"
    assert send_key(conn, start_input=Jsonb({"n": 2}), payload=Jsonb({"m": 2})) == "accepted"
    worker = Worker(database)
    held = worker.claim_one()
    assert held.row["input"] == {"n": 1}
    got = [worker.suspend_row(held, wait(f"w{n}", name="paid"))["checkpoint"]["result"]["m"] for n in range(2)]
    assert got == [1, 2]


def test_signal_key_does_not_start_a_run_again_that_has_ended(database: Database, conn: Connection) -> None:
    send_key(conn, start_input=Jsonb({}))
    worker = Worker(database)
    worker.complete(worker.claim_one())
    assert send_key(conn, start_input=Jsonb({})) == "finished"
    assert database.value("select count(*) from perdure.run") == 1


def test_a_signal_to_a_paused_run_is_there_when_it_is_resumed(database: Database, conn: Connection) -> None:
    worker, run_id = waiting(database, "paid")
    act(conn, "pause", run_id)
    drain(conn)
    signal(conn, run_id, "paid", {"n": 9})
    assert worker.claim() == []
    act(conn, "resume", run_id)
    assert answers(worker.claim_one()) == [("paid", {"n": 9})]


def test_a_signal_to_a_run_that_suspends_paused_is_there_when_it_is_resumed(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid", {"n": 9})
    drain(conn)
    act(conn, "pause", held.run_id)
    assert worker.suspend(held, wait("paid")) == "suspended"
    assert state(database, held.run_id) == "paused"
    act(conn, "resume", held.run_id)
    assert answers(worker.claim_one()) == [("paid", {"n": 9})]


def test_a_signal_left_over_does_not_disturb_the_end(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id)
    assert worker.complete(held) == "done"
    drain(conn)
    assert outcome(database, held.run_id) == "completed"
    assert keys(database, held.run_id) == []
    assert database.value("select count(*) from perdure.wake") == 0
