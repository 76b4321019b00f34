"""The page of the Python package: its program, its commands and its test run as they stand, its defaults are the code's."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from support.database import Database
from support.provision import ROOT

README = (ROOT / "python" / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with the page's Python files."""
    for language, text in BLOCKS:
        if language == "python":
            (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hello.py", "test_hello.py"]
    return tmp_path


def run(project: Path, database: Database, words: Sequence[str]) -> str:
    """Run a command there and return what it printed."""
    done = subprocess.run(
        words, cwd=project, env={**os.environ, "PERDURE_DSN": database.dsn()}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_program_prints_what_it_says_the_second_time_too(project: Path, database: Database) -> None:
    for _ in range(2):
        printed = run(project, database, [sys.executable, "hello.py"]).strip()
        assert f"prints `{printed}`" in README
    assert database.value("select count(*) from perdure.run") == 1


def test_its_test_passes(project: Path, database: Database) -> None:
    assert "1 passed" in run(project, database, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"])


def test_its_commands_work_beside_a_worker(project: Path, database: Database) -> None:
    [commands] = [text for language, text in BLOCKS if language == "sh"]
    run(project, database, [sys.executable, "-m", "perdure.cli", "register", "hello:app"])
    assert "`perdure worker hello:app`" in README
    worker = subprocess.Popen(
        [sys.executable, "-m", "perdure.cli", "worker", "hello:app"], cwd=project, stderr=subprocess.DEVNULL,
        env={**os.environ, "PERDURE_DSN": database.dsn()},
    )  # fmt: skip
    try:
        database.wait_until("select count(*) = 1 from perdure.worker")
        said = []
        for line in commands.splitlines():
            program, *words = shlex.split(line)
            assert program == "perdure"
            said.append(run(project, database, [sys.executable, "-m", "perdure.cli", *words]))
        assert 'workflow "greet" with key "bob"' in said[1] and "accepted" in said[2] and "1 live worker" in said[5]
        database.wait_until("select count(*) = 1 from perdure.outcome where status = 'completed'")
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0


def test_its_programs_pass_mypy_strict(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(project / "cache"), "hello.py", "test_hello.py"],
        cwd=project, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_defaults_in_its_table_are_those_of_the_code() -> None:
    known: dict[str, Any] = {"timedelta": timedelta}
    seen = 0
    for owner, options in re.findall(r"^\| `([\w.]+)` \| (`.*?) \|", README, flags=re.MULTILINE):
        named: Any = perdure
        for word in owner.split("."):
            named = getattr(named, word)
        parameters = inspect.signature(named).parameters
        for name, default in re.findall(r"`(\w+)=(.*?)`", options):
            assert parameters[name].default == eval(default, known), (owner, name)
            seen += 1
    assert seen > 15
