"""An application: its workflows, where its database is, and the worker that runs them.

Invariant: an app opens connections only where it is asked for something without a connection of the
caller's: to wait for results, to register, and for what is started or sent through the app itself.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal as signals
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar, overload

from typing_extensions import LiteralString

from . import _sql
from ._carrier import has_stuck_steps
from ._client import AsyncClient, BoundClient
from ._codec import Codec
from ._database import Database, insist
from ._execution import ExecutionOptions
from ._options import Retry
from ._registry import Workflow, WorkflowRegistry
from ._run import AsyncRun
from ._sql import Schema
from ._task import Task
from ._visible import one_line
from ._worker import Worker, WorkerOptions

I = TypeVar("I")  # noqa: E741  the input
O = TypeVar("O")  # noqa: E741  the output

logger = logging.getLogger("perdure")
logger.addFilter(one_line)  # all modules log by this one

_RETRY = Retry()
_STOP_TIMEOUT = timedelta(seconds=20)


class App(AsyncClient):
    """Workflows and the database that keeps them.

    dsn: a connection string; without it PERDURE_DSN, else libpq's own environment (PGHOST …).
    schema: where Perdure is installed; without it PERDURE_SCHEMA, else "perdure".
    retry: the policy of steps that have none of their own. codec: how values become JSON.

    The app is itself a client on connections of its own: one for each call, or, within
    `async with app:` (a running `worker` does it too), a few that are kept open. A worker's `name`
    is for people; by default it is host and process.
    """

    def __init__(
        self, dsn: str | None = None, *, schema: str | None = None, retry: Retry = _RETRY, codec: Codec | None = None
    ) -> None:
        if dsn is None:
            dsn = os.environ.get("PERDURE_DSN", "")
        if schema is None:
            schema = os.environ.get("PERDURE_SCHEMA", "perdure")
        self._database = Database(dsn, Schema(schema), codec if codec is not None else Codec())
        self._retry = retry
        self._workflows = WorkflowRegistry()

    # Workflows

    @overload
    def workflow(self, fn: Callable[[AsyncRun, I], Coroutine[Any, Any, O]], /) -> Workflow[I, O]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: timedelta | None = None,
        max_recoveries: int = 10,
    ) -> Callable[[Callable[[AsyncRun, I], Coroutine[Any, Any, O]]], Workflow[I, O]]: ...
    def workflow(
        self,
        fn: Callable[[AsyncRun, Any], Coroutine[Any, Any, Any]] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: timedelta | None = None,
        max_recoveries: int = 10,
    ) -> Any:
        """Make an async function of run and input a workflow, known by its name. Parentheses may be left out."""

        def make(fn: Callable[[AsyncRun, I], Coroutine[Any, Any, O]]) -> Workflow[I, O]:
            made: Workflow[I, O] = Workflow(fn, name=name, queue=queue, timeout=timeout, max_recoveries=max_recoveries)
            return self._workflows.add(made)

        return make if fn is None else make(fn)

    @overload
    def task(self, fn: Callable[[I], Coroutine[Any, Any, O]], /) -> Workflow[I, O]: ...
    @overload
    def task(
        self, /, *, queue: str = "default", retry: Retry | None = None, timeout: timedelta | None = None
    ) -> Callable[[Callable[[I], Coroutine[Any, Any, O]]], Workflow[I, O]]: ...
    def task(
        self,
        fn: Callable[[Any], Coroutine[Any, Any, Any]] | None = None,
        /,
        *,
        queue: str = "default",
        retry: Retry | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Make an async function of one input a workflow of a single step; `timeout` cuts off each try.

        Parentheses may be left out.
        """

        def make(fn: Callable[[I], Coroutine[Any, Any, O]]) -> Workflow[I, O]:
            made: Workflow[I, O] = Task(fn, queue=queue, retry=retry, timeout=timeout)
            return self._workflows.add(made)

        return make if fn is None else make(fn)

    def include(self, other: App) -> None:
        """Add all workflows of another app."""
        self._workflows.include(other._workflows)

    async def register(self) -> None:
        """Make the workflows known to the database, without a worker. Calls perdure.put_workflow."""
        async with self._database.connection() as conn:
            for workflow in self._workflows:
                await insist(conn, self._database.schema, _sql.PUT_WORKFLOW, workflow.parameters(), kind="worker")

    # Clients

    def using(self, connection: Any) -> AsyncClient:
        """Return a client on the caller's connection, in the caller's transaction.

        It takes a psycopg.AsyncConnection, or SQLAlchemy's AsyncSession or AsyncConnection.
        """
        return BoundClient(self._database, connection)

    async def __aenter__(self) -> App:
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._database.__aexit__(*exc)

    async def _query(self, statement: LiteralString, /, **parameters: Any) -> list[tuple[Any, ...]]:
        async with self._database.connection() as conn:
            return await insist(conn, self._database.schema, statement, parameters)

    # Workers

    def worker(
        self,
        *,
        queues: Sequence[str] | None = None,
        max_runs: int = 100,
        max_steps: int = 50,
        stop_timeout: timedelta = _STOP_TIMEOUT,
        version: str | None = None,
        name: str | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Run a worker in this event loop for as long as the block is open.

        It takes runs from `queues`, by default from all that the app's workflows name, holds at most `max_runs` of them
        and runs at most `max_steps` of their steps at a time. Leaving the block claims nothing more and releases what is
        held, once its running steps are saved, or after `stop_timeout`. Raises psycopg's errors when the database cannot be reached at first.
        """
        return self._worker(WorkerOptions(queues, max_runs, max_steps, stop_timeout, version=version, name=name))

    @asynccontextmanager
    async def _worker(self, options: WorkerOptions) -> AsyncIterator[None]:
        worker = self._new_worker(options)
        async with self:
            try:
                await worker.start()
                yield
            finally:
                await worker.stop()

    def _new_worker(self, options: WorkerOptions) -> Worker:
        database = self._database
        execution_options = ExecutionOptions(codec=database.codec, retry=self._retry)
        return Worker(database.dsn, database.schema, self._workflows, execution_options, options)

    def run_worker(
        self,
        *,
        queues: Sequence[str] | None = None,
        max_runs: int = 100,
        max_steps: int = 50,
        stop_timeout: timedelta = _STOP_TIMEOUT,
        version: str | None = None,
        name: str | None = None,
    ) -> None:
        """Run a worker, as `worker` does, as this process until SIGTERM or SIGINT; a second one ends it at once.

        A plain-function step that has not ended by then does not hold up the process.
        """
        options = WorkerOptions(queues, max_runs, max_steps, stop_timeout, version=version, name=name)
        if asyncio.run(self._as_process(options)):
            logger.warning("a step still runs in a thread and cannot be stopped; the process ends without it")
            logging.shutdown()
            os._exit(0)

    async def _as_process(self, options: WorkerOptions) -> bool:
        collect_seldom()
        async with self:  # what its steps ask of the app goes over connections that are kept
            return await self._until_signalled(options)

    async def _until_signalled(self, options: WorkerOptions) -> bool:
        stop, hurry = asyncio.Event(), asyncio.Event()

        loop = asyncio.get_running_loop()
        asks = count()  # its next is one step even where a second signal interrupts the handler of the first
        patience: list[threading.Timer] = []

        def asked(*_: object) -> None:
            is_first = next(asks) == 0
            loop.call_soon_threadsafe((stop if is_first else hurry).set)
            # a loop that workflow code holds up hears of nothing: its runs are taken back as from a dead worker
            end = threading.Timer(options.stop_timeout.total_seconds() + 10.0 if is_first else 5.0, os._exit, [1])
            end.daemon = True
            end.start()
            patience.append(end)

        before = {number: signals.signal(number, asked) for number in (signals.SIGTERM, signals.SIGINT)}
        worker = self._new_worker(options)
        stopping = None
        try:
            await worker.start()
            logger.info("worker %s is ready: %s", worker.name, ", ".join(self._workflows.names))
            await stop.wait()
            stopping = asyncio.ensure_future(worker.stop())
            hurried = asyncio.ensure_future(hurry.wait())
            await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
            hurried.cancel()
        finally:
            if stopping is None or not stopping.done():
                if stopping is not None:
                    stopping.cancel()
                    await asyncio.wait([stopping])
                await worker.stop(timedelta(0))
            for number, handler in before.items():
                signals.signal(number, handler)
            for end in patience:
                end.cancel()
        return has_stuck_steps()


_YOUNG_OBJECTS = 10_000


def collect_seldom() -> None:
    """Let the collector of this process look at new objects more seldom, if its owner left it as it is.

    A run's objects live as long as it is in memory and are freed without it; at its usual pace it takes a tenth of a
    busy worker's CPU to find nothing.
    """
    young, *older = gc.get_threshold()
    if 0 < young < _YOUNG_OBJECTS:
        gc.set_threshold(_YOUNG_OBJECTS, *older)
