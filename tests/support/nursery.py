"""Many worker processes at once, forked from one that has loaded everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock, Thread

from support.database import eventually
from support.scene import PROGRAM


class Doomed:
    """A worker process, as much of it as a test needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.name = str(pid)
        self.code: int | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        if self.code is None:
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Wait until it has ended; return its exit code, negative for a signal."""
        eventually(lambda: self.code is not None, seconds=seconds, what=f"the end of worker {self.name}")
        assert self.code is not None
        return self.code


def _environment(variables: Mapping[str, str] | None) -> dict[str, str]:
    return {f"PERDURE_{name.upper()}": value for name, value in (variables or {}).items()}


class Nursery:
    """Forks worker processes against one database."""

    def __init__(self, dsn: str, variables: Mapping[str, str] | None = None) -> None:
        self._children: dict[int, Doomed] = {}
        self._born: list[Doomed] = []
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PERDURE_DSN": dsn, **_environment(variables)},
        )
        self._reader = Thread(target=self._read, daemon=True, name="nursery")
        self._reader.start()

    def worker(self, crash_at: str | None = None, variables: Mapping[str, str] | None = None) -> Doomed:
        """Fork a worker; the variables are those of `crashing_worker`, in lower case and without their prefix."""
        told = _environment(variables)
        if crash_at is not None:
            told["PERDURE_CRASH_AT"] = crash_at
        with self._lock:
            count = len(self._born)
            assert self._process.stdin is not None
            print(json.dumps(told), file=self._process.stdin, flush=True)
            eventually(lambda: len(self._born) > count, seconds=60, what="a worker process")
            made = self._born[count]
            made.name = told.get("PERDURE_NAME", made.name)
            return made

    def close(self) -> None:
        """Kill them all."""
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "pid" in told:
                self._children[told["pid"]] = made = Doomed(told["pid"])
                self._born.append(made)
            else:
                self._children[told["ended"]].code = told["code"]
