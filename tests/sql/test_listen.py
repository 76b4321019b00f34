"""A worker that waits is told by NOTIFY that there is work; nobody else is, and nobody is held up by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    declare_dead,
    scalar,
    signal,
    start,
    wait,
)


@pytest.fixture
def listening(database: Database) -> Connection:
    """A session that is told of the work of the queue `default`."""
    conn = database.connect()
    worker = Worker(database, conn=conn)
    assert listen(conn, worker) == ["default"]
    return conn


def listen(conn: Connection, worker: Worker, **options: object) -> list[str]:
    got: list[str] = scalar(conn, "listen", worker_id=worker.worker_id, **options)
    return sorted(got)


def was_told(conn: Connection) -> bool:
    """Whether something had been told by now."""
    conn.execute("select")
    return bool(list(conn.notifies(timeout=0)))


def test_a_start_tells_the_session_that_listens(listening: Connection, conn: Connection) -> None:
    assert not was_told(listening)
    start(conn)
    assert was_told(listening)
    call(conn, "start_many", workflow="order", inputs=[Jsonb(1), Jsonb(2)])
    assert was_told(listening)


def test_a_start_tells_nobody_before_it_is_committed(listening: Connection, database: Database) -> None:
    client = database.connect(autocommit=False)
    start(client)
    assert not was_told(listening)
    client.commit()
    assert was_told(listening)
    start(client)
    client.rollback()
    assert not was_told(listening)


def test_where_nobody_listens_no_commit_carries_a_notification(listening: Connection, conn: Connection) -> None:
    """Whoever only knows the channel hears nothing: commits that notify wait for each other."""
    [[channel]] = listening.execute("select pg_listening_channels()").fetchall()
    call(listening, "unlisten", queues=["default"])
    listening.execute(f'listen "{channel}"'.encode())
    start(conn)
    assert not was_told(listening)


def test_a_session_that_has_left_is_told_no_more_and_another_can_take_its_place(
    database: Database, listening: Connection, conn: Connection
) -> None:
    call(listening, "unlisten", queues=["default"])
    start(conn)
    assert not was_told(listening)
    other = database.connect()
    assert listen(other, Worker(database, conn=other)) == ["default"]
    start(conn)
    assert was_told(other)
    assert not was_told(listening)


def test_of_all_that_would_listen_one_is_told(database: Database, listening: Connection, conn: Connection) -> None:
    """A start wakes one idle worker, not a hundred."""
    other = database.connect()
    worker = Worker(database, conn=other)
    assert listen(other, worker) == []
    start(conn)
    assert was_told(listening)
    assert not was_told(other)
    listening.close()
    database.wait_until(
        "select not exists (select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock')"
    )
    assert listen(other, worker) == ["default"]


def test_to_listen_twice_is_to_listen_once(database: Database) -> None:
    conn = database.connect()
    worker = Worker(database, conn=conn)
    assert listen(conn, worker) == listen(conn, worker) == ["default"]
    call(conn, "unlisten", queues=["default"])
    assert database.value("select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'") == 0


def test_a_worker_is_told_of_its_own_queues_alone(database: Database, conn: Connection) -> None:
    session = database.connect()
    conn.execute("select perdure.put_workflow('mail', 'mail'), perdure.put_workflow('bill', 'bill')")
    worker = Worker(database, conn=session, queues=["mail", "post"])
    assert listen(session, worker, queues=["mail", "bill"]) == ["mail"]
    assert listen(session, worker, queues=["post"]) == ["post"]
    start(conn)
    start(conn, workflow="bill")
    assert not was_told(session)
    start(conn, workflow="mail")
    assert was_told(session)


def test_a_start_that_replaces_a_run_of_another_queue_tells_its_own(database: Database, conn: Connection) -> None:
    """Nothing is due there, but its wakes have to be drained, and nobody else may be idle."""
    conn.execute("select perdure.put_queue('other')")
    session = database.connect()
    assert listen(session, Worker(database, conn=session, queues=["other"])) == ["other"]
    start(conn, key="k")
    assert not was_told(session)
    start(conn, key="k", queue="other", on_duplicate="replace")
    assert was_told(session)


def test_whoever_is_about_to_start_hinders_nobody_who_would_listen(database: Database, conn: Connection) -> None:
    client = database.connect(autocommit=False)
    start(client)
    session = database.connect()
    assert listen(session, Worker(database, conn=session)) == ["default"]
    client.rollback()


def _signalled(database: Database, conn: Connection) -> Callable[[], object]:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    return lambda: signal(conn, held.run_id)


def _cancelled(database: Database, conn: Connection) -> Callable[[], object]:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    return lambda: act(conn, "cancel", held.run_id)


def _retried(database: Database, conn: Connection) -> Callable[[], object]:
    worker, held = a_run(database)
    worker.fail(held)
    return lambda: act(conn, "retry", held.run_id)


def _released(database: Database, conn: Connection) -> Callable[[], object]:
    worker, held = a_run(database)
    return lambda: worker.release(held)


def _stopped(database: Database, conn: Connection) -> Callable[[], object]:
    worker, _ = a_run(database)
    return worker.stop


def _recovered(database: Database, conn: Connection) -> Callable[[], object]:
    worker, _ = a_run(database)
    return lambda: declare_dead(database, worker)


def _succeeded(database: Database, conn: Connection) -> Callable[[], object]:
    worker, held = a_run(database, key="k")
    start(conn, key="k", on_duplicate="replace")
    return lambda: worker.complete(held)


@pytest.mark.parametrize(
    "prepare", [_signalled, _cancelled, _retried, _released, _stopped, _recovered, _succeeded], ids=lambda p: p.__name__
)
def test_whatever_makes_work_tells(
    database: Database, conn: Connection, prepare: Callable[[Database, Connection], Callable[[], object]]
) -> None:
    make_work = prepare(database, conn)
    session = database.connect()
    assert listen(session, Worker(database, conn=session)) == ["default"]
    make_work()
    assert was_told(session)


@pytest.mark.parametrize(("value", "tells"), [("auto", True), ("always", True), ("never", False)])
def test_the_setting_notify_is_obeyed(
    database: Database, listening: Connection, conn: Connection, value: str, tells: bool
) -> None:
    database.admin.execute("select perdure.put_setting('notify', %s)", [Jsonb(value)])
    start(conn)
    assert was_told(listening) is tells


def test_the_setting_notify_takes_three_words(database: Database) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="auto, always or never"):
        database.admin.execute("select perdure.put_setting('notify', '\"often\"')")


def test_what_is_due_later_is_known_by_asking(database: Database, listening: Connection, conn: Connection) -> None:
    worker = Worker(database, conn=listening)
    assert scalar(listening, "next_due", worker_id=worker.worker_id) is None
    start(conn, delay="1 hour", priority=5)
    start(conn, delay="1 minute")
    assert not was_told(listening)
    seconds: float = scalar(listening, "next_due", worker_id=worker.worker_id).total_seconds()
    assert 0 < seconds <= 60


def test_many_that_are_due_later_tell_nobody(listening: Connection, conn: Connection) -> None:
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    call(conn, "start_many", workflow="order", inputs=[Jsonb(1), Jsonb(2)], start_at=later)
    assert not was_told(listening)
    call(conn, "start_many", workflow="order", inputs=[Jsonb(1), Jsonb(2)], start_at=later - timedelta(hours=2))
    assert was_told(listening)


def test_whoever_nobody_may_tell_knows_that_it_must_ask(database: Database, conn: Connection) -> None:
    worker = Worker(database, conn=conn)
    database.admin.execute("select perdure.put_setting('notify', '\"never\"')")
    assert listen(conn, worker) == []
    assert database.value("select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'") == 0
    database.admin.execute("select perdure.put_setting('notify', '\"always\"')")
    assert listen(conn, worker) == ["default"]


def test_a_listener_that_reads_nothing_any_more_is_told_no_more(
    database: Database, listening: Connection, conn: Connection
) -> None:
    """A worker that is frozen keeps its lock, and the notifications of the whole server until it reads them."""
    [[channel]] = listening.execute("select pg_listening_channels()").fetchall()
    conn.execute("select pg_notify(%s, n || repeat('x', 7900)) from generate_series(1, 5000) as n", [channel])
    database.wait_until("select pg_notification_queue_usage() > 0.001")
    sink = database.connect()
    sink.execute(f'listen "{channel}"'.encode())
    start(conn)
    assert not was_told(sink)


def test_next_due_knows_sleeps_and_no_endless_waits_nor_what_is_paused_or_elsewhere(
    database: Database, conn: Connection
) -> None:
    def later(run_id: UUID) -> None:
        act(conn, "pause", run_id)
        conn.execute("select perdure.drain()")

    conn.execute("select perdure.put_workflow('mail', 'mail')")
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    start(conn, workflow="mail", delay="1 minute")
    later(start(conn, delay="2 minutes"))
    start(conn)  # due already
    assert scalar(conn, "next_due", worker_id=worker.worker_id) is None
    start(conn, delay="1 hour")
    assert 3500 < scalar(conn, "next_due", worker_id=worker.worker_id).total_seconds() <= 3600
