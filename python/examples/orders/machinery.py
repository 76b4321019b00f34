"""What the demo starts, kills and restarts: the payment server, the workers, Postgres; and how long recovery takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, sql

from orders.patience import Patient
from orders.view import View
from perdure._install import install
from perdure._postgres import Server  # private: your own Postgres is started by others

EXAMPLES = Path(__file__).parents[1]
NO_SERVER = 3  # with this code `perdure worker` ends when it is started while Postgres is away

HELD = "select r.run_id from perdure.runs as r where r.worker = %s"
CLAIMED_AGAIN = """
select r.run_id, r.claimed_at, r.worker, r.recoveries
from perdure.runs as r
where r.run_id = any(%s) and (r.claimed_at > %s or r.finished_at is not null)
"""
SAVED_SINCE = """
select exists (select from perdure.steps as s where s.saved_at > %s)
  or not exists (select from perdure.runs as r where r.finished_at is null)
"""


class DemoFailed(Exception):
    """Something that the demo stands on did not work; the message says what."""


class Postgres:
    """A private server in a directory of its own, with fsync as it should be, and Perdure in a database of the shop's."""

    def __init__(self, directory: Path) -> None:
        self.server = Server(directory)
        self._lock = threading.Lock()  # whoever cleans up waits for a restart that is under way

    @property
    def dsn(self) -> str:
        """The shop's database, as its plain owner."""
        return self.server.dsn("shop", user="shop")

    def start(self) -> None:
        """Make the server and the database; install Perdure as its owner."""
        with self._lock:
            self.server.start()
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute("create role shop login")
            conn.execute(sql.SQL("create database shop owner shop"))
        with psycopg.connect(self.dsn) as conn:
            install(conn)

    def restart(self) -> None:
        """Stop the server as a crash would, and start it again."""
        with self._lock:
            self.server.restart("immediate")

    def stop(self) -> None:
        """Stop the server, whose directory is somebody else's to remove."""
        with self._lock:
            self.server.stop("fast")


class Program:
    """A process of ours: this Python, one of our modules, its output in a file."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.is_stopped = False
        """Whether we ended it, or are about to."""
        path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, "PYTHONPATH": path, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which then stops its processes
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill it with -9."""
        self.is_stopped = True
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        self.is_stopped = True
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self.kill()


class Worker(Program):
    """A worker, started with the command that everybody uses."""

    def __init__(self, number: int, name: str, environment: dict[str, str], log: Path) -> None:
        super().__init__(name, ["-m", "perdure.cli", "worker", "orders.flows:app", "--name", name], environment, log)
        self.number = number
        self.started = time.monotonic()


class Processes:
    """The payment server and the workers."""

    def __init__(self, directory: Path, dsn: str, *, faults: float, seed: int) -> None:
        self.book = directory / "payments.sqlite"
        self.workers: dict[int, Worker] = {}
        self._directory = directory
        self._dsn = dsn
        self._started = 0
        self._payments: Program | None = None
        self._payments_url = ""
        self._payments_options = [str(self.book), "--faults", str(faults), "--seed", str(seed)]

    async def start_payments(self) -> None:
        """Start the payment server and wait for the address that it prints."""
        log = self._directory / "payments.log"
        self._payments = Program("payments", ["-m", "orders.payments", *self._payments_options], {}, log)
        while not self._payments_url.endswith("\n"):
            await asyncio.sleep(0.02)
            if not self._payments.is_running:
                raise DemoFailed(f"the payment server did not start:\n{log.read_text()}")
            self._payments_url = log.read_text()

    def start_worker(self, number: int) -> None:
        """Start a worker in a process of its own; it may be one that was killed."""
        self._started += 1
        environment = {"PERDURE_DSN": self._dsn, "PAYMENTS_URL": self._payments_url.strip()}
        log = self._directory / f"worker-{number}.log"
        self.workers[number] = Worker(number, f"worker {number}, process {self._started}", environment, log)

    def busy_workers(self) -> list[Worker]:
        """Workers that have been up for a while, so that it hurts to lose them; else any."""
        workers = [self.workers[number] for number in sorted(self.workers)]
        return [worker for worker in workers if time.monotonic() - worker.started > 2.5] or workers

    def check(self) -> None:
        """Raise when a program has ended that nobody ended; start a worker again that found no server, as a service manager does."""
        for number, worker in list(self.workers.items()):
            if worker.exit_code == NO_SERVER and not worker.is_stopped:
                self.start_worker(number)
        for program in self._all():
            if not (program.is_running or program.is_stopped):
                raise DemoFailed(f"{program.name} ended by itself:\n{program.log.read_text()[-4000:]}")

    def stop(self) -> None:
        """Stop the workers gracefully, then the payment server."""
        for program in self._all():
            program.stop()

    def kill(self) -> None:
        """Kill whatever still runs."""
        for program in self._all():
            program.kill()

    def _all(self) -> list[Program]:
        return [*self.workers.values(), *([self._payments] if self._payments else [])]


