"""The engine's housekeeping, done by a live worker: in a thread of its own, each second or so.

Invariant: a tick is one call and decides nothing here; any number of workers and pg_cron may do it
at once. That it fails is no reason to stop: the next one does what it left.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg

from . import _sql
from ._connect import Complaints, Connector
from ._sql import Schema


class Ticker(threading.Thread):
    """Tick until stopped."""

    def __init__(self, connector: Connector, schema: Schema, interval: float = 1.0) -> None:
        super().__init__(name="perdure tick", daemon=True)
        self._connector = connector
        self._schema = schema
        self._interval = interval
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
                # one round, in READ COMMITTED whatever the role's default is
                conn.execute(self._schema(_sql.RUN_TICKS))
                complaints.reset()
            except psycopg.Error as error:  # noqa: PERF203
                complaints.tell("a tick failed", error)
                if conn is not None and isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    conn.close()  # a standby: the primary may be another of the hosts by now
        if conn is not None:
            conn.close()
