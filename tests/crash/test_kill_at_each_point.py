"""A run survives kill -9 of its worker at each point of the protocol, and no step but the one in flight runs twice."""

from __future__ import annotations

import pytest

from support.scene import Scene

POINTS = [
    "claim_runs:1",  # the first claim
    "save_steps:1",
    "save_steps:2",
    "fail_steps:1",
    "suspend_runs:1",  # the signal is there: answered at once
    "suspend_runs:2",  # a sleep: suspended
    "claim_runs:2",
    "complete_runs:1",
]


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
@pytest.mark.parametrize("point", POINTS)
def test_a_run_survives_a_kill(scene: Scene, moment: str, point: str) -> None:
    run_id = scene.start("order", "o1", paid=True)
    scene.died(scene.worker(f"{moment}:{point}"))
    scene.worker()
    assert scene.result(run_id) == ["reserved o1", "booked o1", "worked", "7", "shipped o1"]
    ran = {step: scene.times("o1", step) for step in ("reserve", "book", "flaky", "ship")}
    assert ran["book"] == 1, "a transaction step takes effect exactly once"
    assert 2 <= ran["flaky"] <= 3, "one try fails, one works, one may have been in flight"
    assert ran["reserve"] <= 2 and ran["ship"] <= 2
    assert sum(ran.values()) <= 6, "only what was in flight ran twice"
    assert scene.row("select count(*), count(distinct key) from perdure.step where run_id = %s", run_id) == (6, 6)
    scene.check()


def test_a_step_that_runs_at_most_once_is_recorded_as_interrupted(scene: Scene) -> None:
    run_id = scene.start("once", "die")
    scene.died(scene.worker())
    scene.worker()
    assert scene.result(run_id) == "Interrupted"
    assert scene.times("die", "charge") == 1


def test_a_failure_survives_a_kill_at_its_end(scene: Scene) -> None:
    run_id = scene.start("failing", "no")
    scene.died(scene.worker("after_commit:fail_runs"))
    status, error = scene.row("select status, error from perdure.run_results(array[%s::uuid])", run_id)
    assert status == "failed" and error["type"] == "ValueError" and error["message"] == "no"
