"""A worker whose clock is not the database's, and a database whose clock is set while a worker works."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

import perdure
from perdure._beat import Beat, Registration
from perdure._clock import Clock
from perdure._connect import Connector
from perdure._registry import Workflow
from perdure._sql import Schema
from support.database import Database, eventually

SECONDS = timedelta(seconds=1)


def test_between_two_clocks_that_agree_nothing_is_moved() -> None:
    clock = Clock()
    assert not clock.heard(100.5, 100.0, 101.0)
    assert clock._ahead == 0.0
    assert not clock.heard(100.0, 100.0, 110.0)
    assert clock._ahead == 0.0


def test_a_clock_is_moved_only_by_an_answer_that_contradicts_it_and_is_never_ahead_then() -> None:
    clock = Clock()
    assert clock.heard(3_700.0, 100.0, 102.0)
    assert clock._ahead == 3_598.0
    assert not clock.heard(3_708.0, 109.5, 110.5), "it fits"
    assert clock._ahead == 3_598.0
    assert clock.heard(120.0, 119.0, 121.0)
    assert clock._ahead == -1.0, "a slow answer is no reason to end early what was promised to last"
    assert not clock.heard(122.0, 121.9, 122.1)
    assert clock._ahead == pytest.approx(-0.1)


async def advance(database: Database, hours: int) -> None:
    await asyncio.to_thread(database.clock.advance, hours=hours)


def racing(database: Database) -> tuple[perdure.App, Any, asyncio.Event]:
    app = perdure.App(database.dsn())
    is_thinking = asyncio.Event()

    async def think() -> str:
        is_thinking.set()
        await asyncio.Event().wait()
        return "never"

    @app.workflow()
    async def race(run: perdure.AsyncRun, seconds: float) -> str:
        winner, _ = await run.race(slept=run.sleep(timedelta(seconds=seconds)), thought=run.step(think))
        return winner

    return app, race, is_thinking


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
async def test_a_time_out_beside_a_step_is_heard_wherever_the_clocks_stand(database: Database, hours: int) -> None:
    await advance(database, hours)
    app, race, _ = racing(database)
    async with app.worker():
        handle = await app.start(race, 1.5)
        assert await handle.result(timeout=60 * SECONDS) == "slept"


async def test_a_time_out_beside_a_step_is_heard_when_the_database_comes_to_it_at_once(database: Database) -> None:
    app, race, is_thinking = racing(database)
    await advance(database, 0)
    async with app.worker():
        handle = await app.start(race, 3600)
        await asyncio.wait_for(is_thinking.wait(), 60)
        await advance(database, 1)
        assert await handle.result(timeout=60 * SECONDS) == "slept"


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
async def test_a_back_off_lasts_as_long_as_was_asked_wherever_the_clocks_stand(database: Database, hours: int) -> None:
    await advance(database, hours)
    app = perdure.App(database.dsn())

    async def fail() -> None:
        raise OSError("no")

    @app.workflow()
    async def failing(run: perdure.AsyncRun, n: int) -> None:
        retry = perdure.Retry(max_attempts=3, delay=timedelta(seconds=0.7), factor=1.0, jitter=0.0)
        await run.options(retry=retry).step(fail)

    async with app.worker():
        await asyncio.to_thread(
            database.wait_until, "select count(*) = 1 from perdure.worker_beat where runs_held = 0", seconds=60
        )
        handle = await app.start(failing, 1)
        with pytest.raises(perdure.RunFailed):
            await handle.result(timeout=60 * SECONDS)
    tries: list[Any] = database.admin.execute(
        "select started_at, failed_at, retry_at from perdure.step_attempt order by attempt"
    ).fetchall()
    assert len(tries) == 3
    for earlier, later in pairwise(tries):
        assert later[1] >= earlier[2], "it was tried again before its time"
    assert all(abs(started - failed) < timedelta(minutes=5) for started, failed, _ in tries), "by the database's clock"


async def test_a_step_that_runs_long_is_as_old_as_it_is_wherever_the_clocks_stand(database: Database) -> None:
    await advance(database, -1)
    app, race, is_thinking = racing(database)
    async with app.worker():
        handle = await app.start(race, 3600)
        await asyncio.wait_for(is_thinking.wait(), 60)
        activity = "select activity -> 0 -> 'since' from perdure.worker_beat where activity <> '[]'"
        await asyncio.to_thread(eventually, lambda: database.value(activity), seconds=60)
        assert database.value(
            "select (activity -> 0 ->> 'since')::timestamptz <= perdure._now() from perdure.worker_beat"
        )
        await handle.cancel()


class Witness:
    """A host of a beat that notes what it hears, in order."""

    def __init__(self) -> None:
        self.heard_of: list[str] = []
        self.has_beaten = threading.Event()

    def runs_held(self) -> int:
        return 0

    def activity(self) -> list[dict[str, Any]]:
        return []

    def heard(self, told: float, asked: float, answered: float) -> bool:
        self.heard_of.append("the time")
        return False

    def registered(self, worker_id: UUID) -> None:
        self.heard_of.append("who it is")

    def told(self, worker_id: UUID, answer: dict[str, Any], is_clock_set: bool) -> None:
        self.heard_of.append("the answer")
        self.has_beaten.set()

    def refused(self, error: Exception) -> None:
        raise error


def test_a_worker_claims_nothing_before_it_knows_the_time(database: Database) -> None:
    """It says itself when a step was saved: what was ahead by its own clock would be so for good."""
    witness = Witness()

    async def flow(run: perdure.AsyncRun, n: int) -> None: ...

    registration = Registration("w", None, ["default"], [Workflow(flow)], 30 * SECONDS)
    beat = Beat(Connector(database.dsn(), "beat"), Schema(), registration, witness)
    beat.start()
    assert witness.has_beaten.wait(60)
    beat.stop()
    beat.join(60)
    assert witness.heard_of[:3] == ["the time", "who it is", "the answer"]


def test_whoever_sets_the_clock_of_the_machine_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, machine = Clock(), time.time
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: machine() + 86_400)
    assert before <= clock.now() < before + timedelta(hours=1)
