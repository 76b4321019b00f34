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
from support.engine import Worker


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
    return Worker(database, name="by hand")


@pytest.fixture
def order(database: Database) -> str:
    """A workflow that is known."""
    database.connect().execute("select perdure.put_workflow('order')")
    return "order"
