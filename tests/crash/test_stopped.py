"""Workers are stopped with SIGSTOP beyond their lease, wherever they are, and then go on: they change nothing more.

Their runs have ended elsewhere meanwhile, and nobody waited for a lock because of them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from support.database import Database, eventually, in_background
from support.effects import exact
from support.nursery import Doomed, Nursery
from support.scene import Scene

# Where it is stopped: idle, or at a call of the protocol. Before its COMMIT only where the transaction is the worker's.
IN_TRANSACTION = {
    "claim_runs:1": "order",
    "save_steps:1": "order",
    "fail_steps:1": "order",
    "suspend_runs:1": "order",
    "suspend_runs_keep:1": "heard",
    "complete_runs:1": "order",
    "fail_runs:1": "failing",
    "save_transaction_step:1": "order",
    "save_transaction_step:2": "ledger",
}
ALONE = {"beat:2": "longer", "tick:1": "longer"}
PLACES = {
    **{f"{moment}:{call}": flow for moment in ("before_sent", "after_commit") for call, flow in ALONE.items()},
    **{
        f"{moment}:{call}": flow
        for moment in ("before_sent", "before_commit", "after_commit")
        for call, flow in IN_TRANSACTION.items()
    },
}

TICK = "select perdure.tick()"


def is_stopped(worker: Doomed) -> bool:
    """Whether the process stands still."""
    return Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def nobody_waits(database: Database) -> Iterator[None]:
    """Look on all the while, and fail if any session of the database was ever seen waiting for a lock."""
    seen: set[tuple[str, str]] = set()
    looks, is_over = 0, threading.Event()

    def look() -> None:
        nonlocal looks
        with psycopg.connect(database.dsn(database.superuser), autocommit=True) as conn:
            while not is_over.wait(0.01):
                seen.update(
                    conn.execute(
                        "select application_name, query from pg_stat_activity"
                        " where wait_event_type = 'Lock' and datname = current_database()"
                    )
                )
                looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert looks > 10
    assert not seen


@pytest.mark.slow
def test_stopped_workers_hold_up_nobody_and_change_nothing_when_they_go_on(scene: Scene) -> None:
    nursery = Nursery(scene.database.dsn())
    try:
        workers: dict[str, Doomed] = {}
        runs: dict[str, UUID] = {}
        for place, workflow in {**PLACES, "idle": "order"}.items():
            if place != "idle":
                runs[place] = scene.start(workflow, place, paid=workflow in ("order", "heard"), queue=place)
            there = None if place == "idle" else place
            variables = {"queue": place, "name": place, "lease": "2", "stop_there": "1", "tick": TICK}
            workers[place] = nursery.worker(there, variables)
        scene.database.wait_until("select exists (select from perdure.worker where name = 'idle')", seconds=60)
        os.kill(workers["idle"].pid, signal.SIGSTOP)
        for place, worker in workers.items():
            eventually(lambda worker=worker: is_stopped(worker), seconds=60, what=f"worker {place} stops")
        known = [worker_id for (worker_id,) in scene.database.admin.execute("select worker_id from perdure.worker")]

        with nobody_waits(scene.database):
            for _ in range(2):
                nursery.worker(variables={"queue": ",".join([*PLACES, "default"])})
            client = scene.start("slow", "meanwhile")
            assert scene.result(client, 60) == "meanwhile/2"
            eventually(lambda: scene.row("select count(*) = 0 from perdure.dispatch")[0], seconds=90, what="all ends")
            eventually(
                lambda: scene.row("select count(*) = 0 from perdure.worker where worker_id = any(%s)", known)[0],
                seconds=60,
                what="the deaths of all that stand still",
            )
        scene.check()
        statuses = dict(scene.database.admin.execute("select run_id, status from perdure.outcome").fetchall())
        for place, workflow in PLACES.items():
            assert statuses[runs[place]] == ("failed" if workflow == "failing" else "completed"), place
        ended = [row for row in exact(scene.database.admin) if row[0] in ("run", "step", "outcome", "act", "signal")]
        ran = scene.row("select count(*) from public.trace where step = 'book'")[0]

        for worker in workers.values():
            worker.kill(signal.SIGCONT)
        eventually(
            lambda: (
                scene.row("select count(distinct name) from perdure.worker where name = any(%s)", list(workers))[0]
                == len(workers)
            ),
            seconds=90,
            what="all register anew",
        )
        assert [w.code for w in workers.values()] == [None] * len(workers)
        again = {place: scene.start("ledger", f"again {place}", queue=place) for place in workers}
        for place, run_id in again.items():
            assert scene.result(run_id, 60) == [f"booked again {place}/{n}" for n in range(3)]
        mine = {str(run_id) for run_id in again.values()}
        now = [row for row in exact(scene.database.admin) if row[0] in ("run", "step", "outcome", "act", "signal")]
        assert [row for row in now if not any(run_id in row[1] for run_id in mine)] == ended
        assert scene.row("select count(*) from public.trace where step = 'book' and key not like 'again%%'")[0] == ran
        assert scene.row("select count(*) = count(distinct key) from public.trace where step = 'book'")[0]
        scene.check()
    finally:
        nursery.close()


@pytest.mark.slow
def test_a_worker_that_is_stopped_in_the_users_own_sql_gives_up_the_users_rows(scene: Scene) -> None:
    database = scene.database
    database.connect().execute("create table public.stock as select 'pen' as item, 0 as n")
    run_id = scene.start("locking", "pen")
    frozen = Doomed(scene.worker(lease="1", tick=TICK).pid)
    database.wait_until("select exists (select from public.trace where step = 'lock_row')", seconds=60)
    waiting = in_background(database.connect().execute, "update public.stock set n = n + 10 where item = 'pen'")
    eventually(lambda: is_stopped(frozen), seconds=60, what="the worker stops")
    assert waiting.result(timeout=60).rowcount == 1
    scene.worker(lease="1", tick=TICK)
    assert scene.result(run_id, 60) == "pen"
    scene.check()

    known = database.value("select clock_timestamp()")
    frozen.kill(signal.SIGCONT)
    database.wait_until("select exists (select from perdure.worker where registered_at > %s)", known, seconds=60)
    assert database.value("select n from public.stock") == 11
    assert database.value("select count(*) from perdure.step_attempt") == 0
    scene.check()
