"""The whole suite under another default isolation: PERDURE_TEST_ISOLATION is `repeatable read` or `serializable`.

Every database of the tests then has it as its default. What a client does, a test does so, too: a transaction that fails
with 40001 at its very first statement is made again, as such a client has to. What the engine does in READ COMMITTED only,
a test asks for as a driver does: in a transaction that it begins so.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

VARIABLE = "PERDURE_TEST_ISOLATION"
LEVEL = os.environ.get(VARIABLE, "")

# What a client calls in a transaction of its own default; whatever else begins a transaction begins it as a driver does.
_CLIENT = re.compile(rb"perdure\"?\.\"?(start|signal|cancel|terminate|pause|resume|retry|put_|grant_|result)")
# What the engine is asked for in a single statement, in READ COMMITTED.
_ENGINE = re.compile(
    rb"perdure\"?\.\"?(tick|recover|drain|claim_runs|save_|fail_|suspend_|complete_|release_|stop_worker|beat)"
)
_SET = b"set session characteristics as transaction isolation level read committed"
_RESET = b"reset default_transaction_isolation"
_TRIES = 20

EXCLUDED: Mapping[str, tuple[str, type[BaseException], str]] = {
    "cli/test_doctor.py::test_all_is_well_with_a_live_worker": (
        "",
        AssertionError,
        "doctor warns of such a default, and the test asks that it warn of nothing",
    ),
    "race/test_clients.py::test_the_second_retry_waits_for_the_first[commit-duplicate]": (
        "",
        psycopg.ProgrammingError,
        "told to try again, the second comes after the first, and a run that is ready cannot be retried",
    ),
    "driver/test_client.py::test_of_two_that_start_a_key_at_the_same_moment_one_is_told_that_it_is_new": (
        "",
        psycopg.errors.SerializationFailure,
        "both are on connections of the caller's, who has to make what failed again",
    ),
    **{
        f"race/test_open_transactions.py::test_a_senders_open_transaction_holds_up_nobody[{act}]": (
            "serializable",
            psycopg.errors.SerializationFailure,
            "two clients ask the same act of the same run: one after the other, the second would hear that it is a duplicate",
        )
        for act in ("cancel", "pause", "terminate")
    },
    "race/test_user_transactions.py::test_transactions_open_for_long_hold_up_nobody_and_take_effect": (
        "serializable",
        psycopg.errors.SerializationFailure,
        "ten transactions read pages of an index into which the others insert, and stay open: all but one are to be made again",
    ),
}
"""Tests that cannot hold under a level, or under any: the level or "", how they fail, the reason. See `conftest.py`."""


def excluded(nodeid: str) -> tuple[type[BaseException], str] | None:
    """Say how a test fails under the level of this process, and why; None for one that holds."""
    found = EXCLUDED.get(nodeid) or EXCLUDED.get(nodeid.partition("[")[0])
    if not LEVEL or found is None or found[0] not in ("", LEVEL):
        return None
    return found[1:]


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
                return self._insist(query, *args, **options)
            conn.pgconn.exec_(_SET)
            try:
                return super().execute(query, *args, **options)
            finally:
                conn.pgconn.exec_(_RESET)
        if conn.isolation_level in (None, IsolationLevel.READ_COMMITTED):
            conn.isolation_level = None if _CLIENT.search(text) else IsolationLevel.READ_COMMITTED
        return self._insist(query, *args, **options)

    def _insist(self, query: Any, *args: Any, **options: Any) -> Any:
        """Begin a transaction by a statement, and anew where it meets another's."""
        for attempt in range(_TRIES):
            try:
                return super().execute(query, *args, **options)
            except psycopg.errors.SerializationFailure:  # noqa: PERF203
                self.connection.rollback()
                time.sleep(0.005 * attempt)
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
