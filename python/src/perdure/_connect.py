"""The connections that workers and apps open for themselves.

Invariant: only a worker, and an app that is asked without a connection of the caller's, opens any;
they carry a name, find out by themselves when the other side is gone, and work in
READ COMMITTED.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

# No statement about runs: it tells whether a pooler stands between us and the server.
_BACKEND_PID = b"select pg_catalog.pg_backend_pid()"

# A server that vanished without a word is noticed within about 20 s.
_KEEPALIVES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


@dataclass(frozen=True, slots=True)
class Connector:
    """Open connections to one database under one name."""

    dsn: str
    name: str
    prepare_threshold: int | None = 3
    """None behind a pooler, which may hand the next statement to another backend."""

    async def open(self) -> psycopg.AsyncConnection[Any]:
        """Open an autocommitting connection for asyncio."""
        return await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, **self._parameters())

    def open_in_thread(self) -> psycopg.Connection[Any]:
        """Open an autocommitting connection for a thread of its own."""
        return psycopg.connect(self.dsn, autocommit=True, **self._parameters())

    def pool(self, max_size: int) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
        """Make a pool, not yet open, whose connections are looked at before they are handed out."""
        return AsyncConnectionPool(
            self.dsn,
            kwargs=self._parameters(),
            min_size=0,
            max_size=max_size,
            open=False,
            max_idle=60,
            check=AsyncConnectionPool.check_connection,
            configure=_read_committed,
            name=self.name,
        )

    def _parameters(self) -> dict[str, Any]:
        given: Mapping[str, Any] = conninfo_to_dict(self.dsn)
        parameters = {name: value for name, value in _KEEPALIVES.items() if name not in given}
        return {**parameters, "application_name": self.name, "prepare_threshold": self.prepare_threshold}


async def _read_committed(conn: psycopg.AsyncConnection[Any]) -> None:
    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)


def is_direct(conn: psycopg.Connection[Any]) -> bool:
    """Tell whether the connection ends at its own backend, so that what a session holds is ours."""
    row = conn.execute(_BACKEND_PID).fetchone()
    return row is not None and row[0] == conn.info.backend_pid


class BackOff:
    """Pauses in seconds that double from `first` to `last`, spread so that many do not come back at once."""

    def __init__(self, first: float, last: float) -> None:
        self._first = self._next = first
        self._last = last

    def reset(self) -> None:
        """Begin anew."""
        self._next = self._first

    def pause(self) -> float:
        """Return the next pause."""
        pause, self._next = self._next, min(self._last, self._next * 2)
        return pause * random.uniform(0.75, 1.25)
