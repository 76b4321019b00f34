"""A server that goes and comes back takes nothing with it, and no worker dies of it."""

from __future__ import annotations

import time

import pytest

from support.database import eventually
from support.scene import Scene


@pytest.mark.parametrize("way", ["fast", "immediate", "kill"])
def test_a_restart_under_load_loses_nothing(own_scene: Scene, way: str) -> None:
    scene, server = own_scene, own_scene.database.server.server
    scene.start_many("slow", 150)
    scene.worker()
    scene.wait_registered(1)
    [worker_id] = scene.row("select worker_id from perdure.worker")
    eventually(lambda: scene.row("select count(*) > 20 from public.trace")[0], seconds=30)
    scene.database.close()
    if way == "kill":
        server.kill()
    else:
        server.stop("fast" if way == "fast" else "immediate")
    time.sleep(0.5)  # the workers meet a server that is not there
    server.start()
    scene.wait_completed(150)
    assert scene.row("select count(*) from perdure.worker where worker_id = %s", worker_id)[0] == 1, "nobody died of it"
    ran, distinct = scene.row("select count(*), count(distinct key) from public.trace")
    assert distinct == 300
    assert ran <= 300 + 50, "only a trace whose own answer was lost is there twice"
