"""A clock that was set back: who stands in line goes on at once, who asked for a time waits for that time."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Connection, Held, Worker, act, call, drain, scalar, signal, start, state, wait


@pytest.fixture
def conn(database: Database) -> Connection:
    made = database.connect()
    made.execute("select perdure.put_workflow('order')")
    database.clock.stop()
    return made


def set_back(database: Database, conn: Connection, **by: float) -> int:
    """Tick, set the clock back, tick again; return how many runs that brought back."""
    scalar(conn, "tick")
    database.clock.advance(**{unit: -number for unit, number in (by or {"hours": 1}).items()})
    brought: int = scalar(conn, "tick")["brought_back"]
    return brought


def suspended(worker: Worker, *, until: float | None, database: Database, kind: str = "signal") -> Held:
    """A run that waits for the signal "paid", for so many minutes."""
    start(worker.conn)
    held = worker.claim_one()
    time = None if until is None else database.value("select perdure._now() + %s * interval '1 minute'", until)
    assert worker.suspend(held, wait("paid", kind, until=time)) == "suspended"
    return held


def started(database: Database, worker: Worker) -> UUID:
    return start(worker.conn)


def released(database: Database, worker: Worker) -> UUID:
    start(worker.conn)
    held = worker.claim_one()
    assert worker.release(held) == "done"
    return held.run_id


def taken_back(database: Database, worker: Worker) -> UUID:
    other = Worker(database)
    start(worker.conn)
    held = other.claim_one()
    while state(database, held.run_id) == "running":
        database.clock.advance(seconds=5)
        worker.beat()
        scalar(worker.conn, "tick")
    return held.run_id


def told(database: Database, worker: Worker) -> UUID:
    held = suspended(worker, until=None, database=database)
    signal(worker.conn, held.run_id)
    drain(worker.conn)
    return held.run_id


def told_in_time(database: Database, worker: Worker) -> UUID:
    held = suspended(worker, until=90, database=database)
    signal(worker.conn, held.run_id)
    drain(worker.conn)
    return held.run_id


def cancelled(database: Database, worker: Worker) -> UUID:
    held = suspended(worker, until=90, database=database, kind="sleep")
    act(worker.conn, "cancel", held.run_id)
    drain(worker.conn)
    return held.run_id


def resumed(database: Database, worker: Worker) -> UUID:
    run_id = start(worker.conn)
    for name in ("pause", "resume"):
        act(worker.conn, name, run_id)
        drain(worker.conn)
    return run_id


def retried(database: Database, worker: Worker) -> UUID:
    start(worker.conn)
    held = worker.claim_one()
    worker.fail(held)
    act(worker.conn, "retry", held.run_id)
    return held.run_id


def successor(database: Database, worker: Worker) -> UUID:
    start(worker.conn, key="k")
    first = worker.claim_one()
    run_id = start(worker.conn, key="k", on_duplicate="replace")
    drain(worker.conn)
    worker.complete(first)
    drain(worker.conn)
    return run_id


IN_LINE = [
    started, released, taken_back, told, told_in_time, cancelled, resumed, retried, successor,
]  # fmt: skip


@pytest.mark.parametrize("make", IN_LINE, ids=lambda make: make.__name__)
def test_what_is_ready_does_not_wait_for_a_clock_that_was_set_back(
    database: Database, conn: Connection, make: Callable[[Database, Worker], UUID]
) -> None:
    worker = Worker(database, conn=conn)
    run_id = make(database, worker)
    assert state(database, run_id) in ("ready", "cancelling")
    assert set_back(database, conn) == 1
    assert [held.run_id for held in worker.claim(10)] == [run_id]
    assert scalar(conn, "tick")["brought_back"] == 0
    assert database.value("select reached_at is null from perdure.timeline"), "it is looked for no longer"


def sleeping(database: Database, worker: Worker) -> UUID:
    return suspended(worker, until=5, database=database, kind="sleep").run_id


def overslept(database: Database, worker: Worker) -> UUID:
    """Its time had come, and nobody claimed it before the clock was set back: by the clock it is still to come."""
    held = suspended(worker, until=5, database=database, kind="sleep")
    database.clock.advance(minutes=10)
    return held.run_id


def backing_off(database: Database, worker: Worker) -> UUID:
    return suspended(worker, until=5, database=database, kind="retry").run_id


def waiting(database: Database, worker: Worker) -> UUID:
    return suspended(worker, until=5, database=database).run_id


def scheduled(database: Database, worker: Worker) -> UUID:
    return start(worker.conn, start_at=database.value("select perdure._now() + interval '5 minutes'"))


def many_scheduled(database: Database, worker: Worker) -> UUID:
    at = database.value("select perdure._now() + interval '5 minutes'")
    [row] = call(worker.conn, "start_many", workflow="order", inputs=[Jsonb(1)], start_at=at)
    run_id: UUID = row["run_id"]
    return run_id


def behind_another(database: Database, worker: Worker) -> UUID:
    start(worker.conn, key="k")
    worker.claim_one()
    run_id = start(worker.conn, key="k", on_duplicate="replace")
    drain(worker.conn)
    return run_id


@pytest.mark.parametrize(
    "make",
    [sleeping, overslept, backing_off, waiting, scheduled, many_scheduled, behind_another],
    ids=lambda make: make.__name__,
)
def test_what_asked_for_a_time_waits_for_it_wherever_the_clock_stands(
    database: Database, conn: Connection, make: Callable[[Database, Worker], UUID]
) -> None:
    worker = Worker(database, conn=conn)
    run_id = make(database, worker)
    before = database.value("select ready_at::text from perdure.dispatch where run_id = %s", run_id)
    assert set_back(database, conn) == 0
    assert database.value("select ready_at::text from perdure.dispatch where run_id = %s", run_id) == before
    assert worker.claim(10) == []
    database.clock.advance(hours=1, minutes=6)
    assert len(worker.claim(10)) == (make is not behind_another)


def test_the_line_keeps_its_order_and_those_who_come_later_stand_behind(database: Database, conn: Connection) -> None:
    worker = Worker(database, conn=conn)
    first = start(conn)
    database.clock.advance("1 millisecond")
    rows = call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(3)])
    database.clock.advance(seconds=1)
    last = start(conn)
    assert set_back(database, conn) == 5
    database.clock.advance("1 millisecond")
    late = start(conn)
    assert [held.run_id for held in worker.claim(10)] != []
    order = database.admin.execute("select run_id from perdure.dispatch order by ready_at, run_id").fetchall()
    assert [run_id for (run_id,) in order] == [first, *(row["run_id"] for row in rows), last, late]


def test_a_long_line_comes_back_tick_by_tick(database: Database, conn: Connection) -> None:
    conn.execute("select count(*) from perdure.start_many('order', array_fill('1'::jsonb, array[10007]))")
    assert set_back(database, conn) == 10_000
    assert scalar(conn, "tick")["brought_back"] == 7
    assert scalar(conn, "tick")["brought_back"] == 0
    assert database.value("select bool_and(ready_at < perdure._now() + interval '1 second') from perdure.dispatch")


def test_a_paused_run_that_is_resumed_after_the_clock_was_set_back_is_ready_at_once(
    database: Database, conn: Connection
) -> None:
    worker = Worker(database, conn=conn)
    asleep, ready = suspended(worker, until=90, database=database, kind="sleep").run_id, start(conn)
    for run_id in (ready, asleep):
        act(conn, "pause", run_id)
    drain(conn)
    assert set_back(database, conn) == 0
    for run_id in (ready, asleep):
        act(conn, "resume", run_id)
    assert [held.run_id for held in worker.claim(10)] == [ready]


def test_a_suspect_waits_for_its_delay_and_not_for_the_clock(database: Database, conn: Connection) -> None:
    worker = Worker(database, conn=conn)
    run_id = start(conn)
    after = "update perdure.dispatch set begun_at = perdure._now(), recoveries = 9, ready_at = perdure._now() + %s * interval '1 minute'"
    database.admin.execute(after, [4])
    assert set_back(database, conn, seconds=30) == 0
    assert worker.claim(1) == [], "a death delayed it, for so long at least"
    database.admin.execute(after, [5])
    assert set_back(database, conn) == 1
    assert [held.run_id for held in worker.claim(1)] == [run_id]


def test_whom_somebody_holds_is_brought_back_later_and_nobody_waits(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    other = database.connect(autocommit=False)
    other.execute("select from perdure.dispatch where run_id = %s for update", [run_id])
    assert set_back(database, conn) == 0
    other.rollback()
    other.execute("select perdure.tick()")
    looking = in_background(scalar, conn, "tick")
    assert looking.result(timeout=60)["brought_back"] == 0, "somebody else does it, in a transaction that is open"
    other.commit()
    assert database.value("select ready_at <= perdure._now() from perdure.dispatch where run_id = %s", run_id)


def test_a_small_step_back_moves_nobody(database: Database, conn: Connection) -> None:
    start(conn)
    assert set_back(database, conn, seconds=9) == 0
    database.clock.advance(seconds=9)
    assert len(Worker(database, conn=conn).claim(1)) == 1
