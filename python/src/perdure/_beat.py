"""The worker's sign of life, from a thread of its own.

Invariants:

* A busy event loop is no death: the beat needs nothing of it.
* This thread alone registers the worker, anew where the database refuses it (it was declared dead, or the
  server is on another timeline), and its connection holds the advisory lock; the worker hears of each new id before
  anything else under it.
* The database judges who is dead; this thread only obeys.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg

from . import _sql
from ._advice import advised
from ._clock import steady
from ._connect import PREPARE_AFTER, BackOff, Complaints, Connector, check_transactions, is_direct
from ._errors import ClaimLost
from ._registry import Workflow
from ._sql import Schema

logger = logging.getLogger("perdure")

INTERVAL = 1.0

# A step told of a progress that jsonb cannot keep, or that is too large.
_BAD_PROGRESS = ("22", "PD010")


@dataclass(frozen=True, slots=True)
class Registration:
    """What the worker says of itself when it registers."""

    name: str
    version: str | None
    queues: Sequence[str]
    workflows: Sequence[Workflow[Any, Any]]
    lease: timedelta


class Host(Protocol):
    """What the beat asks of its worker; every method is called in the beat's thread."""

    def runs_held(self) -> int:
        """Return how many runs are in memory."""
        ...

    def activity(self) -> list[dict[str, Any]]:
        """Return the steps that run for long."""
        ...

    def heard(self, told: float, asked: float, answered: float) -> bool:
        """Hear the database's time, told between two moments of `steady`; return whether it was set."""
        ...

    def registered(self, worker_id: UUID) -> None:
        """Hear the worker's id; what is in memory under an earlier one is lost."""
        ...

    def told(self, worker_id: UUID, answer: dict[str, Any], is_clock_set: bool) -> None:
        """Hear what the database answered to a beat."""
        ...

    def refused(self, error: Exception) -> None:
        """Hear why the first registration failed; the thread has ended."""
        ...


