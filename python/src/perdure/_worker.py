"""A worker: it claims runs and executes them in memory, from its registration to its end.

Invariants:

* `_claims` is what is in memory under a claim: a run leaves it when the answer that ended the claim
  is acknowledged, though its code may still be unwinding.
* Everything here happens on one event loop; threads (beat, ticks) come in by `call_soon_threadsafe`.
* A stopping worker claims nothing more and releases what it holds, which burns nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from . import _sql, _wire
from ._backlog import RELEASE, Backlog, Call, Row
from ._beat import INTERVAL, Beat, Registration
from ._carrier import Carrier
from ._clock import Clock
from ._connect import Connector, prepare_if_direct
from ._errors import ClaimLost, Misuse
from ._execution import Execution, ExecutionOptions
from ._flusher import Flusher
from ._registry import WorkflowRegistry
from ._sql import Schema
from ._ticker import Ticker
from ._turns import Turns

logger = logging.getLogger("perdure")

_KEEPS_CLAIM = frozenset({"saved", "on_record", "retry", "exhausted", "answered", "retry_due", "waiting"})


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told about itself."""

    queues: Sequence[str] | None = None
    """None: all that its workflows name."""

    max_runs: int = 100
    max_steps: int = 50
    stop_timeout: timedelta = timedelta(seconds=20)
    version: str | None = None
    lease: timedelta = timedelta(seconds=30)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.queues is not None and (isinstance(self.queues, str) or not self.queues):
            raise Misuse("queues= takes a sequence of names, one at least")
        if self.max_runs < 1 or self.max_steps < 1:
            raise Misuse("max_runs= and max_steps= are 1 or more")


