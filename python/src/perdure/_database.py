"""Where an app's runs are kept, and the app's own connections to it.

Invariant: what is opened here is closed here: a connection at the end of its one call, or all of them
at the end of the last block that keeps them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from typing_extensions import LiteralString

from . import _sql
from ._advice import advised
from ._codec import Codec
from ._connect import Connector, borrow, conflict_pauses
from ._loop import refuse_in_workflow
from ._results import ResultPoller
from ._sql import Schema

_MAX_KEPT = 4
_PATIENCE = 30.0  # seconds for which a caller waits for a connection
_WHAT = "the app or a handle for anything"


class Database:
    """A database with a schema of ours, and how values are kept in it."""

    def __init__(self, dsn: str, schema: Schema, codec: Codec) -> None:
        self.dsn = dsn
        self.schema = schema
        self.codec = codec
        self._connector = Connector(dsn, "perdure client")
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]] | None = None
        self._keepers = 0
        self._pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, ResultPoller] = WeakKeyDictionary()

    async def __aenter__(self) -> Database:
        self._keepers += 1
        if self._pool is None:
            self._pool = self._connector.pool(_MAX_KEPT)
            await self._pool.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._keepers -= 1
        if not self._keepers and self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Open an autocommitting connection, or borrow one that is kept."""
        refuse_in_workflow(_WHAT)
        if self._pool is None:
            conn = await self._connector.open()
            try:
                yield conn
            finally:  # not by `async with`: it rolls back before, and a second cancel there would leave it open
                await conn.close()
        else:
            pool = self._pool
            try:
                conn = await borrow(pool, _PATIENCE)
            except PoolTimeout:  # it does not say why
                await (await self._connector.open()).close()
                raise
            try:
                async with conn:
                    await conn.set_autocommit(True)
                    yield conn
            finally:
                await pool.putconn(conn)

    @property
    def results(self) -> ResultPoller:
        """Who waits for the ends of runs in the running event loop."""
        refuse_in_workflow(_WHAT)
        loop = asyncio.get_running_loop()
        poller = self._pollers.get(loop)
        if poller is None:
            poller = self._pollers[loop] = ResultPoller(self.schema, self.connection)
        return poller


async def query(
    connection: psycopg.AsyncConnection[Any],
    schema: Schema,
    statement: LiteralString,
    parameters: Mapping[str, Any],
    *,
    kind: str = "client",
) -> list[tuple[Any, ...]]:
    """Run one statement, whatever the connection's own cursors and rows are like; `kind` is the right that it needs."""
    with _sql.refusals(), advised(connection, schema.name, kind):
        async with psycopg.AsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(schema(statement), parameters)
            return await cursor.fetchall()


async def insist(
    connection: psycopg.AsyncConnection[Any],
    schema: Schema,
    statement: LiteralString,
    parameters: Mapping[str, Any],
    *,
    kind: str = "client",
) -> list[tuple[Any, ...]]:
    """Run one statement on an autocommitting connection, again where it met another and the role's default is strict.

    Nothing of a statement that failed so took effect, and nobody but us could make its transaction again.
    """
    for pause in conflict_pauses():
        try:
            return await query(connection, schema, statement, parameters, kind=kind)
        except psycopg.errors.SerializationFailure:  # noqa: PERF203
            await asyncio.sleep(pause)
    return await query(connection, schema, statement, parameters, kind=kind)
