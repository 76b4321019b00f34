"""Where a measurement takes place: databases with a contestant in them, its processes, and what all of that has spent."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench import yardstick
from bench.scale import Scale
from bench.server import BenchServer, cpu_ms
from bench.side import Side, WorkOptions

_TESTS = Path(__file__).resolve().parents[1]
_PATIENCE = 120.0
_FILL = 1000


class Stuck(Exception):
    """A contestant does not go on."""


class Process:
    """A process of a contestant's: see `bench.program`."""

    def __init__(self, python: Path, log: Path, side: Side, role: str, arguments: dict[str, Any]) -> None:
        self._log = log
        with log.open("w") as errors:
            self._popen = subprocess.Popen(
                [python, "-m", "bench.program", side.name, role, json.dumps(arguments)],
                cwd=_TESTS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # an interrupted bench ends it itself, after saying what it has
            )

    def answer(self, patience: float = _PATIENCE) -> Any:
        """Wait for a line of what it tells."""
        assert self._popen.stdout is not None
        if select.select([self._popen.stdout], [], [], patience)[0] and (line := self._popen.stdout.readline()):
            return json.loads(line)
        raise Stuck(self.complaint())

    def complaint(self) -> str:
        """Return the end of what it wrote to its standard error."""
        return self._log.read_text(errors="replace")[-2000:] or "it said nothing"

    def go(self) -> None:
        """Let a worker begin that has told that it is ready."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("go\n")
        self._popen.stdin.flush()

    @property
    def cpu_ms(self) -> float:
        """Its CPU time up to now."""
        return cpu_ms(self._popen.pid)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it has gone."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()


@dataclass(frozen=True, slots=True)
class Spent:
    """A moment, how many runs had ended by then, and what had been spent."""

    at: float
    finished: int
    python_ms: float
    postgres_ms: float
    wal: int


class Stage:
    """The server, and how to bring a contestant on it."""

    def __init__(self, server: BenchServer, scale: Scale, peers: Path | None) -> None:
        self.server = server
        self.scale = scale
        self._peers = peers
        self._templates: set[str] = set()
        self._processes = 0
        yardstick.prepare(server)

    def yardstick(self, name: str) -> float:
        """Measure one yardstick now."""
        return yardstick.measure(self.server, name, self.scale.yardstick_seconds)

    @contextmanager
    def database(self, side: Side) -> Iterator[str]:
        """Make a database with the contestant in it; give its URL."""
        template = f"template_{side.name}"
        if template not in self._templates:
            self.server.create(template)
            with self.process(side, "install", dsn=self.server.dsn(template)) as installer:
                installer.answer()
            self._templates.add(template)
        with self.server.database(template) as dsn:
            with psycopg.connect(dsn) as conn:
                conn.execute(side.after_copy.encode())
            yield dsn

    @contextmanager
    def process(self, side: Side, role: str, **arguments: Any) -> Iterator[Process]:
        """Start a process of the contestant's; kill it in the end."""
        python = self._peers if side.is_peer else Path(sys.executable)
        assert python is not None
        self._processes += 1
        process = Process(python, self.server.home / f"log-{self._processes}", side, role, arguments)
        try:
            yield process
        finally:
            process.kill()

    @contextmanager
    def worker(self, side: Side, dsn: str, options: WorkOptions) -> Iterator[Process]:
        """Start a worker process that has loaded all it needs and waits for `go`."""
        with self.process(side, "work", dsn=dsn, **asdict(options)) as process:
            process.answer()
            yield process

    def fill(self, conn: psycopg.Connection[Any], side: Side, workflow: str, count: int) -> None:
        """Start so many runs."""
        for done in range(0, count, _FILL):
            conn.execute(side.fill.encode(), {"workflow": workflow, "count": min(_FILL, count - done)})

    def spent(self, conn: psycopg.Connection[Any], side: Side, workers: Sequence[Process]) -> Spent:
        """Look at what has been done and spent up to now."""
        finished = count(conn, side.finished)
        python_ms = sum(worker.cpu_ms for worker in workers)
        return Spent(time.monotonic(), finished, python_ms, self.server.cpu_ms(), self.server.wal_bytes())

    def until_saved(self, conn: psycopg.Connection[Any], side: Side, wanted: int, workers: Sequence[Process]) -> Spent:
        """Wait until so many steps are saved."""
        until = time.monotonic() + _PATIENCE
        while (saved := count(conn, side.saved)) < wanted:
            if time.monotonic() > until:
                raise Stuck(f"{saved} of {wanted} steps are saved: {workers[0].complaint()}")
            time.sleep(0.01)
        return self.spent(conn, side, workers)

    def until_finished(
        self, conn: psycopg.Connection[Any], side: Side, wanted: int, workers: Sequence[Process]
    ) -> Spent:
        """Wait until so many runs have ended: looking costs CPU too, so it is done more often towards the end only."""
        seen, changed_at, rate = 0, time.monotonic(), 0.0
        while True:
            now = self.spent(conn, side, workers)
            if now.finished >= wanted:
                return now
            if now.finished > seen:
                rate = (now.finished - seen) / (now.at - changed_at)
                seen, changed_at = now.finished, now.at
            elif now.at - changed_at > _PATIENCE:
                raise Stuck(f"{now.finished} of {wanted} runs have ended: {workers[-1].complaint()}")
            time.sleep(min(max((wanted - seen) / rate / 3, 0.01), 0.5) if rate else 0.02)


def count(conn: psycopg.Connection[Any], query: str) -> int:
    """Ask one of a contestant's counting queries."""
    ((found,),) = conn.execute(query.encode())
    return int(found)
