"""Golden files: what is committed must be what comes out; PERDURE_WRITE=1 writes it anew."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def same_as_golden() -> Callable[[Path, str, str], None]:
    """Compare with a committed file, or write it when asked to."""

    def compare(path: Path, text: str, command: str) -> None:
        if os.environ.get("PERDURE_WRITE"):
            path.write_text(text)
            return
        kept = path.read_text() if path.exists() else ""
        change = "".join(difflib.unified_diff(kept.splitlines(True), text.splitlines(True), "committed", "now", n=2))
        assert not change, f"{path.name} is not what comes out; if the change is meant: {command}\n{change[:8000]}"

    return compare
