"""The command line, typed against a real database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from perdure.cli.root import cli
from support.database import Database


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, read."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Its output by lines."""
        return self.out.splitlines()


class Shell:
    """A directory and an environment in which `perdure` is typed."""

    def __init__(self, directory: Path, dsn: str | None) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "PERDURE_"))
        }
        if (binaries := os.environ.get("PERDURE_PG_BIN")) is not None:
            self.environment["PERDURE_PG_BIN"] = binaries
        if dsn is not None:
            self.environment["PERDURE_DSN"] = dsn

    def command(self, *words: object) -> list[str]:
        """The command line, for tests that start it themselves."""
        return [sys.executable, "-m", "perdure.cli", *map(str, words)]

    @property
    def real(self) -> RealShell:
        """The same, but each command is a process of its own, as it is for people; slower."""
        made = RealShell(self.directory, None)
        made.environment = self.environment
        return made

    def __call__(self, *words: object, input: str | None = None, **environment: str) -> Said:
        """Type a command; it runs in this process."""
        hidden = dict.fromkeys(name for name in os.environ if name.startswith(("PG", "PERDURE_")))
        said = CliRunner().invoke(
            cli,
            list(map(str, words)),
            input=input,
            env={**hidden, **self.environment, **environment},
            catch_exceptions=False,
        )
        return Said(said.exit_code, said.stdout, said.stderr)

    def write(self, name: str, text: str) -> None:
        """Put a module into the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class RealShell(Shell):
    """A shell whose commands are processes of their own."""

    def __call__(self, *words: object, input: str | None = None, **environment: str) -> Said:
        """Type a command and wait for its end."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.directory,
            env={**self.environment, **environment},
            input=input or "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell that knows of no database."""
    return Shell(tmp_path, None)


@pytest.fixture
def perdure(tmp_path: Path, database: Database) -> Shell:
    """A shell whose PERDURE_DSN leads to a database with Perdure in it, as its owner."""
    return Shell(tmp_path, database.dsn())


@pytest.fixture
def worker(database: Database) -> Worker:
    """A worker played by hand."""
    return Worker(database)


class Worker:
    """Claims, saves and ends runs by the functions that a driver calls."""

    def __init__(self, database: Database) -> None:
        self.conn = database.connect()
        self.id = self.call("register_worker", queues=["default"], workflows=["order"], name="by hand")

    def call(self, function: str, **arguments: Any) -> Any:
        """The first column of a function's first row."""
        row = self._run(f"select * from perdure.{function}", arguments)
        return row[0]

    def claim(self) -> dict[str, Any]:
        """Take the next run: its id and claim, as each save carries them."""
        row = self._run("select run_id, claim from perdure.claim_runs", {"worker_id": self.id})
        return {"run_id": str(row[0]), "claim": str(row[1])}

    def save(self, held: dict[str, Any], key: str, ordinal: int, result: Any = None, **fields: Any) -> None:
        """Save a step."""
        save = {**held, "key": key, "kind": "step", "ordinal": ordinal, "result": result, **fields}
        assert self._batch("save_steps", "saves", save, "answer") == "saved"

    def fail(self, held: dict[str, Any], key: str, ordinal: int, attempt: int, **policy: Any) -> str:
        """Report a failed try of a step."""
        error = {"type": "Declined", "message": "card declined", "types": ["Declined", "Exception"]}
        attempted = {
            **held,
            "key": key,
            "kind": "step",
            "ordinal": ordinal,
            "attempt": attempt,
            "error": error,
            "policy": policy,
        }
        answer: str = self._batch("fail_steps", "tries", attempted, "answer")
        return answer

    def suspend(self, held: dict[str, Any], *waits: dict[str, Any]) -> str:
        """Let go of a run until one of its waits is over."""
        answer: str = self._batch("suspend_runs", "suspensions", {**held, "saves": [], "waits": waits}, "answer")
        return answer

    def complete(self, held: dict[str, Any], result: Any) -> None:
        """End a run well."""
        assert self._batch("complete_runs", "ends", {**held, "saves": [], "result": result}, "answer") == "done"

    def fail_run(self, held: dict[str, Any], **error: Any) -> None:
        """End a run badly."""
        assert self._batch("fail_runs", "ends", {**held, "saves": [], "error": error}, "answer") == "done"

    def beat(self, run: str, key: str, since: str) -> None:
        """Tell that a step has been running for long."""
        activity = json.dumps([{"run_id": run, "key": key, "since": since, "progress": None}])
        self._run("select perdure.beat", {"worker_id": self.id, "runs_held": 1, "activity": activity})

    def _batch(self, function: str, argument: str, one: dict[str, Any], column: str) -> Any:
        return self._run(
            f"select {column} from perdure.{function}", {"worker_id": self.id, argument: json.dumps([one])}
        )[0]

    def _run(self, call: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
        named = ", ".join(f"{name} => %({name})s" for name in arguments)
        row = self.conn.execute(f"{call}({named})".encode(), arguments).fetchone()
        assert row is not None
        return tuple(row)


@pytest.fixture
def order(database: Database) -> str:
    """A workflow that is known."""
    database.connect().execute("select perdure.put_workflow('order')")
    return "order"
