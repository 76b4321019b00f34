"""The whole suite under another default isolation: PERDURE_TEST_ISOLATION is `repeatable read` or `serializable`.

Every database of the tests then has it as its default. What a client does, a test does so, too. What the engine does in
READ COMMITTED only, a test asks for as a driver does: in a transaction that it begins so.
"""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

LEVEL = os.environ.get("PERDURE_TEST_ISOLATION", "")

# What a client calls in a transaction of its own default; whatever else begins a transaction begins it as a driver does.
_CLIENT = re.compile(rb"perdure\"?\.\"?(start|signal|cancel|terminate|pause|resume|retry|put_|grant_|result)")
# What the engine is asked for in a single statement, in READ COMMITTED.
_ENGINE = re.compile(
    rb"perdure\"?\.\"?(tick|recover|drain|claim_runs|save_|fail_|suspend_|complete_|release_|stop_worker|beat)"
)
_SET = b"set session characteristics as transaction isolation level read committed"
_RESET = b"reset default_transaction_isolation"


class DriverCursor(psycopg.Cursor[Any]):
    """A cursor whose transactions begin as those of clients and drivers do."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Execute in whatever transaction is open, else in one that suits the statement."""
        conn = self.connection
        if conn.info.transaction_status != TransactionStatus.IDLE:
            return super().execute(query, *args, **options)
        text = _text(query, conn)
        if conn.autocommit:
            if not _ENGINE.search(text):
                return super().execute(query, *args, **options)
            conn.pgconn.exec_(_SET)
            try:
                return super().execute(query, *args, **options)
            finally:
                conn.pgconn.exec_(_RESET)
        if conn.isolation_level in (None, IsolationLevel.READ_COMMITTED):
            conn.isolation_level = None if _CLIENT.search(text) else IsolationLevel.READ_COMMITTED
        return super().execute(query, *args, **options)


def _text(query: Any, conn: psycopg.Connection[Any]) -> bytes:
    if isinstance(query, bytes):
        return query
    return query.encode() if isinstance(query, str) else query.as_bytes(conn)


def options() -> dict[str, Any]:
    """What a connection of a test is opened with."""
    return {"cursor_factory": DriverCursor} if LEVEL else {}


def prepare(conn: psycopg.Connection[Any]) -> None:
    """Let the blocks of an autocommitting connection begin as a driver's."""
    if LEVEL and conn.autocommit:
        conn.isolation_level = IsolationLevel.READ_COMMITTED
