"""The suite within the suite: tests that hold in another mode too, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from support.provision import ROOT


def run_suite(*words: str, **environment: str) -> None:
    """Run tests named by pytest's own words, with these variables set; fail with what it says where one fails."""
    suite = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            "tests/pytest.ini",
            "--rootdir",
            "tests",
            "-p",
            "no:cacheprovider",
            *words,
        ],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert suite.returncode == 0, suite.stdout[-8000:] + suite.stderr[-2000:]
