"""Run pgbench, with statements prepared."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Bout:
    """What pgbench measured."""

    rate: float
    """Scripts a second."""
    count: int
    """Scripts in all."""
    seconds: Sequence[float]
    """Scripts a second, second by second."""

    @property
    def settled(self) -> float:
        """Scripts a second after the first second, in which each session makes its plans."""
        rest = self.seconds[1:]
        return sum(rest) / len(rest) if rest else self.rate


class PgbenchFailed(Exception):
    """A statement failed."""


def pgbench(
    bin: Path, dsn: str, script: str, *, clients: int, seconds: float | None = None, each: int | None = None
) -> Bout:
    """Run a script with so many clients, for so many seconds or so many times each."""
    limit = ["-T", str(max(1, round(seconds)))] if seconds is not None else ["-t", str(each)]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        threads = min(clients, os.cpu_count() or 1)
        command: list[str | Path] = [
            bin / "pgbench",
            "-n",
            "-M",
            "prepared",
            "-P",
            "1",
            "-c",
            str(clients),
            "-j",
            str(threads),
        ]
        done = subprocess.run(
            [*command, *limit, "-f", file.name, dsn], capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    count = re.search(r"actually processed: (\d+)", done.stdout)
    if done.returncode != 0 or rate is None or count is None:
        raise PgbenchFailed(done.stderr[-2000:])
    progress = [float(tps) for tps in re.findall(r"^progress: [\d.]+ s, ([\d.]+) tps", done.stderr, re.MULTILINE)]
    return Bout(float(rate[1]), int(count[1]), progress)
