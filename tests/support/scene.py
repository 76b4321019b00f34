"""Worker processes, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from support.database import Database, eventually
from support.engine import call, with_no_grace

WORKFLOWS = (
    "order", "once", "slow", "long", "greedy", "who", "ledger", "parcel", "failing", "big", "heard", "longer", "locking",
    "many",
)  # fmt: skip
PROGRAM = Path(__file__).with_name("crashing_worker.py")


class Scene:
    """A database with workers that are processes of their own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.workers: list[subprocess.Popen[bytes]] = []

    def prepare(self, *, without_grace: bool = True) -> None:
        """Make the trace, and let deaths be declared although the server has just started, unless told not to."""
        conn = self.database.connect()
        conn.execute(
            "create table public.trace (key text, step text, pid int, at timestamptz default clock_timestamp())"
        )
        conn.execute("create index on public.trace (key, step)")
        if without_grace:
            with_no_grace(self.database)
        for workflow in WORKFLOWS:
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

    def start(self, workflow: str, key: str, *, paid: bool = False, queue: str = "default") -> UUID:
        """Start a run, with its signal in the mailbox if it is paid."""
        with psycopg.connect(self.database.dsn()) as conn:
            call(conn, "put_queue", name=queue)
            [row] = call(conn, "start", workflow=workflow, input=Jsonb(key), key=key, queue=queue)
            run_id: UUID = row["start"]
            if paid:
                conn.execute("select perdure.signal(%s, 'paid', '7', 'once')", [run_id])
        return run_id

    def start_many(self, workflow: str, count: int) -> None:
        """Start runs whose inputs are the texts of their numbers."""
        with psycopg.connect(self.database.dsn()) as conn:
            call(conn, "start_many", workflow=workflow, inputs=[Jsonb(str(n)) for n in range(count)])

    def wait_completed(self, count: int, seconds: float = 60) -> None:
        """Wait until so many runs have completed, and none is left or ended otherwise."""

        def look() -> bool:
            ended: bool = self.row("select count(*) >= %s from perdure.outcome", count)[0]
            return ended

        eventually(look, seconds=seconds, what=f"the end of {count} runs")
        assert self.row("select count(*), count(*) filter (where status <> 'completed') from perdure.outcome") == (
            count,
            0,
        )
        self.check()

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
        self.database.wait_until("select count(*) >= %s from perdure.worker", count, seconds=60)

    def check(self) -> None:
        """Nothing may be left in anybody's hands, and no invariant broken."""
        assert self.row("select count(*) from perdure.dispatch")[0] == 0
        broken = self.database.admin.execute("select invariant, run_id, detail from perdure.violations").fetchall()
        assert broken == []

    def close(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.kill()
            process.wait()
