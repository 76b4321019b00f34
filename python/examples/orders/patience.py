"""A connection that outlives its server: what was not acknowledged is done again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from psycopg import AsyncConnection, OperationalError

T = TypeVar("T")


class Patient:
    """Does pieces of work, each in a transaction of its own, one at a time.

    When the connection breaks it cannot be known whether the transaction was committed. So the piece is done again on a
    new connection, and has to be repeatable: by a key, or by an id.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._conn: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def do(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do a piece of work, again until it is acknowledged."""
        async with self._lock:
            while True:
                try:
                    conn = await self._connection()
                    async with conn.transaction():
                        return await work(conn)
                except OperationalError:
                    await self._close()
                    await asyncio.sleep(0.1)

    async def _connection(self) -> AsyncConnection:
        if self._conn is None:
            self._conn = await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=5)
        return self._conn

    async def _close(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            await conn.close()

    async def __aenter__(self) -> Patient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
