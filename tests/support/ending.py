"""End backends as an operator, a proxy or the kernel does, and wait until it is seen to have happened."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psycopg

from support.database import Database, eventually
from support.engine import Connection


def kill_backend(database: Database, pid: int) -> None:
    """Kill a backend with SIGKILL; return when the server has ended all sessions for it and takes new ones.

    What was connected through the database is closed.
    """
    onlooker = psycopg.connect(database.dsn(), autocommit=True)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: _is_cut(onlooker), seconds=60, what="the server ends all sessions")
    onlooker.close()
    database.close()
    eventually(lambda: _accepts(database), seconds=120, what="the server takes sessions again")


def _is_cut(conn: Connection) -> bool:
    try:
        conn.execute("select")
    except psycopg.OperationalError:
        return True
    return False


def _accepts(database: Database) -> bool:
    with suppress(psycopg.OperationalError):
        psycopg.connect(database.dsn()).close()
        return True
    return False
