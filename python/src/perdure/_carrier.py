"""The engine as executions see it: what they ask is carried to the database and back.

Invariant: a method returns once its commit is acknowledged, with what the database recorded; a lost
claim is `ClaimLost`, and nothing here goes on after it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from . import _sql, _wire
from ._backlog import COMPLETE, FAIL, LOOK, RELEASE, SAVE, SUSPEND, TRY, Call, Kind, Row
from ._clock import Clock
from ._connect import Connector, borrow, limit_idle
from ._engine import (
    Answered,
    Checkpoint,
    Claimed,
    ConnectionLost,
    FailedTry,
    LetGo,
    Recorded,
    RetryDue,
    Save,
    StillWaiting,
    SuspendAnswer,
    Wait,
)
from ._errors import ClaimLost, DecodingFailed, StepConflict
from ._flusher import Flusher
from ._sql import Schema

logger = logging.getLogger("perdure")

# A worker that is frozen within a transaction step keeps the rows that it locked until the server ends its session. While
# the step's code holds up the loop it looks the same, so it may take longer than a lease; from the save on it may not.
IDLE_LEASES = 10

# What the transaction itself made the server end the connection for: it was idle, or open, for too long.
_ENDED_BY_A_LIMIT = ("25P03", "25P04")

_THREAD_NAME = "perdure step"
_IDLE_THREADS_END = 0.5  # seconds within which threads without a step end once they are told to


class Carrier:
    """The `Engine` of a worker's executions."""

    def __init__(
        self,
        schema: Schema,
        flusher: Flusher,
        worker_id: Callable[[], UUID | None],
        max_steps: int,
        lease: timedelta,
        clock: Clock,
    ) -> None:
        self._schema = schema
        self._clock = clock
        self._flusher = flusher
        self._worker_id = worker_id
        self._idle_limit = IDLE_LEASES * lease
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] | None = None
        self._known: dict[UUID, int] = {}
        self.step_slots = asyncio.Semaphore(max_steps)
        self.threads: Executor = ThreadPoolExecutor(max_steps, thread_name_prefix=_THREAD_NAME)

    async def open(self, connector: Connector, max_connections: int) -> None:
        """Begin to lend connections to transaction steps."""
        self._pool = connector.pool(max_connections, self._idle_limit)
        await self._pool.open()

    async def close(self) -> None:
        """Close connections and threads; a thread whose step has not ended is left behind."""
        if self._pool is not None:
            await self._pool.close(timeout=1.0)
        self.threads.shutdown(wait=False, cancel_futures=True)

    def now(self) -> datetime:
        """Return the database's clock, as it is known here."""
        return self._clock.now()

    def forget(self, claim: UUID) -> None:
        """Note that a claim has left memory."""
        self._known.pop(claim, None)

    def _last_answer(self, run: Claimed) -> int:
        """Return an ordinal below which every answer of the engine has come here."""
        known = self._known.get(run.claim)
        if known is None:
            known = self._known[run.claim] = max((step.ordinal for step in run.checkpoints), default=0)
        return known

    async def save(self, run: Claimed, save: Save) -> Recorded:
        """Save one checkpoint; return what is on record under its key."""
        row, call = await self._flusher.call(SAVE, run.run_id, _wire.save_text(run, save), save.key)
        return _recorded(save, row, call)

    def save_soon(self, run: Claimed, save: Save, told: Callable[[Recorded | Exception], None]) -> Call:
        """Hand over one checkpoint, and return at once."""

        def answered(call: Call, row: Row | None, error: Exception | None) -> None:
            answer: Recorded | Exception
            try:
                answer = AssertionError("neither an answer nor an error") if row is None else _recorded(save, row, call)
            except DecodingFailed as unreadable:
                answer = unreadable
            told(error or answer)

        call = Call(SAVE, run.run_id, save.key, _wire.save_text(run, save), answered)
        self._flusher.send(call)
        return call

    async def fail_step(self, run: Claimed, attempt: FailedTry) -> datetime | Checkpoint:
        """Record a failed try; return when to try again, or the final error's checkpoint."""

        def text(error: str) -> str:
            return _wire.try_text(run, replace(attempt, error_text=error))

        row = await self._report(TRY, run, text, attempt.error_text, attempt.key)
        if row["answer"] == "exhausted":
            return _wire.checkpoint_of(row["checkpoint"])
        retry_at: datetime = row["retry_at"]
        return retry_at.astimezone(timezone.utc)

    async def suspend(self, run: Claimed, waits: Sequence[Wait], *, keep: bool) -> SuspendAnswer:
        """Suspend on this set of waits, or with `keep` only look."""
        kind = LOOK if keep else SUSPEND
        row, _ = await self._flusher.call(kind, run.run_id, _wire.suspension_text(run, waits, self._last_answer(run)))
        match row["answer"]:
            case "answered":
                checkpoint = _wire.checkpoint_of(row["checkpoint"])
                self._known[run.claim] = checkpoint.ordinal
                return Answered(checkpoint)
            case "retry_due":
                return RetryDue()
            case "waiting":
                return StillWaiting()
            case _:
                return LetGo()  # suspended, done or ended

    async def complete(self, run: Claimed, result_text: str) -> str:
        """End the run with its result; return done, or the act that came first."""
        return await self._let_go(COMPLETE, run, _wire.end_text(run, "result", result_text))

    def complete_soon(
        self, run: Claimed, result_text: str, told: Callable[[Exception | None], None], last: Save | None = None
    ) -> None:
        """End the run with its result, and return at once."""

        def answered(_: Call, row: Row | None, error: Exception | None) -> None:
            if row is not None and row["answer"] == "on_record":
                error = StepConflict("another result is on record")
            told(error)

        text = _wire.end_text(run, "result", result_text, last)
        self._flusher.send(Call(COMPLETE, run.run_id, None, text, answered))

    async def fail(self, run: Claimed, error_text: str) -> str:
        """End the run with its error; return done, or the act that came first."""
        row = await self._report(FAIL, run, partial(_wire.end_text, run, "error"), error_text)
        answer: str = row["answer"]
        return answer

    async def release(self, run: Claimed, pause_reason: str | None) -> str:
        """Give the run back, to be claimed by anybody, or paused with a reason."""
        if pause_reason is None:
            return await self._let_go(RELEASE, run, _wire.end_text(run))
        reason = _sql.to_json(pause_reason)
        row = await self._report(RELEASE, run, partial(_wire.end_text, run, "pause_reason"), reason)
        answer: str = row["answer"]
        return answer

    async def _report(
        self, kind: Kind, run: Claimed, text: Callable[[str], str], report: str, key: str | None = None
    ) -> Row:
        """Tell what went wrong; where the database's encoding lacks its letters, with question marks in their place."""
        try:
            row, _ = await self._flusher.call(kind, run.run_id, text(report), key)
        except psycopg.errors.UntranslatableCharacter:
            row, _ = await self._flusher.call(kind, run.run_id, text(report.encode("ascii", "replace").decode()), key)
        return row

    async def _let_go(self, kind: Kind, run: Claimed, text: str) -> str:
        row, _ = await self._flusher.call(kind, run.run_id, text)
        answer: str = row["answer"]
        return answer

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Open a connection in a READ COMMITTED transaction; it commits where the block is left without an error."""
        async with self._connection() as conn:
            try:
                async with conn.transaction():
                    await limit_idle(conn, self._idle_limit)
                    yield conn
            except ClaimLost:
                raise
            except Exception as error:
                if conn.broken and not (isinstance(error, psycopg.Error) and error.sqlstate in _ENDED_BY_A_LIMIT):
                    raise ConnectionLost from error
                raise

    async def save_in_transaction(self, connection: Any, run: Claimed, save: Save) -> Checkpoint:
        """Save a checkpoint inside that transaction."""
        worker_id = self._worker_id()
        if worker_id is None:
            raise ClaimLost("the worker is not registered")
        cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        with _sql.refusals():
            await cursor.execute(
                self._schema(_sql.SAVE_TRANSACTION_STEP), {"worker_id": worker_id, "save": _wire.save_text(run, save)}
            )
        row = await cursor.fetchone()
        assert row is not None
        return _wire.checkpoint_of(row[0])

    async def still_held(self, run: Claimed) -> bool:
        """Ask whether this worker still holds the run; waits until the database can be asked."""
        while (worker_id := self._worker_id()) is not None:
            try:
                async with self._connection() as conn:
                    cursor = psycopg.AsyncCursor(conn, row_factory=tuple_row)
                    await cursor.execute(self._schema(_sql.WORKER_RUNS), {"worker_id": worker_id})
                    return (run.run_id, run.claim) in await cursor.fetchall()
            except psycopg.OperationalError as error:  # noqa: PERF203
                logger.warning("the database cannot be asked: %s", error)
                await asyncio.sleep(0.25)
        return False

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        pool = self._pool
        assert pool is not None
        conn = await borrow(pool, None)
        try:
            async with conn:
                yield conn
        finally:
            await pool.putconn(conn)


def _recorded(save: Save, row: Row, call: Call) -> Recorded:
    # Nobody else saves under this claim: after a doubt, what is on record is our own.
    return Recorded(row["answer"] == "saved" or call.was_in_doubt, _wire.recorded_of(row, save))


def has_stuck_steps() -> bool:
    """Return whether a plain-function step still runs in this process that could not be stopped."""
    deadline = time.monotonic() + _IDLE_THREADS_END
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_THREAD_NAME)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in threads)
