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

# Functions that refuse an older snapshot.
_ENGINE = re.compile(
    rb"perdure\"?\.\"?(tick|recover|claim_runs|save_steps|fail_steps|suspend_runs|complete_runs|fail_runs|release_runs)\b"
)


class DriverCursor(psycopg.Cursor[Any]):
    """A cursor that begins what the engine is asked for in READ COMMITTED."""

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Execute in whatever transaction is open; else in one of the connection's own, or of READ COMMITTED."""
        conn = self.connection
        is_idle = conn.info.transaction_status == TransactionStatus.IDLE
        if not is_idle or conn.isolation_level is not None or not _ENGINE.search(_text(query, conn)):
            return super().execute(query, *args, **options)
        conn.isolation_level = IsolationLevel.READ_COMMITTED
        if not conn.autocommit:
            return super().execute(query, *args, **options)
        try:
            with conn.transaction():
                return super().execute(query, *args, **options)
        finally:
            conn.isolation_level = None


def _text(query: Any, conn: psycopg.Connection[Any]) -> bytes:
    if isinstance(query, bytes):
        return query
    return query.encode() if isinstance(query, str) else query.as_bytes(conn)


def options() -> dict[str, Any]:
    """What a connection of a test is opened with."""
    return {"cursor_factory": DriverCursor} if LEVEL else {}
