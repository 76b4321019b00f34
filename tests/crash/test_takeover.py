"""Workers of the shortest lease that are declared dead again and again while they work, and never know before."""

from __future__ import annotations

import random
import signal
import time

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support import always_suspend
from support.engine import bury, call
from support.provision import ROOT
from support.scene import Scene

pytestmark = pytest.mark.slow

RUNS, WORKERS = 100, 3
KEYS = ["book", "reserve", "side", "think", "~sleep", "flaky", "paid", "last"]


class Undertaker:
    """Declares a worker dead after each few checkpoints, so that there is progress however slow the machine is."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.random = random.Random(seed)
        self.buried = 0
        self.taken = 0

    def work(self, seconds: float) -> None:
        """Bury workers until all runs have ended."""
        deadline = time.monotonic() + seconds
        bury_at = 10
        while (ended := self.scene.row("select count(*) from perdure.outcome")[0]) < RUNS:
            assert time.monotonic() < deadline, f"{ended} runs of {RUNS} have ended, {self.buried} workers were buried"
            if self.scene.row("select count(*) from perdure.step")[0] >= bury_at and self.bury_one():
                bury_at = self.scene.row("select count(*) from perdure.step")[0] + self.random.randint(0, 6)
            time.sleep(0.005)

    def bury_one(self) -> bool:
        """Declare a worker dead that holds a run, between two of its transactions; false when there is none."""
        row = self.scene.row(
            "select worker_id, count(*) from perdure.dispatch where worker_id in (select worker_id from perdure.worker)"
            " group by worker_id order by random() limit 1"
        )
        if row is None:
            return False
        admin = self.scene.database.admin
        with admin.transaction():
            admin.execute("select from perdure.worker where worker_id = %s for update", [row[0]])
            bury(self.scene.database, row[0])
        if self.scene.row("select exists (select from perdure.worker where worker_id = %s)", row[0])[0]:
            return False
        self.buried += 1
        self.taken += row[1]
        return True


@pytest.mark.parametrize("mode", ["ordinary", "always suspending"])
def test_workers_that_are_declared_dead_all_the_time_lose_nothing_and_do_nothing_twice(
    scene: Scene, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "always suspending":
        monkeypatch.setenv(always_suspend.VARIABLE, "1")
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "support" / "first"))
    names = [f"p{n}" for n in range(RUNS)]
    with psycopg.connect(scene.database.dsn()) as conn:
        call(conn, "put_workflow", name="parcel", max_recoveries=1000)
        rows = call(conn, "start_many", workflow="parcel", inputs=[Jsonb(name) for name in names])
        for row in rows[: RUNS // 2]:  # the others' come while they work, or long before they are waited for
            conn.execute("select perdure.signal(%s, 'paid', '7', 'once')", [row["run_id"]])
    workers = [scene.worker(lease="1", max_runs="5") for _ in range(WORKERS)]
    scene.database.wait_until("select exists (select from perdure.step)", seconds=60)
    for row in rows[RUNS // 2 :]:
        scene.row("select perdure.signal(%s, 'paid', '7', 'once')", row["run_id"])

    undertaker = Undertaker(scene, seed=1)
    undertaker.work(seconds=400)

    assert undertaker.buried >= 20 and undertaker.taken >= 40
    scene.wait_completed(RUNS)
    results = scene.database.admin.execute(
        "select r.input #>> '{}', o.result from perdure.run as r join perdure.outcome as o using (run_id)"
    ).fetchall()
    assert dict(results) == {
        name: [
            f"booked {name}/first", f"reserved {name}", f"booked {name}/side", name, "worked", "paid", f"booked {name}/last",
        ]
        for name in names
    }  # fmt: skip
    booked = "select count(*), count(distinct key) from public.trace where step = 'book'"
    assert scene.row(booked) == (3 * RUNS, 3 * RUNS), "a transaction step takes effect exactly once"
    recorded = "select count(*), count(distinct (run_id, key)), array_agg(distinct key) from perdure.step"
    assert scene.row(recorded) == (len(KEYS) * RUNS, len(KEYS) * RUNS, sorted(KEYS))
    for worker in workers:
        assert worker.poll() is None, "no worker ended of it"
        worker.send_signal(signal.SIGTERM)
    assert [worker.wait(40) for worker in workers] == [0] * WORKERS
