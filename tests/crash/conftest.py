"""Worker processes, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, eventually
from support.engine import call, with_no_grace

PROGRAM = Path(__file__).with_name("crashing_worker.py")


class Scene:
    """A database with workers that are processes of their own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workers: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        """Make the trace, and let deaths be declared although the server has just started."""
        conn = self.database.connect()
        conn.execute(
            "create table public.trace (key text, step text, pid int, at timestamptz default clock_timestamp())"
        )
        with_no_grace(self.database)
        for workflow in ("order", "once", "slow", "long", "greedy", "failing"):
            conn.execute("select perdure.put_workflow(%s)", [workflow])
        conn.close()

    def worker(self, crash_at: str | None = None, **settings: str) -> subprocess.Popen[bytes]:
        """Start a worker process; keywords become PERDURE_… settings."""
        variables = {f"PERDURE_{name.upper()}": value for name, value in settings.items()}
        environment = {**os.environ, "PERDURE_DSN": self.database.dsn(), **variables}
        if crash_at is not None:
            environment["PERDURE_CRASH_AT"] = crash_at
        process = subprocess.Popen([sys.executable, PROGRAM], env=environment)
        self.workers.append(process)
        return process

    def start(self, workflow: str, key: str, *, paid: bool = False) -> UUID:
        """Start a run, with its signal in the mailbox if it is paid."""
        with psycopg.connect(self.database.dsn()) as conn:
            [row] = call(conn, "start", workflow=workflow, input=Jsonb(key), key=key)
            run_id: UUID = row["start"]
            if paid:
                conn.execute("select perdure.signal(%s, 'paid', '7', 'once')", [run_id])
        return run_id

    def result(self, run_id: UUID, seconds: float = 30) -> Any:
        """Wait for the run's end and return its result; fail if it ended otherwise."""

        def look() -> Any:
            row = self.row("select status, result, error from perdure.run_results(array[%s::uuid])", run_id)
            return row if row and row[0] is not None else None

        status, result, error = eventually(look, seconds=seconds, what=f"the end of run {run_id}")
        assert status == "completed", error
        return result

    def row(self, query: Any, *parameters: Any) -> Any:
        return self.database.admin.execute(query, parameters).fetchone()

    def times(self, key: str, step: str) -> int:
        """How often a step's code ran."""
        count: int = self.row("select count(*) from public.trace where key = %s and step = %s", key, step)[0]
        return count

    def died(self, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
        """Wait until a worker has killed itself."""
        assert process.wait(seconds) == -signal.SIGKILL

    def wait_registered(self, count: int = 1) -> None:
        """Wait until so many workers are registered."""
        self.database.wait_until("select count(*) >= %s from perdure.worker", count)

    def check(self) -> None:
        """Nothing may be left in anybody's hands, and no invariant broken."""
        assert self.row("select count(*) from perdure.dispatch")[0] == 0

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """A scene on the session's server."""
    made = Scene(database)
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def own_scene(own_database: Database) -> Iterator[Scene]:
    """A scene on a server of the test's own."""
    made = Scene(own_database)
    made.prepare()
    yield made
    made.close()
