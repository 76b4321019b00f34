"""The README's blocks run as they stand, on a database that has Perdure and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from support.database import Database
from support.provision import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def block(language: str, beginning: str) -> str:
    """Return the one block of a language that holds these words."""
    found = [text for name, text in BLOCKS if name == language and beginning in text]
    assert len(found) == 1, f"{len(found)} blocks of {language} hold {beginning!r}"
    return found[0]


def psql(database: Database, text: str) -> str:
    """Run a script as psql does when a person types it, stopping at the first error."""
    done = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database.dsn()],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_psql_drives_the_run_of_the_quickstart(database: Database) -> None:
    printed = psql(database, block("sql", "perdure.put_workflow"))
    assert [line for line in printed.splitlines() if line in ("saved", "suspended", "accepted", "done", '"done"')] == [
        "saved", "suspended", "accepted", "done", '"done"',
    ]  # fmt: skip
    assert "|hello" in printed  # its history


def test_roles_are_granted_as_it_says(database: Database) -> None:
    database.server.create_role("web")
    psql(database, "select perdure.grant_role('web', 'client');")
    assert "perdure.grant_role('web', 'client')" in block("sql", "enable_cron")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect("web").execute("select * from perdure.run")


def test_a_restored_database_is_held_and_adopted_as_it_says(database: Database) -> None:
    psql(database, block("sql", "perdure.adopt"))
    assert database.value("select array_agg(act order by audit_id) from perdure.audit") == ["hold", "adopt"]


def test_the_program_of_the_quickstart_runs(database: Database, tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(block("python", "# shop.py"))
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PERDURE_DSN": database.dsn()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "shipped shipped\n"


def test_its_programs_pass_mypy_strict(tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(block("python", "# shop.py"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout


def test_what_it_names_is_there() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
