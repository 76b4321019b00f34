"""Connections are cut and servers killed while workers and clients are at work: what was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import psycopg_pool
import pytest

import perdure
from support.database import eventually
from support.flows import PAID, ledger, order
from support.nursery import Nursery
from support.proxy import Proxy
from support.scene import Scene

pytestmark = pytest.mark.slow

LOST = (psycopg.OperationalError, psycopg_pool.PoolTimeout, psycopg.errors.ReadOnlySqlTransaction)


@dataclass
class Talk:
    """What a client was told; it asks again, with the same key or id, until it is answered."""

    runs: dict[str, UUID] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    lost: int = 0
    is_over: bool = False

    def hold(self, dsn: str, runs: int) -> threading.Thread:
        """Talk in a thread of its own."""
        thread = threading.Thread(target=lambda: asyncio.run(self._talk(dsn, runs)), name="client")
        thread.start()
        return thread

    async def _talk(self, dsn: str, runs: int) -> None:
        client = perdure.App(dsn)
        for n in range(runs):
            workflow, key = (order, f"order{n}") if n % 2 else (ledger, f"ledger{n}")
            handle = await self._insist(lambda: client.start(workflow, key, key=key))  # noqa: B023
            self.runs[key] = handle.id
            if n % 2:
                self.answers.append(await self._insist(lambda: handle.signal(PAID, 7, id="once")))  # noqa: B023
        self.is_over = True

    async def _insist(self, ask):  # type: ignore[no-untyped-def]
        while True:
            try:
                return await ask()
            except LOST:  # noqa: PERF203
                self.lost += 1
                await asyncio.sleep(0.05)


def check(scene: Scene, talk: Talk, runs: int) -> None:
    """All that was acknowledged is there, and took effect once."""
    assert dict(scene.database.admin.execute("select key, run_id from perdure.run").fetchall()) == talk.runs
    assert scene.row("select count(*), count(*) filter (where status = 'completed') from perdure.outcome") == (
        runs,
        runs,
    )
    for key, run_id in talk.runs.items():
        result = scene.result(run_id)
        if key.startswith("ledger"):
            assert result == [f"booked {key}/{n}" for n in range(3)]
        else:
            assert result == [f"reserved {key}", f"booked {key}", "worked", "7", f"shipped {key}"]
    booked = runs // 2 * 3 + runs // 2
    assert scene.row("select count(*), count(distinct key) from public.trace where step = 'book'") == (booked, booked)
    assert scene.row("select count(*), count(distinct (run_id, key)) from perdure.step") == (
        runs // 2 * 3 + runs // 2 * 6,
        runs // 2 * 3 + runs // 2 * 6,
    )
    assert scene.row("select count(*) from perdure.signal")[0] == runs // 2
    assert set(talk.answers) <= {"accepted", "duplicate", "finished"}
    scene.check()


def finished(scene: Scene, talk: Talk, runs: int) -> bool:
    """Whether the client has been answered in everything and all runs have ended."""
    return talk.is_over and scene.row("select count(*) = %s from perdure.outcome", runs)[0]


@pytest.mark.parametrize("seed", range(3))
def test_cuts_at_random_lose_nothing_and_double_nothing(scene: Scene, seed: int) -> None:
    runs = 60
    talk = Talk()
    with Proxy(scene.database.dsn(), seed=seed) as proxy:
        nursery = Nursery(proxy.dsn, {"trace_dsn": scene.database.dsn()})
        try:
            nursery.worker(variables={"max_runs": "10"})
            scene.wait_registered()  # a worker that cannot reach its database at its start ends
            proxy.cut_often(0.04)
            known = scene.row("select array_agg(worker_id) from perdure.worker")
            client = talk.hold(proxy.dsn, runs)
            eventually(lambda: finished(scene, talk, runs), seconds=180, what=f"the end of {runs} runs")
            client.join(60)
            assert min(proxy.cuts.values()) >= 5, proxy.cuts
            check(scene, talk, runs)
            if scene.row("select array_agg(worker_id) from perdure.worker") == known:  # nobody was slow to come back
                plain = (
                    "select count(*), count(distinct (key, step)) from public.trace where step in ('reserve', 'ship')"
                )
                assert scene.row(plain) == (runs, runs), "no step ran twice"
        finally:
            nursery.close()


def test_a_postmaster_that_is_killed_again_and_again_loses_nothing_that_was_acknowledged(own_scene: Scene) -> None:
    scene, server, runs = own_scene, own_scene.database.server.server, 160
    assert scene.row("show fsync") == ("on",)
    talk = Talk()
    nursery = Nursery(scene.database.dsn())
    try:
        for _ in range(2):
            nursery.worker(variables={"max_runs": "5"})
        scene.wait_registered(2)
        known = scene.row("select array_agg(worker_id order by worker_id) from perdure.worker")
        client = talk.hold(scene.database.dsn(), runs)
        for crash in range(5):
            done = 20 * (crash + 1)
            eventually(
                lambda done=done: scene.row("select count(*) >= %s from perdure.outcome", done)[0],
                seconds=90,
                what=f"{done} ends",
            )
            scene.database.close()
            if crash % 2:
                server.stop("immediate")
            else:
                server.kill()
            time.sleep(0.2 * crash)  # for some longer than others
            server.start()
            recovered = server.log.read_text(errors="replace").count("redo starts at")
            assert recovered > crash or "redo is not required" in server.log.read_text(errors="replace")
        eventually(lambda: finished(scene, talk, runs), seconds=180, what=f"the end of {runs} runs")
        client.join(60)
        assert talk.lost > 0, "the client met a server that was away"
        check(scene, talk, runs)
        assert scene.row("select array_agg(worker_id order by worker_id) from perdure.worker") == known, "nobody died"
    finally:
        nursery.close()
        with suppress(psycopg.Error):
            scene.database.close()