class Worker:
    """Execute runs of the registered workflows."""

    def __init__(
        self,
        dsn: str,
        schema: Schema,
        registry: WorkflowRegistry,
        execution_options: ExecutionOptions,
        options: WorkerOptions,
    ) -> None:
        if not registry.names:
            raise Misuse("the app has no workflows, so a worker would have nothing to do")
        self.name = options.name or f"{socket.gethostname()}:{os.getpid()}"
        self._connector = Connector(dsn, f"perdure worker {self.name}")
        self.queues = registry.queues if options.queues is None else options.queues
        self._schema = schema
        self._registry = registry
        self._execution_options = replace(execution_options, version=options.version, turns=Turns())
        self._options = options
        self._worker_id: UUID | None = None
        self._claims: dict[UUID, Execution] = {}
        self._in_memory: dict[Execution, None] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._pausing: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._hold: str | None = None
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._backlog = Backlog()
        self._flusher = Flusher(schema, self._open, self, self._backlog, self.queues)
        self._clock = Clock()
        self._carrier = Carrier(
            schema, self._flusher, lambda: self._worker_id, options.max_steps, options.lease, self._clock
        )
        self._flushing: asyncio.Task[None] | None = None
        registration = Registration(self.name, options.version, self.queues, list(registry), options.lease)
        interval = min(INTERVAL, options.lease.total_seconds() / 3)
        self._beat = Beat(self._connector.purpose("beat"), schema, registration, _FromThread(self), interval)
        self._ticker = Ticker(self._connector.purpose("ticks"), schema, self.count, _FromThread(self).made_ready)

    # Its life

    async def start(self) -> None:
        """Register and begin to claim; raise what the database says against it."""
        self._beat.start()
        await self._ready
        await self._carrier.open(self._connector.purpose("steps"), min(self._options.max_steps, 10))
        self._flushing = asyncio.create_task(self._flusher.run(), name="perdure flusher")
        self._ticker.start()
        if left := sorted(set(self._registry.queues) - set(self.queues)):
            logger.info("worker %s does not take from %s, which workflows of its app name", self.name, ", ".join(left))

    async def stop(self, timeout: timedelta | None = None) -> None:
        """Release what is held, within the time, and sign off."""
        self._is_stopping = True
        deadline = self._loop.time() + (self._options.stop_timeout if timeout is None else timeout).total_seconds()
        try:
            for execution in list(self._claims.values()):
                execution.release_soon()
            await self._until_ended(deadline - self._loop.time())
            if self._in_memory:
                logger.warning("%s runs did not rest in time, they are dropped", len(self._in_memory))
                self.drop(list(self._claims))
                await self._until_ended(1.0)
            self._flusher.close()
            if self._flushing is not None:
                await asyncio.wait([self._flushing], timeout=max(1.0, deadline - self._loop.time()))
        finally:
            await self._end()

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        conn = await self._connector.purpose("flush").open()
        try:
            await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
            await prepare_if_direct(conn)
            if conn.prepare_threshold is not None:  # for what is sent outside of transactions, too
                await conn.execute(_sql.SESSION_READ_COMMITTED)
        except BaseException:
            await conn.close()
            raise
        return conn

    async def _until_ended(self, seconds: float) -> None:
        if self._in_memory and seconds > 0:
            self._emptied = self._loop.create_future()
            await asyncio.wait([self._emptied], timeout=seconds)

    async def _end(self) -> None:
        for execution in list(self._in_memory):
            execution.drop()
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing], timeout=1.0)
        self._backlog.forget()
        await self._until_ended(1.0)
        self._ticker.stop()
        self._beat.stop()
        for thread in (self._beat, self._ticker):
            if thread.ident is not None:
                await asyncio.to_thread(thread.join, 5.0)
        await self._carrier.close()

    # What the flusher asks

    @property
    def worker_id(self) -> UUID | None:
        """Who we are; None while nobody knows us."""
        return self._worker_id

    def room(self, ending: int = 0) -> int:
        """Return how many runs may be claimed now, or once so many have ended."""
        return 0 if self._is_stopping else self._options.max_runs - len(self._claims) + ending

    def held(self) -> Mapping[UUID, UUID]:
        """Return the claims by run that are in memory."""
        return {run_id: execution.claimed.claim for run_id, execution in self._claims.items()}

    def count(self) -> int:
        """Return how many claims are in memory. Callable from any thread."""
        return len(self._claims)

    def claimed(self, rows: Sequence[tuple[Row, Sequence[Row]]]) -> None:
        """Begin to execute claimed runs."""
        for row, later in rows:
            try:
                claimed = _wire.claimed_of(row, later)
                workflow = self._registry.get(claimed.workflow)
                assert workflow is not None, f"workflow {claimed.workflow!r} was claimed but is not known"
                execution = Execution(claimed, workflow, self._execution_options, self._carrier)
            except Exception as error:  # the others go on; this one would come back at once if it were only released
                logger.exception("run %s cannot be executed", row["run_id"])
                pausing = self._loop.create_task(self._pause(row, f"{type(error).__name__}: {error}"))
                self._pausing.add(pausing)
                pausing.add_done_callback(self._pausing.discard)
                continue
            self._claims[claimed.run_id] = execution
            self._in_memory[execution] = None
            execution.begin(partial(self._gone, execution))
            if self._is_stopping:
                execution.release_soon()

    async def _pause(self, row: Row, reason: str) -> None:
        text = _sql.to_json(
            {"run_id": row["run_id"], "claim": row["claim"], "pause_reason": f"it cannot be executed: {reason}"}
        )
        with suppress(ClaimLost, psycopg.Error):  # then the next reconciliation gives it back
            await self._flusher.call(RELEASE, row["run_id"], text)

    def let_go(self, call: Call, answer: str) -> None:
        """Note that an answer ended a claim."""
        if answer not in _KEEPS_CLAIM and self._claims.pop(call.run_id, None) is not None:
            self._flusher.wake()

    def drop(self, run_ids: Iterable[UUID]) -> None:
        """Forget runs that belong to others now."""
        for run_id in run_ids:
            execution = self._claims.pop(run_id, None)
            if execution is not None:
                execution.drop()
        self._flusher.wake()

    def unknown(self, worker_id: UUID, reason: ClaimLost) -> None:
        """Drop everything, and register anew."""
        if self._worker_id == worker_id:
            self._worker_id = None
            self._drop_all()
        self._beat.unknown(worker_id, reason)

    def _drop_all(self) -> None:
        self._backlog.forget()
        self.drop(list(self._claims))

    def _gone(self, execution: Execution, error: BaseException | None) -> None:
        self._in_memory.pop(execution)
        if not self._in_memory and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        self._carrier.forget(execution.claimed.claim)
        if error is not None:
            logger.error("run %s broke the worker", execution.claimed.run_id, exc_info=error)
        if self._claims.get(execution.claimed.run_id) is execution:  # it left without an answer
            del self._claims[execution.claimed.run_id]
            self._flusher.reconcile()

    # What the beat tells, on the loop

    def registered(self, worker_id: UUID) -> None:
        """Begin under this id; what was held under another one is lost."""
        self._drop_all()
        self._worker_id = worker_id
        if not self._ready.done():
            self._ready.set_result(None)
        self._flusher.wake()

    def refused(self, error: Exception) -> None:
        """Give up before anything began."""
        if not self._ready.done():
            self._ready.set_exception(error)

    def told(self, worker_id: UUID, answer: Mapping[str, Any], is_clock_set: bool) -> None:
        """Pass on what runs were told."""
        if worker_id != self._worker_id:
            return
        if is_clock_set:  # what is due in memory is due at another time
            for held in self._claims.values():
                held.tell()
        for told in answer["runs"]:
            execution = self._claims.get(UUID(told["run_id"]))
            if execution is None or str(execution.claimed.claim) != told["claim"]:
                continue
            if told["is_paused"]:
                execution.release_soon()
            elif told["is_told"]:
                execution.tell()
        self._heed(answer["hold"])
        if answer["reconcile"]:
            self._flusher.reconcile()

    def _heed(self, hold: str | None) -> None:
        """On hold begin no step and give back what is held, at each beat: a claim may have been under way."""
        if hold is not None:
            if self._hold is None:
                logger.warning("the installation is on hold, the worker waits until it is adopted: %s", hold)
            for execution in list(self._claims.values()):
                execution.release_soon()
        elif self._hold is not None:
            logger.warning("the installation is on hold no more, the worker goes on")
            self._flusher.wake()
        self._hold = hold

    def activity(self) -> list[dict[str, Any]]:
        """Return the steps that have run for longer than a second. Called in the beat's thread."""
        now = self._clock.now()
        early = now - timedelta(seconds=1)
        found = []
        for execution in list(self._claims.values()):
            with suppress(RuntimeError):  # its steps change while they are looked at
                found += [
                    {"run_id": execution.claimed.run_id, "key": key, "since": since, "progress": progress}
                    for key, since, progress in execution.calls.running
                    if since < early
                ]
        if (busy := Execution.in_code) is not None and (seconds := time.monotonic() - busy[1]) > 1.0:
            execution = busy[0]
            since = now - timedelta(seconds=seconds)
            what = {"run_id": execution.claimed.run_id, "key": "(its own code, without an await)", "since": since}
            found.append({**what, "progress": None})
            logger.warning(
                "workflow %s, run %s: its own code has run for %.0f s without an await, and all runs of this worker wait "
                "for it; what takes long belongs in a step",
                execution.workflow.name, execution.claimed.run_id, seconds,
            )  # fmt: skip
        return found


class _FromThread:
    """What the threads of the beat and the ticks see of the worker: everything is passed on to the loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def runs_held(self) -> int:
        return self._worker.count()

    def activity(self) -> list[dict[str, Any]]:
        return self._worker.activity()

    def registered(self, worker_id: UUID) -> None:
        self._pass_on(self._worker.registered, worker_id)

    def heard(self, told: float, asked: float, answered: float) -> bool:
        return self._worker._clock.heard(told, asked, answered)  # noqa: SLF001

    def told(self, worker_id: UUID, answer: dict[str, Any], is_clock_set: bool) -> None:
        self._pass_on(self._worker.told, worker_id, answer, is_clock_set)

    def refused(self, error: Exception) -> None:
        self._pass_on(self._worker.refused, error)

    def made_ready(self) -> None:
        self._pass_on(self._worker._flusher.wake)  # noqa: SLF001

    def _pass_on(self, fn: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._worker._loop.call_soon_threadsafe(fn, *args)  # noqa: SLF001
