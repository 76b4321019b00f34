"""A result goes on to the run before its save is acknowledged, and what the run asks for on it waits for that."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

import perdure
from driver.fake_engine import FakeEngine, Row, Store, Travelling, carry, carry_once, execution_of
from perdure import StepFailed, _loop
from perdure._engine import Checkpoint, Claimed, Recorded, Save
from perdure._errors import LimitExceeded
from perdure._registry import Workflow
from perdure._run import AsyncRun
from support import always_suspend

pytestmark = pytest.mark.skipif(always_suspend.is_on(), reason="in this mode nothing is delivered ahead of its save")


@pytest.fixture
def store() -> Store:
    return Store()


class SlowEngine(FakeEngine):
    """An engine whose saves are acknowledged when the test says so."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.acknowledge = asyncio.Event()

    async def save(self, run: Claimed, save: Save) -> Recorded:
        await self.acknowledge.wait()
        return await super().save(run, save)


seen: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


async def note(what: str) -> str:
    seen.append(f"step {what}")
    return what


async def one(run: AsyncRun, _: Any) -> str:
    found = await run.step(note, "a")
    seen.append(f"run {found}")
    return found


async def two(run: AsyncRun, _: Any) -> str:
    found = await run.step(note, "a")
    seen.append(f"run {found}")
    return found + await run.step(note, "b")


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_last_save_and_the_end_are_one_call(store: Store) -> None:
    engine = FakeEngine(store)
    row = await carry(store, store.start(Workflow(one)), Workflow(one), engine=engine)
    assert engine.calls == ["complete"]
    assert row.status == "completed" and row.result == "a"
    assert [(c.key, c.ordinal, c.result) for c in row.steps.values()] == [("note", 1, "a")]


async def test_the_code_goes_on_and_what_it_asks_for_waits_for_the_acknowledgement(store: Store) -> None:
    engine = SlowEngine(store)
    row = store.start(Workflow(two))
    execution = execution_of(engine, row, Workflow(two))
    running = asyncio.ensure_future(execution.run())
    await settle()
    assert seen == ["step a", "run a"] and not row.steps
    engine.acknowledge.set()
    await asyncio.wait_for(running, 20)
    assert seen == ["step a", "run a", "step b"]
    assert engine.calls == ["save", "complete"] and row.result == "ab"


