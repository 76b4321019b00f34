"""Waiting for the ends of runs: all who wait in one event loop ask together.

Invariant: it is asked on a connection of the app's own, so what a caller's open transaction started
is unknown here; an unknown run is an error, never a wait for ever. A server that goes is asked again
when it is back, for as long as somebody waits.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from . import _sql
from ._advice import advised
from ._connect import BackOff, Complaints, passes
from ._errors import DecodingFailed, RunNotFound, TimedOut
from ._sql import Schema
from ._unreadable import readable

Row = dict[str, Any]

_FIRST_PAUSE, _LAST_PAUSE = 0.002, 0.25
_AGE_PART = 4
"""A run is asked for again after a quarter of the time that it has been waited for, within those two."""

_TOGETHER = 0.001
"""What is due so soon is asked for with what is due now."""


class ResultPoller:
    """Ask for all runs that somebody waits for, in one query per round."""

    def __init__(
        self, schema: Schema, connect: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]
    ) -> None:
        self._schema = schema
        self._connect = connect
        self._waiters: dict[UUID, list[asyncio.Future[Row]]] = {}
        self._since: dict[UUID, float] = {}
        self._due: list[tuple[float, UUID]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trouble: Exception | None = None
        self._complaints = Complaints()

    async def wait(self, run_id: UUID, timeout: timedelta | None, started_at: float | None = None) -> Row:
        """Return the run's row of run_results once it has ended; raise RunNotFound or TimedOut.

        `started_at`, by the loop's time, is when the run cannot have ended yet: it is asked for a moment later.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Row] = loop.create_future()
        self._waiters.setdefault(run_id, []).append(waiter)
        self._since[run_id] = loop.time()
        heapq.heappush(self._due, (0.0 if started_at is None else started_at + _FIRST_PAUSE, run_id))
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="perdure results")
        try:
            done, _ = await asyncio.wait([waiter], timeout=None if timeout is None else timeout.total_seconds())
        finally:
            if not waiter.done():
                waiter.cancel()
                self._leave(run_id, waiter)
        if not done:
            raise TimedOut(f"run {run_id} has not ended within {timeout}") from self._trouble
        return waiter.result()

    def _leave(self, run_id: UUID, waiter: asyncio.Future[Row]) -> None:
        waiters = self._waiters.get(run_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                self._forget([run_id])
                self._wake.set()  # nobody may be left to ask for

    async def _poll(self) -> None:
        task = asyncio.current_task()
        pauses = BackOff(0.05, 2.0)
        try:
            while self._waiters:
                try:
                    async with self._connect() as conn:
                        await self._rounds(conn)
                    return
                except psycopg.Error as error:
                    if self._task is not task or not passes(error):
                        raise
                    self._trouble = error
                    self._complaints.tell("results cannot be asked for, it is tried again", error)
                await asyncio.sleep(pauses.pause())
        except Exception as error:
            if self._task is not task:
                raise
            for waiter in self._forget(list(self._waiters)):
                waiter.set_exception(error)
        finally:
            if self._task is task:
                self._task = None

    async def _rounds(self, conn: psycopg.AsyncConnection[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._due = [each for each in self._due if each[1] in self._waiters]
        self._due += [(0.0, run_id) for run_id in self._waiters.keys() - {run_id for _, run_id in self._due}]
        heapq.heapify(self._due)
        while self._waiters:
            self._wake.clear()
            asked = self._take_due(loop.time() + _TOGETHER)
            if asked:
                began = loop.time()
                rows = await self._ask(conn, asked)
                now = loop.time()
                for run_id in asked:
                    self._tell(run_id, rows.get(run_id), now)
                if any(row["status"] is not None for row in rows.values()):
                    await asyncio.sleep(0)  # whoever got a result may ask for the next one
                # a question about many runs takes its time, and is not asked all the time
                await asyncio.sleep(min(_LAST_PAUSE, now - began - _FIRST_PAUSE))
            elif self._due:
                timer = loop.call_later(self._due[0][0] - loop.time(), self._wake.set)
                await self._wake.wait()
                timer.cancel()
        self._task = None  # at once: who comes while the connection is given back begins anew

    def _take_due(self, until: float) -> list[UUID]:
        asked: dict[UUID, None] = {}
        while self._due and self._due[0][0] <= until:
            _, run_id = heapq.heappop(self._due)
            if run_id in self._waiters:
                asked[run_id] = None
        return list(asked)

    async def _ask(self, conn: psycopg.AsyncConnection[Any], asked: list[UUID]) -> dict[UUID, Row]:
        cursor = conn.cursor(row_factory=dict_row, binary=True)
        with advised(conn, self._schema.name, "client"):
            await cursor.execute(self._schema(_sql.RUN_RESULTS), {"run_ids": asked})
        self._trouble = None
        self._complaints.reset()
        return {row["run_id"]: row for row in await cursor.fetchall()}

    def _tell(self, run_id: UUID, row: Row | None, now: float) -> None:
        """Pass on how a run ended, or note when to ask again."""
        if row is not None and row["status"] is None:
            if run_id in self._waiters:
                pause = (now - self._since[run_id]) / _AGE_PART
                heapq.heappush(self._due, (now + min(_LAST_PAUSE, max(_FIRST_PAUSE, pause)), run_id))
            return
        for waiter in self._forget([run_id]):
            if row is not None:
                _settle(waiter, row)
            else:
                waiter.set_exception(
                    RunNotFound(f"run {run_id} is not known; was the transaction that started it committed already?")
                )

    def _forget(self, run_ids: list[UUID]) -> list[asyncio.Future[Row]]:
        for run_id in run_ids:
            self._since.pop(run_id, None)
        waiters = [waiter for run_id in run_ids for waiter in self._waiters.pop(run_id, [])]
        return [waiter for waiter in waiters if not waiter.done()]


def _settle(waiter: asyncio.Future[Row], row: Row) -> None:
    try:
        readable(*row.values())
    except DecodingFailed as error:
        waiter.set_exception(error)
    else:
        waiter.set_result(row)
