"""What an application asks of the database about runs: start, signal, look, wait.

Invariant: a client made by `using` does everything but waiting on the caller's connection, in the
caller's transaction, and never commits; the caller does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import psycopg
from typing_extensions import LiteralString

from . import _sql
from ._database import Database, query
from ._errors import (
    DatabaseError,
    Misuse,
    RunCancelled,
    RunDead,
    RunFailed,
    RunTerminated,
    RunTimedOut,
)
from ._options import Signal, Value
from ._registry import Workflow

I = TypeVar("I")  # noqa: E741  the input
O = TypeVar("O")  # noqa: E741  the output
T = TypeVar("T")

OnDuplicate = Literal["attach", "restart_if_failed", "restart_if_finished", "replace", "error"]

_BAD_ENDS: Mapping[str, type[DatabaseError]] = {
    "failed": RunFailed,
    "cancelled": RunCancelled,
    "timed_out": RunTimedOut,
    "terminated": RunTerminated,
    "dead": RunDead,
}


class Query(Protocol):
    """Run one statement with these parameters."""

    async def __call__(self, statement: LiteralString, /, **parameters: Any) -> list[tuple[Any, ...]]: ...


class AsyncHandle(Generic[O]):
    """A run that is known by its id.

    `is_new` is false when a start with a key found the run there already, or a handle was made of an id.
    """

    def __init__(
        self, database: Database, query: Query, workflow: Workflow[Any, O], run_id: UUID, *, is_new: bool = False
    ) -> None:
        self._database = database
        self._query = query
        self._workflow = workflow
        self.id = run_id
        self.is_new = is_new
        self._started_at = asyncio.get_running_loop().time() if is_new else None

    async def result(self, *, timeout: timedelta | None = None) -> O:
        """Wait until the run has ended and return its result, decoded by the workflow's annotation.

        Raises RunFailed, RunCancelled, RunTimedOut, RunTerminated or RunDead as it ended, TimedOut
        when it has not ended in time, RunNotFound when it is unknown (its start is not committed, say).
        Polls perdure.run_results.
        """
        row = await self._database.results.wait(self.id, timeout, self._started_at)
        if row["status"] == "completed":
            workflow = self._workflow
            result: O = self._database.codec.decode(
                row["result"], workflow.output_type, f"result of workflow {workflow.name!r}"
            )
            return result
        error = row["error"] or {}
        message = error.get("message")
        kind = _BAD_ENDS.get(row["status"], RunFailed)
        told = ": ".join(str(part) for part in (error.get("type"), message) if part and part != row["status"])
        ended = kind(f"run {self.id} of {self._workflow.name!r} ended {row['status']}{told and ': ' + told}")
        ended.run_id, ended.error = self.id, row["error"]
        raise ended

    async def value(self, value: Value[T]) -> T | None:
        """Return what the run published last under this name, or None. Calls perdure.get_value."""
        ((data,),) = await self._query(_sql.GET_VALUE, run_id=self.id, name=value.name)
        if data is None:
            return None
        shown: T = self._database.codec.decode(data, value.type, f"value {value.name!r}")
        return shown

    async def signal(self, signal: Signal[T], payload: T, *, id: str | None = None) -> str:
        """Send the run a message; return accepted, duplicate, finished or unknown. Calls perdure.signal."""
        text = self._database.codec.encode(payload, f"payload of signal {signal.name!r}")
        rows = await self._query(_sql.SIGNAL, run_id=self.id, name=signal.name, payload=text, id=id)
        answer: str = rows[0][0]
        return answer

    async def cancel(self, reason: str = "", *, grace: timedelta | None = None) -> None:
        """Ask the run to end; it may clean up for as long as the grace, by default 5 minutes. Calls perdure.cancel.

        Raises RunNotFound.
        """
        await self._query(_sql.CANCEL, run_id=self.id, reason=reason or None, grace=grace)

    async def explain(self) -> str:
        """Return, in sentences, why the run does not go on. Calls perdure.explain."""
        return "\n".join(row[0] for row in await self._query(_sql.EXPLAIN, run_id=self.id))

    def __repr__(self) -> str:
        return f"<AsyncHandle {self._workflow.name!r} {self.id}>"


class AsyncClient:
    """Start runs and talk to them."""

    _database: Database

    async def _query(self, statement: LiteralString, /, **parameters: Any) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    async def _value(self, statement: LiteralString, /, **parameters: Any) -> Any:
        return (await self._query(statement, **parameters))[0][0]

    async def start(
        self,
        workflow: Workflow[I, O],
        input: I,
        *,
        key: str | None = None,
        on_duplicate: OnDuplicate = "attach",
        queue: str | None = None,
        priority: int = 3,
        start_at: datetime | None = None,
        delay: timedelta | None = None,
        deadline: datetime | None = None,
        timeout: timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        max_recoveries: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncHandle[O]:
        """Start a run, or with a known key return the one that is there. Calls perdure.start_run.

        `priority` is 1 (first) to 5; `timeout` runs from the first claim. Raises KeyConflict when the
        key was used with another input, LimitExceeded, Misuse for a time without a zone, and psycopg's errors for other
        bad options.
        """
        for name, at in (("start_at", start_at), ("deadline", deadline)):
            if at is not None and at.tzinfo is None:
                raise Misuse(f"{name}= takes an aware datetime, for example datetime.now(timezone.utc)")
        codec = self._database.codec
        ((run_id, is_new),) = await self._query(
            _sql.START_RUN,
            workflow=workflow.name,
            input=codec.encode(input, f"input of workflow {workflow.name!r}"),
            key=key,
            on_duplicate=on_duplicate,
            queue=queue,
            priority=priority,
            start_at=start_at,
            delay=delay,
            deadline=deadline,
            timeout=timeout,
            tags=codec.encode(dict(tags or {}), "tags"),
            max_recoveries=max_recoveries,
            headers=codec.encode(dict(headers or {}), "headers"),
        )
        return AsyncHandle(self._database, self._query, workflow, run_id, is_new=is_new)

    async def start_many(
        self, workflow: Workflow[I, O], inputs: Sequence[I], *, keys: Sequence[str] | None = None
    ) -> Sequence[UUID]:
        """Start one run per input in one statement; return their ids in order. Calls perdure.start_many."""
        what = f"input of workflow {workflow.name!r}"
        texts = [self._database.codec.encode(each, what) for each in inputs]
        rows = await self._query(
            _sql.START_MANY, workflow=workflow.name, inputs=texts, keys=None if keys is None else list(keys)
        )
        return [row[1] for row in rows]

    async def signal(
        self,
        workflow: Workflow[I, O],
        key: str,
        signal: Signal[T],
        payload: T,
        *,
        id: str | None = None,
        start_input: I | None = None,
    ) -> str:
        """Send a message to the run with this key, starting it first where there is a `start_input`.

        Returns accepted, duplicate, finished or unknown. Calls perdure.signal_key.
        """
        codec = self._database.codec
        what = f"input of workflow {workflow.name!r}"
        answer: str = await self._value(
            _sql.SIGNAL_KEY,
            workflow=workflow.name,
            key=key,
            name=signal.name,
            payload=codec.encode(payload, f"payload of signal {signal.name!r}"),
            id=id,
            start_input=None if start_input is None else codec.encode(start_input, what),
        )
        return answer

    def handle(self, workflow: Workflow[I, O], run_id: UUID) -> AsyncHandle[O]:
        """Return the handle of a run whose id is known; nothing is asked."""
        return AsyncHandle(self._database, self._query, workflow, run_id)

    async def find(self, workflow: Workflow[I, O], key: str) -> AsyncHandle[O] | None:
        """Return the run that a key names, or None. Calls perdure.find_run."""
        run_id = await self._value(_sql.FIND_RUN, workflow=workflow.name, key=key)
        return None if run_id is None else AsyncHandle(self._database, self._query, workflow, run_id)


class BoundClient(AsyncClient):
    """A client on a connection of the caller's."""

    def __init__(self, database: Database, connection: Any) -> None:
        self._database = database
        self._connection = connection

    async def _query(self, statement: LiteralString, /, **parameters: Any) -> list[tuple[Any, ...]]:
        connection = await _psycopg_connection(self._connection)
        return await query(connection, self._database.schema, statement, parameters)


async def _psycopg_connection(given: Any) -> psycopg.AsyncConnection[Any]:
    """Return psycopg's connection behind what the caller uses: its own, or SQLAlchemy's session or connection."""
    if not isinstance(given, psycopg.AsyncConnection) and hasattr(given, "sync_session"):
        given = await given.connection()
    if hasattr(given, "get_raw_connection"):
        given = (await given.get_raw_connection()).driver_connection
    if not isinstance(given, psycopg.AsyncConnection):
        raise Misuse(
            "using() takes a psycopg.AsyncConnection, or SQLAlchemy's AsyncSession or AsyncConnection on"
            f" postgresql+psycopg://; this is {type(given).__module__}.{type(given).__qualname__}"
        )
    return given
