"""The engine's housekeeping, done by a live worker: in a thread of its own, each second or so.

Invariants: a tick is one call and decides nothing here; any number of workers and pg_cron may do it
at once. That it fails is no reason to stop: the next one does what it left. What is tidied up between ticks can wait where
nothing goes on: a worker that holds no run does only the tick itself, one transaction instead of several, nine times in ten.
Such a tick tells what it did, if anything: what it made ready is claimed at once.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from typing_extensions import LiteralString

from . import _sql
from ._connect import Complaints, Connector, is_direct
from ._sql import Schema

_SHORT_ROUNDS = 10


class Ticker(threading.Thread):
    """Tick until stopped."""

    def __init__(
        self,
        connector: Connector,
        schema: Schema,
        runs_held: Callable[[], int],
        made_ready: Callable[[], None],
        interval: float = 1.0,
    ) -> None:
        super().__init__(name="perdure tick", daemon=True)
        self._runs_held = runs_held
        self._made_ready = made_ready
        self._short = 0
        self._connector = connector
        self._schema = schema
        self._interval = interval
        self._is_direct = False
        self._is_stopping = threading.Event()

    def stop(self) -> None:
        """End the thread after the tick that is under way. Callable from any thread."""
        self._is_stopping.set()

    def run(self) -> None:
        """Tick until stopped."""
        conn: psycopg.Connection[Any] | None = None
        complaints = Complaints()
        while not self._is_stopping.wait(self._interval * random.uniform(0.7, 1.3)):
            try:
                if conn is None or conn.closed:
                    conn = self._connector.open_in_thread()
                    self._is_direct = is_direct(conn)
                    if self._is_direct:  # READ COMMITTED whatever the role's default is; run_ticks sets it itself
                        conn.execute(_sql.SESSION_READ_COMMITTED)
                cursor = conn.execute(self._schema(self._round()))
                complaints.reset()
                if cursor.description is not None and _did_something(cursor.fetchone()):
                    self._made_ready()
            except psycopg.Error as error:  # noqa: PERF203
                complaints.tell("a tick failed", error)
                if conn is not None and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    conn.close()  # a standby: the primary may be another of the hosts by now
        if conn is not None:
            conn.close()

    def _round(self) -> LiteralString:
        self._short = self._short + 1 if self._is_direct and not self._runs_held() else 0
        return _sql.TICK if self._short % _SHORT_ROUNDS else _sql.RUN_TICKS


def _did_something(row: tuple[dict[str, Any]] | None) -> bool:
    return row is not None and "held" not in row[0] and any(row[0].values())
