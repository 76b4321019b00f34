"""A run of a hundred thousand steps, and as many timers as anybody has that are due in the same second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from support.database import Database, eventually
from support.engine import Connection, Worker, scalar, start
from support.scene import Scene

pytestmark = pytest.mark.slow

STEPS = 100_000
TIMERS = int(os.environ.get("PERDURE_TIMERS", "100000"))
CHUNK = 10_000


def save_many(worker: Worker, count: int, batch: int = 2_000) -> None:
    """Claim the run and save so many steps as a worker would have done, then give it back."""
    held = worker.claim_one()
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        saves = [
            held.named(key=f"s{n}", kind="step", ordinal=n + 1, result={"n": n, "text": "x" * 20}) for n in numbers
        ]
        answers = worker.call("save_steps", saves=saves)
        assert {row["answer"] for row in answers} == {"saved"}
    assert worker.release(held) == "done"


def pages(conn: Connection, run_id: UUID) -> list[dict[str, Any]]:
    """Read all checkpoints page by page; none of them may be much larger than was asked."""
    found: list[dict[str, Any]] = []
    while page := scalar(
        conn, "read_steps", run_id=run_id, after=found[-1]["ordinal"] if found else 0, max_bytes=1_048_576
    ):
        assert len(page) < 10_000, "a page holds what it may, not all"
        found += page
    return found


def test_a_run_of_a_hundred_thousand_steps_is_read_in_pages_and_ended_by_a_worker(scene: Scene) -> None:
    conn = scene.database.connect()
    run_id = scene.start("many", str(STEPS))
    save_many(Worker(scene.database, workflows=["many"], conn=conn, lease="1 day"), STEPS)
    found = pages(conn, run_id)
    assert [step["ordinal"] for step in found] == list(range(1, STEPS + 1))
    assert all(step["result"]["n"] == step["ordinal"] - 1 for step in found)
    del found

    process = scene.worker()
    peak = 0

    def look() -> bool:
        nonlocal peak
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
        ended: bool = scene.row("select count(*) = 1 from perdure.outcome")[0]
        return ended

    eventually(look, seconds=600, what="the end of the run")
    assert scene.result(run_id) == [STEPS, sum(range(STEPS))]
    assert scene.times(str(STEPS), "count") == 0, "a step that was saved was executed again"
    assert scene.times(str(STEPS), "last") == 1
    assert peak < 1_000_000, f"the worker needed {peak} kB"
    print(f"{STEPS} steps, {peak} kB at most")  # noqa: T201
    scene.check()


def rows_read(conn: Connection, function: str, *arguments: Any) -> tuple[list[Any], int]:
    """Call a function; return its rows and how many rows of dispatch it read, by index or without."""
    placeholders = ", ".join(["%s"] * len(arguments))
    with conn.transaction():
        before = reads(conn)
        got = conn.execute(f"select * from perdure.{function}({placeholders})".encode(), arguments).fetchall()
        return got, reads(conn) - before


def reads(conn: Connection) -> int:
    row = conn.execute(
        "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relid = 'perdure.dispatch'::regclass"
    ).fetchone()
    assert row is not None
    count: int = row[0]
    return count


def test_timers_that_are_due_in_the_same_second_cost_a_claim_no_more_than_a_few(database: Database) -> None:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    database.clock.stop("2030-01-01 00:00+00")
    for _ in range(0, TIMERS, CHUNK):
        conn.execute(
            "select count(*) from perdure.start_many('order', array_fill('1'::jsonb, array[%s]), "
            "start_at => '2030-01-02 00:00+00')",
            [CHUNK],
        )
    early = start(conn)
    worker = Worker(database, conn=conn, lease="1 day")
    got, read = rows_read(conn, "claim_runs", worker.worker_id, 100)
    assert [row[0] for row in got] == [early]
    assert read < 100, f"a claim read {read} rows beside {TIMERS} that are not due"
    _, read = rows_read(conn, "tick")
    assert read < 100, f"a tick read {read} rows"

    database.clock.stop("2030-01-02 00:00:01+00")
    taken: set[UUID] = set()
    workers = [Worker(database, conn=conn, lease="1 day") for _ in range(2)]
    for n in range(10):
        got, read = rows_read(conn, "claim_runs", workers[n % 2].worker_id, 500)
        ids = {row[0] for row in got}
        assert len(ids) == len(got) == 500
        assert not ids & taken, "a timer rang twice"
        assert 500 <= read < 20 * 500, f"a claim of 500 read {read} rows of {TIMERS} that are due"
        taken |= ids
        assert conn.execute(
            "select bool_and(answer = 'done') from perdure.complete_runs(%s, (select jsonb_agg(jsonb_build_object("
            "'run_id', d.run_id, 'claim', d.claim, 'result', 1)) from perdure.dispatch as d where d.worker_id = %s))",
            [workers[n % 2].worker_id] * 2,
        ).fetchone() == (True,)
    assert database.value("select count(*) from perdure.outcome") == 5_000
    assert database.value("select count(*) from perdure.dispatch") == TIMERS + 1 - 5_000
    _, read = rows_read(conn, "tick")
    assert read < 100, f"a tick read {read} rows"
