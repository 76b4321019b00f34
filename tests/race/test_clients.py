"""Clients that meet on the same key, the same signal id or the same ended run: one wins, the other waits, 5 s at most."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import permutations
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    drain,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
)


@pytest.fixture
def two(database: Database, conn: Connection) -> tuple[Connection, Connection]:
    """Two clients with open transactions."""
    return database.connect(autocommit=False), database.connect(autocommit=False)


def test_the_second_start_with_a_key_waits_and_gets_the_run(database: Database, two: tuple[Connection, ...]) -> None:
    first, second = two
    run_id = start(first, key="k")
    waiting = in_background(start, second, key="k")
    database.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    assert waiting.result(timeout=10) == run_id


def test_the_second_start_with_a_key_makes_the_run_when_the_first_gives_up(
    database: Database, two: tuple[Connection, ...]
) -> None:
    first, second = two
    run_id = start(first, key="k")
    waiting = in_background(start, second, key="k")
    database.wait_blocked(second, by=first.info.backend_pid)
    first.rollback()
    assert waiting.result(timeout=10) != run_id
    second.commit()
    assert database.value("select count(*) from perdure.run") == 1


@pytest.mark.parametrize("name", ["start", "start_run", "start_many", "signal", "signal_key", "retry", "retry_many"])
def test_nobody_waits_for_longer_than_five_seconds(
    database: Database, conn: Connection, two: tuple[Connection, ...], name: str
) -> None:
    limit = database.value(
        "select array_to_string(proconfig, ' ') from pg_proc "
        "where proname = %s and pronamespace = 'perdure'::regnamespace",
        name,
    )
    assert "lock_timeout=5s" in limit
    for function in ("start", "start_run", "start_many", "signal", "signal_key", "retry", "retry_many"):
        database.admin.execute(f"alter function perdure.{function} set lock_timeout = '50ms'")  # fmt: skip
    worker, held = a_run(database)
    if name.startswith("retry"):
        worker.fail(held)
    arguments = {
        "start": {"workflow": "order", "key": "k"},
        "start_run": {"workflow": "order", "key": "k"},
        "start_many": {"workflow": "order", "inputs": [Jsonb({})], "keys": ["k"]},
        "signal": {"run_id": held.run_id, "name": "x", "id": "7"},
        "signal_key": {"workflow": "order", "key": "k", "name": "x", "start_input": Jsonb({})},
        "retry": {"run_id": held.run_id},
        "retry_many": {"run_ids": [held.run_id]},
    }[name]
    call(two[0], name, **arguments)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        call(two[1], name, **arguments)


def test_two_keys_in_opposite_order_are_a_deadlock_that_one_survives(database: Database, conn: Connection) -> None:
    first, second = (database.connect(database.superuser, autocommit=False) for _ in range(2))
    for client in (first, second):
        client.execute("set deadlock_timeout = '10ms'")
    start(first, key="a")
    start(second, key="b")
    waiting = in_background(start, first, key="b")
    database.wait_blocked(first, by=second.info.backend_pid)
    other = in_background(start, second, key="a")

    def end(client: Connection, future: Future[UUID]) -> str:
        try:
            future.result(timeout=10)
        except psycopg.errors.DeadlockDetected:
            client.rollback()
            return "40P01"
        client.commit()
        return "started"

    answers = [end(first, waiting), end(second, other)]
    assert sorted(answers) == ["40P01", "started"]


def test_start_many_sorts_its_keys_so_that_opposite_orders_are_no_deadlock(
    database: Database, two: tuple[Connection, ...]
) -> None:
    first, second = two
    inputs = [Jsonb({})] * 3
    rows = call(first, "start_many", workflow="order", inputs=inputs, keys=["c", "a", "b"])
    waiting = in_background(call, second, "start_many", workflow="order", inputs=inputs, keys=["b", "c", "a"])
    database.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    got = {row["run_id"] for row in waiting.result(timeout=10)}
    assert got == {row["run_id"] for row in rows}


def test_under_an_older_snapshot_the_second_start_is_told_to_try_again(two: tuple[Connection, ...]) -> None:
    first, second = two
    second.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    second.execute("select 1 from perdure.run_key")
    run_id = start(first, key="k")
    first.commit()
    with pytest.raises(psycopg.errors.SerializationFailure):
        start(second, key="k")
    second.rollback()
    assert start(second, key="k") == run_id


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_clients_under_an_older_snapshot_are_heard(database: Database, conn: Connection, level: str) -> None:
    worker, held = a_run(database)
    client = database.connect(autocommit=False)
    client.isolation_level = psycopg.IsolationLevel[level]
    client.execute("select 1 from perdure.run")
    worker.suspend(held, wait("w"))
    assert signal(client, held.run_id, "w", {"n": 7}) == "accepted"
    other = start(client)
    assert act(client, "pause", other) == "accepted"
    client.commit()
    again = worker.claim_one()
    assert (again.run_id, again.steps[0]["result"]) == (held.run_id, {"n": 7})
    assert state(database, other) == "paused"


def test_an_act_by_an_older_snapshot_on_a_run_that_ended_meanwhile_is_dropped(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    client = database.connect(autocommit=False)
    client.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    client.execute("select 1 from perdure.run")
    worker.complete(held)
    assert act(client, "cancel", held.run_id) == "accepted", "by what it sees"
    client.commit()
    assert drain(conn) == (0, 0)
    assert database.value("select answer from perdure.act") == "finished"
    assert outcome(database, held.run_id) == "completed"


@pytest.mark.parametrize(("ends", "answer"), [("commit", "duplicate"), ("rollback", "accepted")])
def test_the_second_signal_with_an_id_waits_for_the_first(
    database: Database, two: tuple[Connection, ...], ends: str, answer: str
) -> None:
    first, second = two
    _, held = a_run(database)
    signal(first, held.run_id, id="7")
    waiting = in_background(signal, second, held.run_id, id="7")
    database.wait_blocked(second, by=first.info.backend_pid)
    getattr(first, ends)()
    assert waiting.result(timeout=10) == answer
    second.commit()
    assert database.value("select count(*) from perdure.signal") == 1


@pytest.mark.parametrize(("ends", "answer"), [("commit", "duplicate"), ("rollback", "accepted")])
def test_the_second_retry_waits_for_the_first(
    database: Database, two: tuple[Connection, ...], ends: str, answer: str
) -> None:
    first, second = two
    worker, held = a_run(database)
    worker.fail(held)
    assert act(first, "retry", held.run_id) == "accepted"
    waiting = in_background(act, second, "retry", held.run_id)
    database.wait_blocked(second, by=first.info.backend_pid)
    getattr(first, ends)()
    assert waiting.result(timeout=10) == answer
    second.commit()
    assert worker.complete(worker.claim_one()) == "done"


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_under_an_older_snapshot_no_second_run_of_a_key_begins_beside_one_that_was_retried(
    database: Database, conn: Connection, level: str
) -> None:
    worker, held = a_run(database, key="k")
    worker.fail(held)
    heir = start(conn, key="k", on_duplicate="restart_if_failed")
    worker.fail(worker.claim_one())
    client = database.connect(autocommit=False)
    client.isolation_level = psycopg.IsolationLevel[level]
    client.execute("select 1 from perdure.run")
    assert act(conn, "retry", heir) == "accepted"
    with pytest.raises(psycopg.errors.SerializationFailure):
        start(client, key="k", on_duplicate="restart_if_failed")
    client.rollback()
    assert start(client, key="k", on_duplicate="restart_if_failed") == heir
    client.rollback()
    worker.fail(worker.claim_one())
    client.execute("select 1 from perdure.run")
    assert act(conn, "retry", heir) == "accepted"
    with pytest.raises(psycopg.errors.SerializationFailure):
        act(client, "retry", held.run_id)
    client.rollback()
    with pytest.raises(psycopg.Error) as refused:
        act(client, "retry", held.run_id)
    assert refused.value.sqlstate == "PD005"


def test_an_open_retry_holds_up_no_engine(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    late = database.connect(autocommit=False)
    act(late, "cancel", held.run_id)
    worker.fail(held)
    late.commit()
    retrier = database.connect(autocommit=False)
    act(retrier, "retry", held.run_id)
    for each in (conn, worker.conn):
        each.execute("set lock_timeout = '50ms'")
    assert drain(conn) == (0, 0)
    conn.execute("select perdure.tick()")
    assert worker.claim() == []
    assert worker.fail(held) == "done", "the same call again, before the retry is committed"
    retrier.commit()
    again = worker.claim_one()
    assert worker.fail(held) == "lost"
    assert worker.complete(again) == "done"


def test_two_replacements_of_one_run_come_one_after_the_other(database: Database, two: tuple[Connection, ...]) -> None:
    first, second = two
    worker = Worker(database)
    start(worker.conn, key="k")
    held = worker.claim_one()
    middle = start(first, key="k", on_duplicate="replace")
    waiting = in_background(start, second, key="k", on_duplicate="replace")
    database.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    last = waiting.result(timeout=10)
    second.commit()
    assert worker.claim() == [] == worker.claim(), "the old run is at work"
    assert outcome(database, middle) == "cancelled"
    assert worker.complete(held) == "cancelled"
    assert worker.claim_one().run_id == last


def test_a_replacement_begins_when_the_old_run_has_ended_in_every_order(database: Database, conn: Connection) -> None:
    """Neither may see the other: the sweep of the tick frees whoever was told by nobody."""
    worker = Worker(database)
    clients = [database.connect(autocommit=False) for _ in range(2)]
    replacer, ender = clients
    for order in permutations(("replace", "replaced", "end", "ended", "drain")):
        at = order.index
        if at("replace") > at("replaced") or at("end") > at("ended"):
            continue
        key = "-".join(order)
        start(conn, key=key)
        held = worker.claim_one()
        new: UUID | None = None
        for event in order:
            if event == "replace":
                new = start(replacer, key=key, on_duplicate="replace")
            elif event == "replaced":
                replacer.commit()
            elif event == "end":
                answer = worker.on(ender).complete(held)
                assert answer in ("done", "cancelled"), order
            elif event == "ended":
                ender.commit()
            else:
                drain(conn)
            if at("end") < at(event) < at("ended") or at(event) < at("end"):
                claimed = worker.claim()
                assert claimed == [], (order, event)
        drain(conn)
        conn.execute("select perdure.tick()")
        again = worker.claim_one()
        assert again.run_id == new, order
        assert worker.complete(again) == "done", order
    assert database.value("select count(*) from perdure.dispatch") == 0
    assert scalar(conn, "find_run", workflow="order", key="k") is None
