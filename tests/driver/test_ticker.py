"""The housekeeping of an idle worker: what it made ready does not wait until the worker looks by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from perdure._connect import Connector
from perdure._sql import Schema
from perdure._ticker import Ticker
from support.database import Database, eventually
from support.engine import Worker, signal, start, wait

TICKED = "select ticked_at > %s from perdure.timeline"


@pytest.fixture
def made_ready(database: Database) -> Iterator[threading.Event]:
    """Told by the ticker of a worker that holds nothing."""
    told = threading.Event()
    connector = Connector(database.dsn(), "ticks")
    ticker = Ticker(connector, Schema("perdure"), runs_held=lambda: 0, made_ready=told.set, interval=0.05)
    ticker.start()
    yield told
    ticker.stop()
    ticker.join(60)


def ticks(database: Database) -> None:
    """Wait until a whole tick has passed."""
    for _ in range(2):
        since = database.value("select perdure._now()")
        database.wait_until(TICKED, since, seconds=60)


def test_a_tick_that_made_a_run_ready_says_so(database: Database, made_ready: threading.Event) -> None:
    worker = Worker(database)
    run_id = start(worker.conn)
    assert worker.suspend(worker.claim_one(), wait("paid")) == "suspended"
    ticks(database)
    assert not made_ready.is_set(), "nothing was made ready"

    def told() -> bool:
        signal(worker.conn, run_id)  # again: the round that also tidies up does not tell what it did
        ticks(database)
        return made_ready.is_set()

    assert eventually(told, seconds=60)


def test_on_hold_nothing_is_said_to_be_ready(database: Database, made_ready: threading.Event) -> None:
    database.admin.execute("select perdure.hold('a copy is looked at')")
    for _ in range(2):  # the first one has been heard of when the second has ended
        since = database.value("select now()")
        database.wait_until(
            "select count(*) = 1 from pg_stat_activity where datname = current_database()"
            " and state = 'idle' and query like '%%perdure.tick()%%' and query_start > %s",
            since,
            seconds=60,
        )
    assert not made_ready.is_set()
