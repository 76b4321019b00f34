"""The bench is run by hand; that it runs at all is proved here, in miniature: no figure is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import __main__ as program
from bench import readme
from bench.lines import lines
from bench.report import Results, markdown, read
from bench.scale import MINIATURE
from bench.scenarios import Scenario
from bench.side import Side
from bench.stage import Stage
from support import provision

_TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_each_line_of_the_table_is_measured_and_told(tmp_path: Path) -> None:
    if provision.own_binaries() is None:
        assert not provision.is_ci(), "there are no binaries for a server of the bench's own"
        pytest.skip("there are no binaries for a server of the bench's own")
    (tmp_path / "README.md").write_text("# A title\n\n## Backups, copies and failover\n")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--scale", "miniature", "--into", tmp_path, "--readme", tmp_path / "README.md"],
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
    first = (tmp_path / "README.md").read_text()
    assert first.index("# A title") < first.index("## How fast") < first.index("## Backups")
    for line in lines(MINIATURE):
        assert not line.short or f"| {line.short}" in first
    readme.write(results, tmp_path / "README.md", tmp_path)
    assert (tmp_path / "README.md").read_text() == first


def test_what_one_scenario_runs_into_is_noted_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(stage: Stage, side: Side) -> dict[str, float]:
        raise OSError("no space left")

    def works(stage: Stage, side: Side) -> dict[str, float]:
        return {"rate": 7.0}

    monkeypatch.setattr(program, "SCENARIOS", (Scenario("one_step", (), breaks), Scenario("protocol", (), works)))
    results = Results("miniature", "make bench", "now", "here", "a server", ["perdure"], {"perdure": "Perdure"}, "0.0")
    program.bench(cast("Stage", SimpleNamespace(scale=MINIATURE)), results, 2, [], tmp_path / "results.json")
    assert [(record.scenario, record.repetition) for record in results.records] == [("protocol", 1), ("protocol", 2)]
    assert results.failures == [f"one_step, Perdure, {n} of 2: OSError" for n in (1, 2)]
    assert "- Not measured: one_step, Perdure, 1 of 2: OSError" in markdown(results)
    assert "| protocol alone, 4 clients, 100 at a time, runs/s | 7.00 (7.00–7.00) |" in markdown(results)
