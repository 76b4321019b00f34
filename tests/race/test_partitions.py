"""Cutting anew beside others: a user's open transaction, workers, clients, old snapshots, a second session, a kill."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from support.database import Database, eventually, in_background
from support.engine import (
    Connection,
    Held,
    Worker,
    a_run,
    call,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
)

CUT = {"made ahead": 4, "dropped": 15}


@pytest.fixture
def weeks(database: Database) -> Database:
    """A database whose clock stands at noon of the day of its install."""
    database.clock.stop(database.value("select date_trunc('day', now(), 'UTC') + interval '12 hours'"))
    return database


def rotate(conn: Connection) -> dict[str, Any]:
    done: dict[str, Any] = scalar(conn, "rotate")
    return done


def until(database: Database, conn: Connection, did: str) -> None:
    """Rotate, and commit, up to the call that would do this next; then make that call and leave it open."""
    for _ in range(20):
        with conn.transaction():
            done = rotate(conn)
            if done.get("period") == did:
                raise psycopg.Rollback
        if done.get("period") == did:
            conn.execute("begin")
            assert rotate(conn)["period"] == did
            return
    raise AssertionError(f"{did} never came")


def due(database: Database, did: str) -> None:
    """Let the time come for this, and nothing else be due before it."""
    database.clock.advance(days=CUT[did])
    if did == "dropped":
        conn = database.connect()
        while rotate(conn).get("period") != "made ahead":
            pass


def cuts(database: Database) -> list[Any]:
    """How all tables are cut, and where each row is."""
    bounds = database.admin.execute(
        "select c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid) from pg_class as c "
        "where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p') order by 1"
    ).fetchall()
    rows = database.admin.execute("select tableoid, run_id from perdure.run order by 2").fetchall()
    return [bounds, rows]


@pytest.mark.parametrize("did", list(CUT))
def test_an_open_start_is_not_waited_for_and_nobody_waits_behind_it(
    weeks: Database, conn: Connection, did: str
) -> None:
    user = weeks.connect(autocommit=False)
    run_id = start(user, input={"n": 1})
    if did == "dropped":
        weeks.clock.advance(days=15)
    else:
        due(weeks, did)
    before = cuts(weeks)
    ticker = weeks.connect()
    for _ in range(3):
        assert rotate(ticker) == {"period": "busy"}
        assert ticker.execute(
            "select count(*) from pg_locks where pid = pg_backend_pid() and mode like '%%Exclusive%%' and relation is not null"
        ).fetchone() == (0,), "it let go of what it had"
    assert cuts(weeks) == before
    other = start(conn)
    user.commit()
    seen = []
    for _ in range(20):
        seen.append(rotate(ticker).get("period"))
        if did in seen:
            break
    assert did in seen
    assert {state(weeks, run_id), state(weeks, other)} == {"ready"}
    assert not weeks.admin.execute("select * from perdure.violations").fetchall()


@pytest.mark.parametrize("did", list(CUT))
def test_an_open_reader_is_not_waited_for(weeks: Database, conn: Connection, did: str) -> None:
    run_id = start(conn)
    due(weeks, did)
    reader = weeks.connect(autocommit=False)
    call(reader, "run_results", run_ids=[run_id])
    ticker = weeks.connect()
    assert rotate(ticker) == {"period": "busy"}
    reader.rollback()
    assert rotate(ticker)["period"] == did


@pytest.mark.parametrize("did", list(CUT))
@pytest.mark.parametrize("is_kept", [True, False])
def test_who_saves_meanwhile_waits_and_finds_the_home_of_its_row(
    weeks: Database, conn: Connection, did: str, is_kept: bool
) -> None:
    worker, held = a_run(weeks)
    worker.save(held, "a")
    due(weeks, did)
    ticker = weeks.connect()
    until(weeks, ticker, did)
    saving = in_background(worker.save, held, "b")
    weeks.wait_blocked(worker.conn, by=ticker.info.backend_pid)
    client = weeks.connect()
    starting = in_background(start, client)
    weeks.wait_blocked(client, by=ticker.info.backend_pid)
    sender = weeks.connect()
    sending = in_background(signal, sender, held.run_id)
    weeks.wait_blocked(sender, by=ticker.info.backend_pid)
    ticker.execute("commit" if is_kept else "rollback")
    assert saving.result(timeout=20) == "saved"
    assert sending.result(timeout=20) == "accepted"
    assert state(weeks, starting.result(timeout=20)) == "ready"
    assert worker.complete(held) == "done"
    assert weeks.value("select count(*) from perdure.step where run_id = %s", held.run_id) == 2
    assert not weeks.admin.execute("select * from perdure.violations").fetchall()


def test_plans_that_a_session_made_before_find_what_was_moved(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks)
    worker.suspend(held, wait("paid"))
    conn.prepare_threshold = 1
    for _ in range(8):
        assert signal(conn, held.run_id, name="other") == "accepted"
        call(worker.conn, "run_results", run_ids=[held.run_id])
    due(weeks, "dropped")
    assert rotate(weeks.connect())["period"] == "dropped"
    assert signal(conn, held.run_id) == "accepted"
    again = worker.claim_one()
    assert worker.complete(again) == "done"
    assert call(worker.conn, "run_results", run_ids=[held.run_id])[0]["status"] == "completed"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_older_snapshot_is_told_to_try_again_instead_of_unknown(
    weeks: Database, conn: Connection, level: str
) -> None:
    worker, held = a_run(weeks, key="k")
    worker.suspend(held, wait("paid"))
    due(weeks, "dropped")
    users = [weeks.connect(autocommit=False) for _ in range(4)]
    for user in users:
        user.execute(f"set transaction isolation level {level}")
        user.execute("select 1")
    assert rotate(weeks.connect())["period"] == "dropped"
    with pytest.raises(errors.SerializationFailure):
        signal(users[0], held.run_id)
    with pytest.raises(errors.SerializationFailure):
        start(users[1], key="k")
    with pytest.raises(errors.SerializationFailure):
        call(users[2], "result", run_id=held.run_id)
    assert scalar(users[3], "cancel", run_id=held.run_id) == "accepted", "its row in dispatch was not moved"
    users[3].commit()
    assert start(conn, key="k") == held.run_id


def test_a_second_session_leaves_it_to_the_first(weeks: Database) -> None:
    due(weeks, "made ahead")
    ticker = weeks.connect()
    until(weeks, ticker, "made ahead")
    assert rotate(weeks.connect()) == {}
    ticker.execute("commit")


@pytest.mark.parametrize("did", list(CUT))
def test_a_kill_in_the_middle_leaves_all_as_it_was(weeks: Database, conn: Connection, did: str) -> None:
    worker, held = a_run(weeks, key="k")
    worker.save(held, "a")
    due(weeks, did)
    before = cuts(weeks)
    ticker = weeks.connect()
    until(weeks, ticker, did)
    weeks.admin.execute("select pg_terminate_backend(%s)", [ticker.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        ticker.execute("commit")
    eventually(lambda: not weeks.value("select count(*) from pg_locks where pid = %s", ticker.info.backend_pid))
    assert cuts(weeks) == before
    assert worker.save(held, "b") == "saved"
    assert rotate(weeks.connect())["period"] == did
    assert worker.complete(held) == "done"


def test_a_key_that_somebody_is_about_to_use_is_freed_later_and_not_waited_for(
    weeks: Database, conn: Connection
) -> None:
    worker, held = a_run(weeks, key="k")
    worker.complete(held)
    due(weeks, "dropped")
    ticker = weeks.connect()
    assert rotate(ticker)["period"] == "dropped"
    user = weeks.connect(autocommit=False)
    run_id = start(user, key="k")
    assert run_id != held.run_id
    rotate(ticker)
    user.rollback()
    assert weeks.value("select run_id from perdure.run_key") == held.run_id
    for _ in range(3):
        weeks.clock.advance(minutes=2)
        rotate(ticker)
    assert weeks.value("select count(*) from perdure.run_key") == 0


def test_of_two_starts_on_the_key_of_a_run_that_is_gone_one_makes_the_run(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks, key="k")
    worker.complete(held)
    due(weeks, "dropped")
    assert rotate(weeks.connect())["period"] == "dropped"
    first = weeks.connect(autocommit=False)
    made = start(first, key="k")
    second = weeks.connect()
    starting = in_background(start, second, key="k")
    weeks.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    assert starting.result(timeout=20) == made != held.run_id


class Busy:
    """Workers and clients at work while periods come and go under them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.started: list[UUID] = []
        self.problems: list[BaseException] = []
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def client(self, conn: Connection, n: int) -> None:
        for i in range(10_000):
            if self.stop.is_set():
                return
            run_id = start(conn, key=f"{n}/{i}")
            with self._lock:
                self.started.append(run_id)
            if i % 3 == 0:
                signal(conn, run_id)

    def worker(self, worker: Worker) -> None:
        while not self.stop.is_set():
            worker.beat()
            for held in worker.claim(5):
                self.work(worker, held)

    def work(self, worker: Worker, held: Held) -> None:
        for key in ("a", "b"):
            assert eventually(lambda key=key: (a := worker.save(held, key)) != "busy" and a) in ("saved", "on_record")  # type: ignore[misc]
        assert eventually(lambda: (a := worker.complete(held)) != "busy" and a) == "done"

    def go(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException as problem:  # noqa: BLE001 - told at the end
            self.problems.append(problem)
            self.stop.set()


@pytest.mark.slow
def test_periods_come_and_go_under_load_without_a_deadlock_or_a_loss(database: Database) -> None:
    for name, value in (("retention", "1 day"), ("failed_retention", "1 day"), ("partition_period", "1 day")):
        database.admin.execute("select perdure.put_setting(%s, to_jsonb(%s::text))", [name, value])
    owner = database.connect()
    database.admin.execute(f"alter database {owner.info.dbname} set deadlock_timeout = '10ms'")
    busy = Busy(database)
    threads = [threading.Thread(target=busy.go, args=(busy.client, database.connect(), n)) for n in range(2)]
    threads += [threading.Thread(target=busy.go, args=(busy.worker, Worker(database, lease="1 day"))) for _ in range(2)]
    ticker = database.connect()
    done: list[str] = []
    for thread in threads:
        thread.start()
    try:
        for _ in range(600):
            database.clock.advance(hours=1)
            scalar(ticker, "tick")
            done.append(rotate(ticker).get("period", ""))
            if done.count("dropped") >= 5 or busy.stop.is_set():
                break
    finally:
        busy.stop.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not busy.problems, busy.problems
    assert done.count("dropped") >= 5, done
    assert not database.admin.execute("select * from perdure.violations").fetchall()
    last = busy.started[-1]
    worker = Worker(database)
    while held := worker.claim(50):
        for each in held:
            busy.work(worker, each)
    assert outcome(database, last) == "completed"
    assert not database.value("select count(*) from perdure.dispatch where worker_id is null")
