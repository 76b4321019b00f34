"""When a worker asks for runs, and how it is told that there are some.

Invariants:

* What it is told saves time and decides nothing: it asks by itself as well, ever more seldom, and when the next sleep or
  delay is over.
* It listens only while it has nothing to do, because each start beside it carries a NOTIFY then; and it asks once more
  after it began to listen, for what came in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from . import _sql
from ._connect import BackOff
from ._sql import Schema

Connection = psycopg.AsyncConnection[Any]

_HOT_PAUSE, _HOT_TIME = 0.002, 0.006  # so often it asks, and for so long after the last work
_LEFT = 2  # times what such a question took: who starts each run after the last one's result is heard at once
_RIDE_PAUSE = 0.005  # after a question in vain, the next that goes along with saves
# pauses of a worker whom nobody tells (behind a pooler, or beside one who is told), and of one who is told: a start that
# looked for who waits and was committed later tells nobody, nor does what is due later than in a second
_FIRST_UNTOLD, _LONGEST_UNTOLD = 0.01, 0.4
_FIRST_TOLD, _LONGEST_TOLD = 0.05, 0.8
_LISTEN_PAUSE = 1.0  # until a queue of which another worker is told, or of which it was told in vain, is tried again
_REFUSED_PAUSE = 1.0


class Asking:
    """The times of a worker's questions, and the queues of whose work its connection is told."""

    def __init__(self, schema: Schema, queues: Sequence[str], wake: Callable[[], None]) -> None:
        self._schema = schema
        self._queues = frozenset(queues)
        self._wake = wake
        self._heard: frozenset[str] = frozenset()
        self._listen_at = 0.0
        self._is_vain = self._is_leaving = False
        self.looks_ahead = False  # whether the question that is under way also asks for what is due next
        self._pauses = BackOff(_FIRST_UNTOLD, _LONGEST_UNTOLD)
        self._told_pauses = BackOff(_FIRST_TOLD, _LONGEST_TOLD)
        self._at = self._sent_at = self._empty_at = self._busy_until = 0.0

    # When

    def worked(self) -> None:
        """Ask at once, and often for a while: there was work, or there is room for more."""
        self._is_vain = False
        self._pauses.reset()
        self._told_pauses.reset()
        self._at = 0.0
        self._busy_until = _now() + _HOT_TIME

    def due_at(self, *, rides: bool = False) -> float:
        """Return when to ask next; a question that rides along with saves costs less."""
        return min(self._at, self._empty_at + _RIDE_PAUSE) if rides else self._at

    @property
    def is_hot(self) -> bool:
        """Whether there was work a moment ago."""
        return _now() < self._busy_until

    def sent(self) -> None:
        """Note that a question is under way."""
        self._sent_at = _now()
        self.looks_ahead = not self.is_hot

    def refused(self) -> None:
        """Note that the database refused it."""
        self._at = _now() + _REFUSED_PAUSE

    async def found_nothing(self, conn: Connection, worker_id: UUID, next_due: timedelta | None) -> None:
        """Note that there was nothing to claim, nor will there be before next_due; listen if that lasts."""
        self._empty_at = _now()
        if not self.looks_ahead or self.is_hot:
            self._at = self._empty_at + max(_HOT_PAUSE, _LEFT * (self._empty_at - self._sent_at))
        elif await self._listen(conn, worker_id):
            self._at = 0.0
        else:
            is_told = self._heard == self._queues
            pause = self._told_pauses.pause() if is_told else min(self._pauses.pause(), _LONGEST_UNTOLD)
            if next_due is not None:
                pause = min(pause, max(_HOT_PAUSE, next_due.total_seconds()))
            self._at = self._empty_at + pause

    # Being told

    def connected(self, conn: Connection) -> None:
        """Begin with a new connection."""
        self._heard, self._listen_at, self._is_vain, self._is_leaving = frozenset(), 0.0, False, False
        conn.add_notify_handler(lambda _: self._told())  # beside an answer; at rest the ears hear it first

    async def _listen(self, conn: Connection, worker_id: UUID) -> bool:
        missing = self._queues - self._heard
        if not missing or conn.prepare_threshold is None or _now() < self._listen_at:
            return False
        self._listen_at = _now() + _LISTEN_PAUSE
        if self._is_vain:  # of a workflow that it does not know, say: others may, and each start would tell it again
            self._is_vain = False
            return False
        try:
            cursor = await conn.execute(self._schema(_sql.LISTEN), {"worker_id": worker_id, "queues": list(missing)})
        except BaseException:
            await conn.close()  # it may hold locks of queues of whose work it is not told
            raise
        row = await cursor.fetchone()
        assert row is not None
        self._heard |= frozenset(row[0])
        return bool(row[0])

    @property
    def must_leave(self) -> bool:
        """Whether it is still told of queues though it has work."""
        return bool(self._heard) and (self.is_hot or self._is_leaving)

    async def leave(self, conn: Connection) -> None:
        """Be told no more, once the transaction of this pipeline is committed; else again with the next one."""
        self._is_leaving = True
        await conn.execute(self._schema(_sql.UNLISTEN), {"queues": list(self._heard)})

    def left(self) -> None:
        """Note that it was committed."""
        self._heard, self._listen_at, self._is_leaving = frozenset(), 0.0, False

    @contextmanager
    def ears(self, conn: Connection | None) -> Iterator[None]:
        """Hear what is told on a connection that is at rest; its end is heard as well."""
        if conn is None or conn.closed or not self._heard:
            yield
            return
        loop, fd = asyncio.get_running_loop(), conn.fileno()
        loop.add_reader(fd, self._told)
        try:
            yield
        finally:
            loop.remove_reader(fd)

    def _told(self) -> None:
        self.worked()
        self._is_vain = True  # until there is something
        self._wake()


def _now() -> float:
    return asyncio.get_running_loop().time()