async def test_a_wait_that_is_asked_for_on_it_waits_too(store: Store) -> None:
    async def flow(run: AsyncRun, _: Any) -> None:
        await run.step(note, "a")
        await run.sleep(timedelta(days=1))

    engine = SlowEngine(store)
    execution = execution_of(engine, store.start(Workflow(flow)), Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await settle()
    assert engine.calls == []
    engine.acknowledge.set()
    await asyncio.wait_for(running, 20)
    assert engine.calls == ["save", "suspend"]


async def test_a_run_that_dies_before_the_acknowledgement_runs_the_step_again(store: Store) -> None:
    row = store.start(Workflow(two))
    engine = SlowEngine(store)
    execution = execution_of(engine, row, Workflow(two))
    running = asyncio.ensure_future(execution.run())
    await settle()
    engine.kill()
    await asyncio.wait_for(running, 20)
    assert seen == ["step a", "run a"] and not row.steps and row.status is None
    row = await carry(store, row, Workflow(two))
    assert seen == ["step a", "run a", "step a", "run a", "step b"] and row.result == "ab"


async def test_a_step_whose_save_is_refused_with_the_end_fails_and_the_run_hears_of_it_from_the_record(
    store: Store,
) -> None:
    async def flow(run: AsyncRun, _: Any) -> str:
        try:
            return await run.step(note, "a")
        except StepFailed as error:
            return f"heard of {error.type}"

    engine = FakeEngine(store)
    engine.fail_next["save"] = [LimitExceeded("too large")]
    row = store.start(Workflow(flow))
    await carry_once(engine, row, Workflow(flow))
    assert row.status is None and row.steps["note"].error["type"] == "LimitExceeded"  # type: ignore[index]
    row = await carry(store, row, Workflow(flow))
    assert row.result == "heard of LimitExceeded"
    assert seen == ["step a"]


async def test_where_only_the_end_is_refused_the_save_stays_and_the_run_fails(store: Store) -> None:
    engine = FakeEngine(store)
    engine.fail_next["complete"] = [LimitExceeded("result"), LimitExceeded("result")]
    row = await carry(store, store.start(Workflow(one)), Workflow(one), engine=engine)
    assert row.status == "failed" and row.error["type"] == "LimitExceeded"
    assert row.steps["note"].result == "a"
    assert engine.calls == ["complete", "save", "complete", "fail"]


async def test_another_result_on_record_counts_and_the_run_goes_on_from_it(store: Store) -> None:
    class Elsewhere(FakeEngine):
        """Somebody else saves the step while it runs."""

        def save_soon(self, run: Claimed, save: Save, told: Any) -> Travelling:
            self.put(self.store.rows[run.run_id], save)
            return super().save_soon(run, save, told)

        def complete_soon(self, run: Claimed, result_text: str, told: Any, last: Save | None = None) -> None:
            if last is not None:
                self.put(self.store.rows[run.run_id], last)
            super().complete_soon(run, result_text, told, last)

        def put(self, row: Row, save: Save) -> None:
            other = Checkpoint(save.ordinal, save.key, save.kind, None, None, True, "other", None, self.now())
            row.steps.setdefault(save.key, other)

    for flow, result in ((one, "other"), (two, "otherother")):
        row = store.start(Workflow(flow))
        await carry(store, row, Workflow(flow), engine=Elsewhere(store))
        assert row.result == result


async def test_with_other_steps_under_way_each_result_waits_for_its_acknowledgement(store: Store) -> None:
    async def flow(run: AsyncRun, _: Any) -> list[str]:
        async def follow(what: str) -> str:
            found = await run.step(note, what)
            seen.append(f"run {found}")
            return found

        return list(await asyncio.gather(follow("a"), follow("b")))

    engine = SlowEngine(store)
    execution = execution_of(engine, store.start(Workflow(flow)), Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await settle()
    assert seen == ["step a", "step b"]
    engine.acknowledge.set()
    await asyncio.wait_for(running, 20)
    assert seen[2:] == ["run a", "run b"]


async def test_the_clock_says_the_same_ahead_and_on_replay(store: Store) -> None:
    times: list[str] = []

    async def flow(run: AsyncRun, _: Any) -> None:
        await run.step(note, "a")
        times.append(run.now().isoformat())
        await run.step(note, "b")

    row = store.start(Workflow(flow))
    engine = SlowEngine(store)
    execution = execution_of(engine, row, Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await settle()
    assert len(times) == 1
    engine.acknowledge.set()
    await asyncio.wait_for(running, 20)
    assert row.steps["note"].saved_at.isoformat() == times[0]


async def test_a_run_that_is_stopped_while_it_is_ahead_is_released_with_its_save(store: Store) -> None:
    engine = SlowEngine(store)
    row = store.start(Workflow(two))
    execution = execution_of(engine, row, Workflow(two))
    running = asyncio.ensure_future(execution.run())
    await settle()
    execution.release_soon()
    await settle()
    engine.acknowledge.set()
    await asyncio.wait_for(running, 20)
    assert engine.calls == ["save", "release"] and set(row.steps) == {"note"}
    assert seen == ["step a", "run a"]


class Stubborn:
    """A plain function that cannot be stopped at its first try, until it is set free, and returns at once later."""

    def __init__(self) -> None:
        self.is_free = threading.Event()
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries == 1:
            assert self.is_free.wait(60)
        return "late"

    async def ask(self, run: AsyncRun) -> str:
        brief = run.options(
            key="stubborn", retry=perdure.Retry(max_attempts=50, delay=timedelta(0)), timeout=timedelta(seconds=0.2)
        )
        found: str = await brief.step(self)
        seen.append(f"run {found}")
        return found


async def test_the_thread_of_an_earlier_try_holds_up_nothing_that_comes_after_the_step(store: Store) -> None:
    stubborn = Stubborn()
    has_begun = asyncio.Event()

    async def after() -> None:
        has_begun.set()

    async def flow(run: AsyncRun, _: Any) -> str:
        found = await stubborn.ask(run)
        await run.step(after)
        return found

    row = store.start(Workflow(flow))
    running = asyncio.ensure_future(execution_of(FakeEngine(store), row, Workflow(flow)).run())
    try:
        await asyncio.wait_for(has_begun.wait(), 30)
    finally:
        stubborn.is_free.set()
        await asyncio.wait_for(running, 30)
    assert row.result == "late"


async def test_a_run_does_not_end_while_a_thread_of_its_last_step_still_runs(store: Store) -> None:
    stubborn = Stubborn()

    async def flow(run: AsyncRun, _: Any) -> str:
        return await stubborn.ask(run)

    row = store.start(Workflow(flow))
    running = asyncio.ensure_future(execution_of(FakeEngine(store), row, Workflow(flow)).run())
    try:
        await asyncio.wait_for(until_seen("run late"), 30)
        await settle()
        assert row.status is None and row.steps
    finally:
        stubborn.is_free.set()
        await asyncio.wait_for(running, 30)
    assert row.result == "late"


async def until_seen(what: str) -> None:
    while what not in seen:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_a_run_is_not_stuck_for_what_it_did_with_a_result_that_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loop, "_DRAIN_LIMIT", 1_000)

    async def flow(run: AsyncRun, _: Any) -> str:
        try:
            await run.step(note, "a")
        except StepFailed as error:
            return f"heard of {error.type}"
        while True:  # noqa: ASYNC110  it would spin for ever
            await asyncio.sleep(0)

    engine = FakeEngine(store)
    engine.fail_next["save"] = [LimitExceeded("too large")]
    row = store.start(Workflow(flow))
    await carry_once(engine, row, Workflow(flow))
    assert row.status is None
    row = await carry(store, row, Workflow(flow))
    assert row.result == "heard of LimitExceeded" and seen == ["step a"]


async def test_a_run_is_not_paused_for_what_it_did_with_a_result_that_is_refused(store: Store) -> None:
    async def flow(run: AsyncRun, _: Any) -> str:
        try:
            await run.step(note, "a")
        except StepFailed as error:
            return f"heard of {error.type}"
        await run.step(note, "b")
        raise AssertionError("this line is never reached")

    row = store.start(Workflow(flow))
    other = Checkpoint(9, "note#2", "signal", None, None, True, None, None, store.now())
    row.steps["note#2"] = other  # what it asks for next conflicts with the record, which pauses a run
    engine = FakeEngine(store)
    engine.fail_next["save"] = [LimitExceeded("too large")]
    await carry_once(engine, row, Workflow(flow))
    assert row.status is None and row.pause_reason is None
    row = await carry(store, row, Workflow(flow))
    assert row.result == "heard of LimitExceeded"
