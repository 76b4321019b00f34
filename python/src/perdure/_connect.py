"""The connections that workers and apps open for themselves.

Invariant: only a worker, and an app that is asked without a connection of the caller's, opens any;
they carry a name, find out by themselves when the other side is gone, and work in
READ COMMITTED.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ._advice import advised_connecting, is_hopeless
from ._errors import Misuse
from ._unreadable import forgive

logger = logging.getLogger("perdure")

# No statement about runs: it tells whether a pooler stands between us and the server.
_BACKEND_PID = b"select pg_catalog.pg_backend_pid()"

# No statement about runs either. It never lengthens what the user's own setting allows; 0 is none.
_LIMIT_IDLE = b"""
    select pg_catalog.set_config('idle_in_transaction_session_timeout', (1000 * extract(epoch from least(
      %(limit)s::interval, nullif(pg_catalog.current_setting('idle_in_transaction_session_timeout')::interval, '0')
    )))::bigint::text, %(is_local)s)
"""

# How often a statement is sent before it is prepared, where that can be done.
PREPARE_AFTER = 3

# What a pooler says that takes the backend away after each statement, and what to say instead.
STATEMENT_POOLING = "statement pooling"
STATEMENT_MODE = "the pooler in front of the database works in statement mode, which has no transactions"
SET_MODE = (
    "Set pool_mode = transaction in pgbouncer.ini, for this database alone behind its name, or connect to the server"
    " directly."
)

# What passes by itself: restarts, failovers, lack of something, others who were in the way.
PASSING = ("40", "53", "55P03", "57P", "58", "25006")

# A server that vanished without a word is noticed within about 20 s.
_KEEPALIVES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


# What Postgres keeps of an application_name; it writes other bytes than ASCII's as a sign or more.
_NAME_BYTES = 63

_RECONNECT = 5.0
"""Seconds for which a pool tries to connect before somebody has to ask again; by itself it would pause for minutes."""


@dataclass(frozen=True, slots=True)
class Connector:
    """Open connections to one database under one name; none prepares statements before it is known to be direct."""

    dsn: str = field(repr=False)  # it may hold a password
    name: str

    def purpose(self, what: str) -> Connector:
        """Return the same for connections of one purpose, which is read behind the name however long that is."""
        name = self.name.encode("ascii", "replace").decode()
        return Connector(self.dsn, f"{name[: _NAME_BYTES - len(what) - 1]} {what}")

    async def open(self) -> psycopg.AsyncConnection[Any]:
        """Open an autocommitting connection for asyncio."""
        with advised_connecting(self.dsn):
            return forgive(await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, **self._parameters()))

    def open_in_thread(self) -> psycopg.Connection[Any]:
        """Open an autocommitting connection for a thread of its own."""
        with advised_connecting(self.dsn):
            return psycopg.connect(self.dsn, autocommit=True, **self._parameters())

    def pool(
        self, max_size: int, idle_limit: timedelta | None = None
    ) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
        """Make a pool, not yet open, whose connections are looked at before they are handed out.

        A transaction on one that is direct may be idle for the limit; for others `limit_idle` is to be called in it.
        """
        with advised_connecting(self.dsn):
            parameters = self._parameters()
        return AsyncConnectionPool(
            self.dsn,
            kwargs=parameters,
            min_size=0,
            max_size=max_size,
            open=False,
            max_idle=60,
            reconnect_timeout=_RECONNECT,
            check=AsyncConnectionPool.check_connection,
            configure=partial(_configure, idle_limit=idle_limit),
            name=self.name,
        )

    def _parameters(self) -> dict[str, Any]:
        given: Mapping[str, Any] = conninfo_to_dict(self.dsn)
        parameters = {name: value for name, value in _KEEPALIVES.items() if name not in given}
        # whatever encoding the database has: JSON is read as UTF-8, and what it cannot keep the server refuses by name
        return {**parameters, "application_name": self.name, "prepare_threshold": None, "client_encoding": "utf8"}


async def borrow(
    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]], patience: float | None
) -> psycopg.AsyncConnection[Any]:
    """Take a connection of the pool; raise PoolTimeout after `patience` seconds, if there is an end of it."""
    until = None if patience is None else time.monotonic() + patience
    while True:
        try:
            return await pool.getconn(timeout=_RECONNECT)
        except PoolTimeout:  # noqa: PERF203
            if until is not None and time.monotonic() >= until:
                raise


async def _configure(conn: psycopg.AsyncConnection[Any], idle_limit: timedelta | None) -> None:
    forgive(conn)
    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
    await conn.set_autocommit(True)
    await prepare_if_direct(conn)
    if idle_limit is not None and conn.prepare_threshold is not None:
        await conn.execute(_LIMIT_IDLE, {"limit": idle_limit, "is_local": False})
    await conn.set_autocommit(False)


def is_direct(conn: psycopg.Connection[Any]) -> bool:
    """Tell whether the connection ends at its own backend, so that what a session holds is ours."""
    row = conn.execute(_BACKEND_PID).fetchone()
    return row is not None and row[0] == conn.info.backend_pid


async def prepare_if_direct(conn: psycopg.AsyncConnection[Any]) -> None:
    """Let a connection that is kept prepare its statements; a pooler may hand the next one to another backend."""
    row = await (await conn.execute(_BACKEND_PID)).fetchone()
    if row is not None and row[0] == conn.info.backend_pid:
        conn.prepare_threshold = PREPARE_AFTER


async def limit_idle(conn: psycopg.AsyncConnection[Any], limit: timedelta) -> None:
    """Let this transaction be idle for so long at most, where that is not set for the whole session."""
    if conn.prepare_threshold is None:
        await conn.execute(_LIMIT_IDLE, {"limit": limit, "is_local": True})


def check_transactions(conn: psycopg.Connection[Any]) -> None:
    """Raise Misuse behind a pooler that takes the backend away after each statement."""
    try:
        with conn.transaction():
            conn.execute(_BACKEND_PID)
    except psycopg.Error as error:
        if STATEMENT_POOLING in str(error):
            raise Misuse(f"{STATEMENT_MODE}. {SET_MODE}") from error
        raise


def passes(error: psycopg.Error) -> bool:
    """Tell whether the same may work later, on another connection."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith(("08", *PASSING))
    return isinstance(error, psycopg.OperationalError) and not is_hopeless(error)


class Complaints:
    """Warnings of what fails again and again: the same one is told anew only after a minute, or once all was well."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._again_at = 0.0

    def tell(self, what: str, error: Exception) -> None:
        """Warn that something failed."""
        text = f"{what}: {error}"
        same = text.partition("\n")[0]  # below it stands the statement, which may be another one each time
        now = time.monotonic()
        if same != self._last or now >= self._again_at:
            self._last, self._again_at = same, now + 60.0
            logger.warning("%s", text)

    def reset(self) -> None:
        """Note that it worked."""
        self._last = None


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


def conflict_pauses() -> Iterator[float]:
    """Give the pauses in seconds after which what failed with 40001 is made again; then it is made for the last time."""
    pauses = BackOff(0.002, 0.2)
    return (pauses.pause() for _ in range(20))
