"""Waiting for the ends of runs: all who wait in one event loop ask together.

Invariant: it is asked on a connection of the app's own, so what a caller's open transaction started
is unknown here; an unknown run is an error, never a wait for ever. A server that goes is asked again
when it is back, for as long as somebody waits.
"""

from __future__ import annotations

import asyncio
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

_FIRST_PAUSE, _LAST_PAUSE = 0.005, 0.25


class ResultPoller:
    """Ask for all runs that somebody waits for, in one query per round."""

    def __init__(
        self, schema: Schema, connect: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]
    ) -> None:
        self._schema = schema
        self._connect = connect
        self._waiters: dict[UUID, list[asyncio.Future[Row]]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trouble: Exception | None = None
        self._complaints = Complaints()

    async def wait(self, run_id: UUID, timeout: timedelta | None) -> Row:
        """Return the run's row of run_results once it has ended; raise RunNotFound or TimedOut."""
        waiter: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, []).append(waiter)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._poll(), name="perdure results")
        done, _ = await self._settled(waiter, timeout)
        if not done:
            raise TimedOut(f"run {run_id} has not ended within {timeout}") from self._trouble
        return waiter.result()

    async def _settled(self, waiter: asyncio.Future[Row], timeout: timedelta | None) -> tuple[set[Any], set[Any]]:
        try:
            return await asyncio.wait([waiter], timeout=None if timeout is None else timeout.total_seconds())
        finally:
            if not waiter.done():
                waiter.cancel()

    async def _poll(self) -> None:
        task = asyncio.current_task()
        pauses = BackOff(0.05, 2.0)
        try:
            while self._is_waited_for():
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

    def _is_waited_for(self) -> bool:
        for run_id in [run_id for run_id, waiters in self._waiters.items() if all(w.done() for w in waiters)]:
            del self._waiters[run_id]
        return bool(self._waiters)

    async def _rounds(self, conn: psycopg.AsyncConnection[Any]) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            if not self._is_waited_for():
                self._task = None  # at once: who comes while the connection is given back begins anew
                return
            self._wake.clear()
            asked = list(self._waiters)
            cursor = conn.cursor(row_factory=dict_row, binary=True)
            with advised(conn, self._schema.name, "client"):
                await cursor.execute(self._schema(_sql.RUN_RESULTS), {"run_ids": asked})
            self._trouble = None
            self._complaints.reset()
            rows = {row["run_id"]: row for row in await cursor.fetchall()}
            ended = [run_id for run_id in asked if run_id not in rows or rows[run_id]["status"] is not None]
            for run_id in ended:
                for waiter in self._forget([run_id]):
                    if run_id in rows:
                        _settle(waiter, rows[run_id])
                    else:
                        waiter.set_exception(
                            RunNotFound(
                                f"run {run_id} is not known; was the transaction that started it committed already?"
                            )
                        )
            if ended:
                pause = _FIRST_PAUSE
                await asyncio.sleep(0)  # whoever got a result may ask for the next one
                continue
            timer = loop.call_later(pause, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            pause = min(_LAST_PAUSE, pause * 1.5)

    def _forget(self, run_ids: list[UUID]) -> list[asyncio.Future[Row]]:
        waiters = [waiter for run_id in run_ids for waiter in self._waiters.pop(run_id, [])]
        return [waiter for waiter in waiters if not waiter.done()]


def _settle(waiter: asyncio.Future[Row], row: Row) -> None:
    try:
        readable(*row.values())
    except DecodingFailed as error:
        waiter.set_exception(error)
    else:
        waiter.set_result(row)
