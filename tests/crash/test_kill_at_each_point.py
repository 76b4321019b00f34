"""Runs survive kill -9 of their worker at each call of the protocol, and no step but the one in flight runs twice.

All workers of a test die at once, each at its point and with a queue of its own; then others take over what they held.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from support.database import eventually
from support.nursery import Doomed, Nursery
from support.scene import Scene

MOMENTS = ("before_sent", "before_commit", "after_commit")

# What a worker may call and what changes nothing: there is nothing to be interrupted.
LOOKS = frozenset({"run_results", "version"})


@dataclass(frozen=True, slots=True)
class Point:
    """A call of the protocol, and the run in which it comes."""

    function: str
    n: int = 1
    workflow: str = "order"
    disturb: str | None = None
    """What is done to the worker once it holds its run: `disconnect` or `stop`."""
    tick: str | None = None
    """What the worker calls for its ticks."""
    moments: tuple[str, ...] = MOMENTS

    @property
    def name(self) -> str:
        return f"{self.function}:{self.n}"


POINTS = (
    Point("put_workflow"),
    Point("register_worker"),
    Point("worker_lock", workflow="longer", disturb="disconnect"),
    Point("worker_runs", workflow="longer", disturb="disconnect"),
    Point("beat"),
    Point("beat", 2, "slow"),
    Point("listen"),
    Point("unlisten"),
    Point("next_due"),
    Point("claim_runs"),
    Point("claim_runs", 2),
    Point("read_steps", workflow="big"),
    Point("save_steps"),
    Point("save_steps", 2),
    Point("save_transaction_step"),
    Point("save_transaction_step", 2, "ledger"),
    Point("fail_steps"),
    Point("suspend_runs"),  # the signal is there: answered at once
    Point("suspend_runs", 2),  # a sleep: suspended
    Point("suspend_runs_keep", workflow="heard"),
    Point("complete_runs"),
    Point("fail_runs", workflow="failing"),
    Point("release_runs", workflow="longer", disturb="stop"),
    Point("stop_worker", workflow="longer", disturb="stop"),
    Point("tick", workflow="slow", tick="select perdure.tick()"),
    Point("recover", workflow="slow", tick="select perdure.recover()"),
    Point("drain", workflow="slow", tick="select * from perdure.drain()"),
    Point("truncate_wake", workflow="slow", tick="select perdure.truncate_wake()"),
    Point("rotate", workflow="slow", tick="select perdure.rotate()"),
    # it commits by itself, so there is no time before its commit
    Point("run_ticks", workflow="slow", moments=("before_sent", "after_commit")),
)
ENDS = {
    "order": lambda key, _: [f"reserved {key}", f"booked {key}", "worked", "7", f"shipped {key}"],
    "slow": lambda key, _: f"{key}/2",
    "longer": lambda key, _: f"{key}/2",
    "big": lambda *_: ["0", "1", "2", "3", "4"],
    "ledger": lambda key, _: [f"booked {key}/{n}" for n in range(3)],
    "heard": lambda key, result: result if result in ("paid 7", f"thought {key}") else None,
}


@pytest.fixture
def nursery(scene: Scene) -> Iterator[Nursery]:
    """A place where many workers are made quickly."""
    made = Nursery(scene.database.dsn())
    yield made
    made.close()


def disturbed(scene: Scene, point: Point, queue: str, worker: Doomed) -> Callable[[], bool] | None:
    """What to do to the worker once it holds its run; it says whether it was done."""
    is_held = "select exists (select from perdure.dispatch where queue = %s and worker_id is not null)"

    def disconnect() -> bool:
        if not scene.row(is_held, queue)[0]:
            return False
        ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like %s"
        return bool(scene.row(ended, f"perdure worker {queue} %")[0])

    def stop() -> bool:
        if not scene.row(is_held, queue)[0]:
            return False
        worker.kill(signal.SIGTERM)
        return True

    return {"disconnect": disconnect, "stop": stop, None: None}[point.disturb]


def check_end(scene: Scene, point: Point, key: str, run_id: UUID) -> None:
    """The run ended as it would have without a death, and what it did twice was in flight."""
    if point.workflow == "failing":
        status, error = scene.row("select status, error from perdure.run_results(array[%s::uuid])", run_id)
        assert (status, error["type"], error["message"]) == ("failed", "ValueError", key), key
        return
    result = scene.result(run_id)
    assert result == ENDS[point.workflow](key, result), key
    assert scene.row("select count(*) = count(distinct key) from perdure.step where run_id = %s", run_id)[0], key
    most = {"flaky": 3}  # one try fails, one works, one may have been in flight
    ran = dict(
        scene.database.admin.execute(
            "select key || ' ' || step, count(*) from public.trace where key = %s or key like %s || '/%%' group by 1",
            [key, key],
        ).fetchall()
    )
    assert ran or point.workflow == "failing"
    assert all(times <= most.get(step.split()[-1], 2) for step, times in ran.items()), (key, ran)
    assert all(times == 1 for step, times in ran.items() if step.endswith(" book")), (
        "a transaction step is exactly once"
    )
    assert sum(ran.values()) <= len(ran) + 1 + (point.workflow == "order"), (key, "only what was in flight ran twice")


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_runs_survive_a_kill_at_each_call_of_the_protocol(scene: Scene, nursery: Nursery, moment: str) -> None:
    points = {f"{moment}/{point.name}": point for point in POINTS if moment in point.moments}
    runs: dict[str, UUID] = {}
    workers: dict[str, Doomed] = {}
    for queue, point in points.items():
        runs[queue] = scene.start(point.workflow, queue, paid=point.workflow in ("order", "heard"), queue=queue)
        variables = {"queue": queue, "name": queue, **({"tick": point.tick} if point.tick else {})}
        workers[queue] = nursery.worker(f"{moment}:{point.name}", variables)
        if act := disturbed(scene, point, queue, workers[queue]):
            eventually(act, seconds=120, what=f"the run of {queue}")
    for queue, worker in workers.items():
        assert worker.wait() == -signal.SIGKILL, queue
    for _ in range(2):
        nursery.worker(variables={"queue": ",".join(points)})
    eventually(
        lambda: scene.row("select count(*) = 0 from perdure.dispatch")[0], seconds=180, what="the end of all runs"
    )
    for queue, point in points.items():
        check_end(scene, point, queue, runs[queue])
    scene.check()


def test_every_call_of_a_worker_has_its_point(scene: Scene) -> None:
    functions = {
        name
        for (name,) in scene.database.admin.execute(
            "select m.name from perdure._permissions() as m"
            " join pg_proc as p on p.proname = m.name and p.pronamespace = 'perdure'::regnamespace"
            " where 'worker' = any (m.kinds)"
        )
    }
    assert functions - LOOKS == {point.function.removesuffix("_keep") for point in POINTS}


def test_a_step_that_runs_at_most_once_is_recorded_as_interrupted(scene: Scene) -> None:
    run_id = scene.start("once", "die")
    scene.died(scene.worker())
    scene.worker()
    assert scene.result(run_id) == "Interrupted"
    assert scene.times("die", "charge") == 1
