"""A run killed after each of its checkpoints does what it does when it is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.database import Database, eventually


def record(database: Database, key: str) -> list[tuple[Any, ...]]:
    """Return key and kind of what is on record of a key's run, in its order; last, under no key, how it ended."""
    return database.admin.execute(
        """
        select x.key, x.kind
        from (
          select s.key, s.kind, s.ordinal
          from perdure.steps as s join perdure.runs as r using (run_id)
          where r.key = %s and s.ordinal is not null
          union all
          select '', r.state, null from perdure.runs as r where r.key = %s and r.finished_at is not null
        ) as x
        order by x.ordinal
        """,
        [key, key],
    ).fetchall()


class Program:
    """A worker process of `MODULE:APP` in a folder, to be killed."""

    def __init__(self, database: Database, folder: Path, app: str) -> None:
        self._database = database
        self._command = [sys.executable, "-m", "perdure.cli", "worker", app]
        self._folder = folder

    def until(self, seen: Callable[[], bool]) -> None:
        """Work until something is seen, then get SIGKILL."""
        with subprocess.Popen(
            self._command,
            cwd=self._folder,
            env={**os.environ, "PERDURE_DSN": self._database.dsn()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as worker:
            try:
                eventually(seen, seconds=60)
            finally:
                worker.kill()


def compare(database: Database, program: Program, begin: Callable[[str], None]) -> list[str]:
    """Begin two runs, kill one after each checkpoint, and return the keys on which both agree."""

    def has_ended(key: str) -> bool:
        return any(row[0] == "" for row in record(database, key))

    begin("alone")
    program.until(lambda: has_ended("alone"))
    alone = record(database, "alone")

    begin("killed")
    for saved in range(1, len(alone)):
        program.until(lambda saved=saved: len(record(database, "killed")) >= saved)  # type: ignore[misc]
    program.until(lambda: has_ended("killed"))
    assert record(database, "killed") == alone
    return [row[0] for row in alone if row[0]]