@dataclass
class Kill:
    """One worker killed, and what became of the runs that it held."""

    worker: int
    pid: int
    at: float
    """Seconds since the demo's start."""
    killed_at: datetime
    held: list[UUID] = field(default_factory=list)
    recovered_after: float | None = None
    """Seconds until the last of its runs was in another worker's hands, or had ended."""
    claims: dict[UUID, tuple[datetime, str]] = field(default_factory=dict)
    """When and by which worker each was taken over, as far as it was seen."""
    suspects: set[UUID] = field(default_factory=set)
    """Runs that had lost two workers in a row without progress: these are claimed one at a time."""

    def note_claims(self, rows: Iterable[tuple[UUID, datetime | None, str | None, int]]) -> None:
        """Note who took the runs over: the first one that is seen."""
        for run_id, claimed_at, worker, recoveries in rows:
            if recoveries >= 2:
                self.suspects.add(run_id)
            if claimed_at is not None and worker is not None:
                self.claims.setdefault(run_id, (claimed_at, worker))

    @property
    def first_after(self) -> float | None:
        """Seconds until the first of its runs was in another worker's hands."""
        if not self.claims:
            return self.recovered_after
        return (min(at for at, _ in self.claims.values()) - self.killed_at).total_seconds()


@dataclass
class Restart:
    """The crash of Postgres; all in seconds."""

    at: float
    """Since the demo's start."""
    down: float
    next_step_after: float | None = None


class Chaos:
    """Kills workers at random moments and restarts Postgres once."""

    def __init__(self, postgres: Postgres, processes: Processes, view: View, *, seed: int) -> None:
        self.kills: list[Kill] = []
        self.restarts: list[Restart] = []
        self._postgres = postgres
        self._processes = processes
        self._view = view
        self._random = random.Random(seed)
        self._watches: list[asyncio.Task[None]] = []

    async def reign(self, kills: int, seconds: float) -> None:
        """Spread the kills over this time at random, with the restart in the middle; return when all is recovered."""
        part = seconds / max(kills, 1)
        moments = [((n + self._random.uniform(0.1, 0.7)) * part, self._kill) for n in range(kills)]
        moments.append((seconds / 2, self._restart))
        begin = time.monotonic()
        async with Patient(self._postgres.dsn) as shop:
            for moment, act in sorted(moments, key=lambda planned: planned[0]):
                await asyncio.sleep(begin + moment - time.monotonic())
                await act(shop)
            await asyncio.gather(*self._watches)

    async def _kill(self, shop: Patient) -> None:
        worker = await self._victim(shop)
        number = worker.number
        worker.kill()
        at = self._view.seconds

        async def look(conn: AsyncConnection) -> Kill:
            now = await _value(conn, "select clock_timestamp()")
            held = await conn.execute(HELD, [worker.name])
            return Kill(number, worker.pid, at, now, [run_id for (run_id,) in await held.fetchall()])

        kill = await shop.do(look)
        self.kills.append(kill)
        self._view.kills += 1
        self._view.tell(f"kill -9 worker {number} (pid {kill.pid}), which held {len(kill.held)} runs")
        self._watches.append(asyncio.create_task(self._watch(shop, kill)))
        self._processes.start_worker(number)

    async def _victim(self, shop: Patient) -> Worker:
        """Choose a worker with runs in its hands, if one has any within a few seconds: else its death shows nothing."""
        give_up = time.monotonic() + 5
        while True:
            worker = self._random.choice(self._processes.busy_workers())
            if await shop.do(partial(_value, query=HELD, parameter=worker.name)) or time.monotonic() > give_up:
                return worker
            await asyncio.sleep(0.02)

    async def _watch(self, shop: Patient, kill: Kill) -> None:
        """Wait until every run that it held is in other hands, or has ended there."""

        async def look(conn: AsyncConnection) -> list[tuple[UUID, datetime | None, str | None, int]]:
            return await (await conn.execute(CLAIMED_AGAIN, [kill.held, kill.killed_at])).fetchall()

        while len(again := await shop.do(look)) < len(kill.held):
            kill.note_claims(again)
            await asyncio.sleep(0.02)
        kill.note_claims(again)
        kill.recovered_after = self._view.seconds - kill.at
        if kill.held:
            self._view.tell(f"the runs of pid {kill.pid} go on elsewhere, {kill.recovered_after:.1f} s after the kill")

    async def _restart(self, shop: Patient) -> None:
        at, began = time.monotonic(), self._view.seconds
        self._view.tell("Postgres: pg_ctl restart --mode immediate")
        await asyncio.to_thread(self._postgres.restart)
        server_back = await shop.do(lambda conn: _value(conn, "select clock_timestamp()"))
        restart = Restart(began, time.monotonic() - at)
        self.restarts.append(restart)
        self._view.tell(f"Postgres is back after {restart.down:.1f} s")
        self._watches.append(asyncio.create_task(self._watch_steps(shop, restart, server_back)))

    async def _watch_steps(self, shop: Patient, restart: Restart, server_back: datetime) -> None:
        while not await shop.do(lambda conn: _value(conn, SAVED_SINCE, server_back)):
            await asyncio.sleep(0.02)
        restart.next_step_after = self._view.seconds - restart.at
        self._view.tell(f"steps are saved again, {restart.next_step_after:.1f} s after the crash")


async def _value(conn: AsyncConnection, query: Any, parameter: object = None) -> Any:
    rows = await (await conn.execute(query, None if parameter is None else [parameter])).fetchall()
    return rows[0][0] if rows else None
