"""The demo itself, with few orders: it proves that the books agree, finds a falsified one, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from support.database import eventually
from support.provision import ROOT

pytestmark = pytest.mark.slow


def start_demo(scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the demo as `make demo` does, with its temporary directory in a place of ours."""
    return subprocess.Popen(
        [sys.executable, "-m", "orders", "--orders", "40", "--kills", "2", "--seed", "7", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python" / "examples"), "TMPDIR": str(scratch), "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def scratch() -> Path:
    """A directory of the test's own that Postgres' account can reach, which pytest's are not for root."""
    made = Path(tempfile.mkdtemp(prefix="perdure-test-demo-"))
    made.chmod(0o711)
    return made


def test_the_books_agree_after_kills_and_a_crash(scratch: Path) -> None:
    demo = start_demo(scratch)
    printed, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, printed
    assert "The books agree" in printed
    assert printed.count("kill -9 worker") >= 2 and "Postgres is back" in printed
    assert "One run: order A-" in printed
    scratch.rmdir()  # which also says that it is empty


def test_a_falsified_book_is_found(scratch: Path) -> None:
    demo = start_demo(scratch, "--cheat")
    printed, _ = demo.communicate(timeout=240)
    assert demo.returncode == 1, printed
    assert "The books differ" in printed and "charges at the payment server" in printed
    scratch.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(scratch: Path, number: signal.Signals) -> None:
    demo = start_demo(scratch)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "kill -9 worker" in line:
            break
    pids = {process for process in pids_in(scratch) if process != demo.pid}
    assert len(pids) >= 3  # Postgres, the payment server, a worker
    demo.send_signal(number)
    began = time.monotonic()
    printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, printed
    assert time.monotonic() - began < 15
    eventually(lambda: not pids_in(scratch), what="all processes are gone")
    scratch.rmdir()


def pids_in(directory: Path) -> set[int]:
    """Processes that name the directory in their command line or their environment."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in said:
                found.add(int(process.name))
    return found
