"""The example's workflow: killed after each of its checkpoints it does what it does when it is left alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from orders import payments
from orders.approver import SIGNAL
from orders.books import compare, read_shop
from orders.flows import LARGE, app, fulfil
from orders.load import Files, TakenOrder, insert_order, make_shop, read_files
from orders.machinery import Worker
from orders.payments import Book
from support.database import Database, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """The payment server's book."""
    made = Book(tmp_path / "book.sqlite")
    yield made
    made.close()


@pytest.fixture
def payments_url(book: Book) -> Iterator[str]:
    """A payment server that charges and then loses every second answer."""
    server = payments.Server(book, 0, 0.0, None)
    faults = iter(["500 after charging", None] * 100)
    server.next_fault = lambda: next(faults)  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Workers:
    """One worker process at a time."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._count = 0
        self._worker: Worker | None = None

    def start(self) -> None:
        """Start the next one."""
        self._count += 1
        self._worker = Worker(1, f"worker {self._count}", self._environment, self._log)

    def kill(self) -> None:
        """Kill the one that runs."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


@pytest.fixture
def workers(database: Database, payments_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Workers on the test's database, none started yet."""
    made = Workers({"PERDURE_DSN": database.dsn(), "PAYMENTS_URL": payments_url}, tmp_path / "worker.log")
    yield made
    made.kill()


@pytest.fixture
def files(database: Database) -> Files:
    """The shop's files, its tables made of them."""
    found = read_files()
    make_shop(database.connect(), found)
    return found


async def place(database: Database, order: TakenOrder) -> None:
    """Insert an order and start its run in one transaction."""
    conn = await database.aconnect()
    async with conn.transaction():
        await insert_order(conn, order)
        await app.using(conn).start(fulfil, order.input, key=order.number)


def steps(conn: psycopg.Connection[Any], order: TakenOrder) -> list[tuple[str, str, str]]:
    """What is on record of an order's run, in its order."""
    return conn.execute(
        """
        select s.key, s.kind, s.state
        from perdure.steps as s join perdure.runs as r using (run_id)
        where r.key = %s and s.ordinal is not null
        order by s.ordinal
        """,
        [order.number],
    ).fetchall()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("approved", ["reserve", "approval", "charge", "book", "~sleep", "ship"]),
        ("refused", ["reserve", "approval", "reject"]),
        ("declined", ["reserve", "charge", "reject"]),
    ],
)
def test_an_order_killed_after_every_checkpoint_ends_as_one_left_alone(
    database: Database, files: Files, workers: Workers, book: Book, what: str, expected: list[str]
) -> None:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('fulfil')")

    def begin(order: TakenOrder) -> None:
        asyncio.run(place(database, order))
        if order.total >= LARGE:
            conn.execute(SIGNAL, [order.number, Jsonb({"is_approved": what == "approved", "by": "Ines"}), "decision"])

    def end(order: TakenOrder) -> list[tuple[str, str, str]]:
        workers.start()
        query = "select r.finished_at is not null from perdure.runs as r where r.key = %s"
        eventually(lambda: database.value(query, order.number), seconds=30)
        workers.kill()
        return steps(conn, order)

    is_large, is_declined = what != "declined", what == "declined"
    alone, killed, *_ = (
        order
        for order in files.orders
        if (order.total >= LARGE) == is_large and (order.card == "card_declined") == is_declined
    )
    begin(alone)
    recorded = end(alone)

    begin(killed)
    for saved in range(1, len(expected) + 1):
        workers.start()
        eventually(lambda saved=saved: len(steps(conn, killed)) >= saved, seconds=30)
        workers.kill()
    assert end(killed) == recorded
    assert [key for key, _, _ in recorded] == expected
    assert compare(files, [alone, killed], read_shop(conn), book.charges()) == []
