"""The types that users see."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from driver.fake_engine import Store, carry
from driver.typed_program import workflow

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / "python"


async def test_a_typed_program_runs() -> None:
    store = Store()
    row = store.start(workflow, {"id": 1, "user": "u"})
    await carry(store, row, workflow)
    assert row.status == "completed", row.error
    assert row.result == ["h1", "pay/charge 5", "again 6", "h1", 3, None, "late", None]
    row = store.start(workflow, {"id": 1, "user": "late"})
    await carry(store, row, workflow)
    assert row.result == ["sold out"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="needs mypy")
def test_a_typed_program_passes_mypy_strict() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", PYTHON / "pyproject.toml", HERE / "typed_program.py"],
        cwd=PYTHON, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
