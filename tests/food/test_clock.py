"""The database's clock goes forward and back by an hour under running workers."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import eventually
from support.engine import call
from support.scene import Scene

pytestmark = pytest.mark.slow

JUMPS = (1, -1, -1, 1)
BATCH = 5


def start_and_jump(scene: Scene, prefix: str, hours: int) -> None:
    """Start ledgers and set the clock in one commit: when they are seen, it is another time than that of their start."""
    with psycopg.connect(scene.database.dsn()) as conn:
        for n in range(BATCH):
            key = f"{prefix}/ready {n}"
            call(conn, "start", workflow="ledger", input=Jsonb(key), key=key)
        conn.execute("update perdure_test.clock set ahead = ahead + %s * interval '1 hour'", [hours])


def ended(scene: Scene, workflow: str) -> int:
    count: int = scene.row(
        "select count(*) from perdure.outcome as o join perdure.run as r using (run_id) "
        "where r.workflow = %s and o.status = 'completed'",
        workflow,
    )[0]
    return count


@pytest.mark.parametrize("jumps", [JUMPS, tuple(-hours for hours in JUMPS)], ids=["first forward", "first back"])
def test_a_clock_that_jumps_by_an_hour_kills_nobody_and_holds_up_nobody_who_is_ready(
    scene: Scene, jumps: tuple[int, ...]
) -> None:
    scene.database.clock.now()
    for _ in range(2):
        scene.worker()
    scene.wait_registered(2)
    workers = scene.row("select array_agg(worker_id order by worker_id) from perdure.worker")
    ledgers = orders = 0
    for n, hours in enumerate(jumps):
        for m in range(BATCH):
            scene.start("order", f"{n}/order {m}", paid=True)
        # That the clock was set is seen by whoever ticks: somebody has looked at it where it stands now. And each worker
        # has beaten since: a second jump within one beat is a silence that two looks an hour apart have seen.
        scene.database.wait_until(
            "select bool_and(s.at is not null and abs(extract(epoch from s.at - perdure._now())) < 5) "
            "from (select ticked_at from perdure.timeline union all select beat_at from perdure.worker_beat) as s (at)",
            seconds=60,
        )
        start_and_jump(scene, str(n), hours)
        scene.start("ledger", f"{n}/late")
        ledgers, orders = ledgers + BATCH + 1, orders + BATCH
        eventually(
            lambda so_far=ledgers: ended(scene, "ledger") == so_far, seconds=120, what="the end of what is ready"
        )
    assert scene.row("select array_agg(worker_id order by worker_id) from perdure.worker") == workers, "one was buried"
    # an order sleeps for a moment: where the clock was set back after it had said until when, it waits for that time
    scene.database.clock.advance(hours=2)
    scene.wait_completed(ledgers + orders, seconds=180)
    rows, distinct = scene.row("select count(*), count(distinct key) from public.trace where step = 'book'")
    assert (rows, distinct) == (3 * ledgers + orders,) * 2, "a transaction step took place not once"
    assert scene.row("select count(*) from perdure.step_attempt where attempt > 1")[0] == 0
    assert all(worker.poll() is None for worker in scene.workers)


def test_a_jump_forward_declares_nobody_dead_who_beats(scene: Scene) -> None:
    scene.worker()
    scene.wait_registered(1)
    [worker_id] = scene.row("select worker_id from perdure.worker")
    scene.start("long", "k")
    eventually(lambda: scene.times("k", "think") == 1, seconds=60)
    scene.database.clock.advance(hours=1)
    scene.wait_completed(1, seconds=60)
    assert scene.times("k", "think") == 1, "its step was taken from a worker that lives"
    assert scene.row("select worker_id from perdure.worker") == (worker_id,)
