"""The database's clock goes forward by an hour under a running worker."""

from __future__ import annotations

import pytest

from support.database import eventually
from support.scene import Scene

pytestmark = pytest.mark.slow


def test_a_jump_forward_declares_nobody_dead_who_beats(scene: Scene) -> None:
    scene.worker(lease="5")
    scene.wait_registered(1)
    [worker_id] = scene.row("select worker_id from perdure.worker")
    scene.start("long", "k")
    eventually(lambda: scene.times("k", "think") == 1, seconds=60)
    scene.database.clock.advance(hours=1)
    scene.wait_completed(1, seconds=60)
    assert scene.times("k", "think") == 1, "its step was taken from a worker that lives"
    assert scene.row("select worker_id from perdure.worker") == (worker_id,)