class Beat(threading.Thread):
    """Register the worker, then beat each second until stopped."""

    def __init__(
        self, connector: Connector, schema: Schema, registration: Registration, host: Host, interval: float = INTERVAL
    ) -> None:
        super().__init__(name="perdure beat", daemon=True)
        self._connector = connector
        self._schema = schema
        self._registration = registration
        self._host = host
        self._interval = interval
        self._conn: psycopg.Connection[Any] | None = None
        self._worker_id: UUID | None = None
        self._is_direct = False
        self._is_locked = False
        self._former: UUID | None = None
        self._wake = threading.Event()
        self._is_stopping = False
        self._was_registered = False
        self._is_new = False
        self._complaints = Complaints()

    def unknown(self, worker_id: UUID, reason: ClaimLost) -> None:
        """Register anew: the database refuses this id from now on. Callable from any thread."""
        if self._worker_id == worker_id:
            logger.warning("the worker drops its runs and registers anew: %s", ". ".join(str(reason).split("\n")[:2]))
            self._former, self._worker_id = worker_id, None
            self._wake.set()

    def stop(self) -> None:
        """End the thread; the worker is signed off where the database can be reached. Callable from any thread."""
        self._is_stopping = True
        self._wake.set()

    def run(self) -> None:
        """Beat until stopped."""
        trouble = BackOff(0.05, self._interval)
        while not self._is_stopping:
            self._wake.clear()
            pause = self._interval
            worker_id = self._worker_id
            try:
                self._beat()
                trouble.reset()
                self._complaints.reset()
            except Exception as error:  # noqa: BLE001  whatever it is, the next beat must come
                if not self._was_registered:
                    self._close()
                    self._host.refused(error)
                    return
                pause = self._after(error, worker_id, trouble)
            if not self._is_stopping:
                self._wake.wait(pause)
        self._sign_off()

    def _after(self, error: Exception, worker_id: UUID | None, trouble: BackOff) -> float:
        """Return the pause after a beat that failed."""
        if (
            worker_id is not None
            and isinstance(error, psycopg.Error)
            and isinstance(reason := _sql.refusal(error), ClaimLost)
        ):
            self.unknown(worker_id, reason)
            return 0.0
        self._complaints.tell("a heartbeat failed", error)
        if self._conn is not None and (self._conn.closed or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)):
            self._close()
        return trouble.pause()

    def _beat(self) -> None:
        conn = self._connected()
        if self._worker_id is None:
            self._register(conn)
        worker_id = self._worker_id
        if worker_id is None:
            return
        if self._is_direct and not self._is_locked:
            self._is_locked = self._value(conn, self._schema(_sql.WORKER_LOCK), worker_id=worker_id)
        asked = steady()
        beat = {"worker_id": worker_id, "runs_held": self._host.runs_held()}
        try:
            activity = _sql.to_json(self._activity())
            answer = self._value(conn, self._schema(_sql.BEAT), **beat, activity=activity)
        except (ValueError, psycopg.DatabaseError) as error:
            if isinstance(error, psycopg.Error) and not (error.sqlstate or "").startswith(_BAD_PROGRESS):
                raise
            answer = self._value(conn, self._schema(_sql.BEAT), **beat, activity="[]")
        is_clock_set = self._host.heard(answer["clock"], asked, steady())
        if self._is_new:  # not before the clock is known, by which it says when steps are saved
            self._is_new = False
            self._host.registered(worker_id)
        self._host.told(worker_id, answer, is_clock_set)

    def _activity(self) -> list[dict[str, Any]]:
        activity = self._host.activity()
        if self._is_direct:
            return activity
        return [
            {**step, "progress": None} for step in activity
        ]  # behind a pooler a beat stands in the statement's text

    def _connected(self) -> psycopg.Connection[Any]:
        if self._conn is None:
            self._is_locked = False
            conn = self._connector.open_in_thread()
            try:
                self._is_direct = is_direct(conn)
                if self._is_direct:
                    conn.prepare_threshold = PREPARE_AFTER
                    conn.execute(_sql.SESSION_READ_COMMITTED)
                else:
                    check_transactions(conn)
            except BaseException:
                conn.close()
                raise
            self._conn = conn
        return self._conn

    def _register(self, conn: psycopg.Connection[Any]) -> None:
        mine = self._registration
        if self._former is not None:  # known still where it is of another timeline: what it held counts as no death
            self._value(conn, self._schema(_sql.STOP_WORKER), worker_id=self._former)
            self._former = None
        with advised(conn, self._schema.name, "worker"):
            for workflow in mine.workflows:
                self._value(conn, self._schema(_sql.PUT_WORKFLOW), **workflow.parameters())
            worker_id = self._value(
                conn,
                self._schema(_sql.REGISTER_WORKER),
                queues=list(mine.queues),
                workflows=[workflow.name for workflow in mine.workflows],
                name=mine.name,
                version=mine.version,
                lease=mine.lease,
                is_direct=self._is_direct,
            )
        self._is_locked = self._is_direct
        self._was_registered = True
        self._is_new = True
        self._worker_id = worker_id

    def _value(self, conn: psycopg.Connection[Any], statement: bytes, **parameters: Any) -> Any:
        if self._is_direct:
            row = conn.execute(statement, parameters).fetchone()
        else:  # one message, so that a process frozen behind it leaves no transaction open, and the pooler no setting
            with psycopg.ClientCursor(conn) as cursor:
                cursor.execute(_sql.READ_COMMITTED + statement, parameters)
                cursor.nextset()
                row = cursor.fetchone()
        assert row is not None
        return row[0]

    def _sign_off(self) -> None:
        try:
            if self._worker_id is not None:
                self._value(self._connected(), self._schema(_sql.STOP_WORKER), worker_id=self._worker_id)
        except psycopg.Error as error:
            logger.warning("the worker could not sign off, its runs are taken back by its death: %s", error)
        self._close()

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
