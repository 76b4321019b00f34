"""Workflow code that never awaits holds up its worker, which says so and can still be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.database import Database, eventually

PROGRAM = """
import time
import perdure

app = perdure.App()

@app.workflow()
async def frozen(run: perdure.AsyncRun, input: None) -> None:
    while True:
        time.sleep(0.1)
"""


def test_a_worker_that_its_own_code_freezes_names_the_run_and_ends_at_the_second_signal(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    conn = database.connect()
    conn.execute("select perdure.put_workflow('frozen')")
    run_id = database.value("select perdure.start('frozen')")
    log = tmp_path / "log"
    with log.open("w") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "worker", "program:app"],
            cwd=tmp_path,
            env={**os.environ, "PERDURE_DSN": database.dsn()},
            stdout=out,
            stderr=out,
        )
    try:
        eventually(lambda: f"run {run_id}: its own code has run for" in log.read_text(), seconds=30)
        eventually(
            lambda: any("without an await" in line for (line,) in conn.execute("select perdure.explain(%s)", [run_id])),
            seconds=30,
        )

        def has_ended() -> bool:
            worker.send_signal(signal.SIGTERM)  # two at once may arrive as one
            return worker.poll() is not None

        eventually(has_ended, seconds=30)
        assert worker.returncode == 1
    finally:
        worker.kill()
        worker.wait()
