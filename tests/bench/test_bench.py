"""The bench is run by hand; that it runs at all is proved here, in miniature: no figure is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.lines import lines
from bench.report import read
from bench.scale import MINIATURE
from support import provision

_TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_each_line_of_the_table_is_measured_and_told(tmp_path: Path) -> None:
    if provision.own_binaries() is None:
        assert not provision.is_ci(), "there are no binaries for a server of the bench's own"
        pytest.skip("there are no binaries for a server of the bench's own")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--scale", "miniature", "--into", tmp_path],
        cwd=_TESTS,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = read(tmp_path / "results.json")
    told = (tmp_path / "results.md").read_text()
    for line in lines(MINIATURE):
        assert len(results.values(line, "perdure")) == 1, line
        assert f"| {line.title}" in told
        assert not line.yardstick or results.ratios(line, "perdure")[0] > 0, line
    assert results.values(next(line for line in lines(MINIATURE) if line.figure == "run_twice"), "perdure") == [0]
