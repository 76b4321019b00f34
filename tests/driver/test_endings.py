"""Cancels, releases, losses, and how a run's code is unwound."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import FakeEngine, Row, Store, carry, carry_once, execution_of
from perdure import AsyncRun, Cancelled, Signal, Workflow
from perdure._ending import never_ended

DAY = timedelta(days=1)
GO = Signal("go", int)
seen: list[Any] = []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


async def note(name: str) -> str:
    seen.append(name)
    return name


async def hang() -> None:
    seen.append("began")
    try:
        await asyncio.sleep(60)
    finally:
        seen.append("ended")


# Cancel


async def test_a_cancel_reaches_every_pending_and_clean_up_may_take_further_steps(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> str:
        open_wait = run.wait_signal(GO)
        try:
            await run.step(hang)
        except Cancelled as cancelled:
            seen.append((cancelled.status, cancelled.reason))
            with suppress(Cancelled):
                await open_wait
            seen.append(await run.step(note, "cleaned"))
            await run.sleep(DAY)
            seen.append("slept")
            raise
        return "?"

    workflow = Workflow(flow)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.02)
    row.cancel = "cancelled"
    engine.executions[0].tell()
    await running
    assert row.status is None and seen == ["began", ("cancelled", "asked"), "ended", "cleaned", "cleaned"]
    seen.clear()
    store.skip(DAY)
    await carry(store, row, workflow)
    assert row.status == "cancelled" and seen == [("cancelled", "asked"), "cleaned", "slept"]
    assert [c.key for c in row.steps.values()] == ["~cancel", "note", "~sleep"]


@pytest.mark.parametrize("form", ["suspended", "durable sleep", "asyncio.sleep", "asyncio.wait_for", "gather"])
async def test_a_cancel_reaches_a_run_wherever_it_waits(store: Store, form: str) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        if form == "suspended":
            await run.wait_signal(GO)
        elif form == "durable sleep":
            await run.sleep(DAY)
        elif form == "asyncio.sleep":
            await asyncio.sleep(86400)
        elif form == "asyncio.wait_for":
            await asyncio.wait_for(run.wait_signal(GO), 86400)
        else:
            await asyncio.gather(asyncio.sleep(86400), run.sleep(DAY), run.wait_signal(GO))

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store), row, Workflow(flow))
    assert row.waits
    row.cancel = "timed_out"
    await carry_once(FakeEngine(store), row, Workflow(flow))
    assert row.status == "timed_out" and row.error["type"] == "Cancelled"
    assert list(row.steps) == ["~cancel"]


async def test_a_cancel_that_came_before_the_claim_lets_no_step_begin(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        await run.step(note, "never")

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    row.cancel = "cancelled"
    await carry_once(engine, row, Workflow(flow))
    assert row.status == "cancelled" and seen == [] and engine.calls == ["look", "fail"]


async def test_a_cancel_is_replayed_at_its_place(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[Any]:
        result: list[Any] = [await run.step(note, "a")]
        try:
            await run.step(hang)
        except Cancelled:
            result.append("cancelled")
        result.append(await run.step(note, "b"))
        await run.sleep(DAY)
        return result

    workflow = Workflow(flow)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.02)
    row.cancel = "cancelled"
    engine.executions[0].tell()
    await running
    await carry(store, row, workflow)
    assert row.result == ["a", "cancelled", "b"] and seen == ["a", "began", "ended", "b"]


# Release and loss


async def test_a_release_lets_steps_in_flight_be_saved_and_begins_nothing(store: Store) -> None:
    async def slow(n: int) -> int:
        seen.append(n)
        await asyncio.sleep(0.05)
        return n

    async def flow(run: AsyncRun, _: None) -> list[int]:
        first = await asyncio.gather(run.step(slow, 1), run.step(slow, 2))
        return [*first, await run.step(slow, 3)]

    workflow = Workflow(flow)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.02)
    engine.executions[0].release_soon()
    await running
    assert row.status is None and row.claim is None and row.pause_reason is None
    assert sorted(row.steps) == ["slow", "slow#2"] and seen == [1, 2]
    await carry(store, row, workflow)
    assert row.result == [1, 2, 3] and seen == [1, 2, 3]


async def test_a_release_before_the_run_began_gives_it_back_at_once(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        seen.append("began")

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    execution = execution_of(engine, row, Workflow(flow))
    execution.release_soon()
    await execution.run()
    assert engine.calls == ["release"] and seen == []


async def test_a_lost_run_saves_nothing_more(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        try:
            await run.step(hang)
        finally:
            with suppress(asyncio.CancelledError):
                await run.step(note, "never")

    workflow = Workflow(flow)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.02)
    engine.executions[0].drop()
    await running
    assert engine.calls == [] and seen == ["began", "ended"] and row.steps == {}


async def test_cancelling_the_execution_drops_the_run(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        await run.step(hang)

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    execution = execution_of(engine, row, Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.calls == [] and seen == ["began", "ended"]


# Unwinding


async def unwound(store: Store, workflow: Workflow[Any, Any]) -> Row:
    """Carry the run to its suspension on a day's sleep."""
    row, engine = store.start(workflow), FakeEngine(store)
    await carry_once(engine, row, workflow)
    assert row.status is None and row.waits and engine.calls[-1] == "suspend", row.error
    return row


async def test_what_finally_asks_for_during_a_suspension_has_no_effect(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> str:
        try:
            await run.sleep(DAY)
        finally:
            seen.append("finally")
            await run.step(note, "released")
        return "done"

    workflow = Workflow(flow)
    row = await unwound(store, workflow)
    assert seen == ["finally"] and row.steps == {}
    store.skip(DAY)
    await carry(store, row, workflow)
    assert row.result == "done" and seen == ["finally", "finally", "released"]


@pytest.mark.parametrize("swallowed", ["once", "in a loop", "in a loop with sleep", "base exceptions for ever"])
async def test_code_that_swallows_the_unwinding_cannot_keep_the_run(
    store: Store, swallowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def flow(run: AsyncRun, _: None) -> str:
        if swallowed == "once":
            with suppress(asyncio.CancelledError):
                await run.sleep(DAY)
            return "swallowed"
        while True:
            try:
                await (run.sleep(DAY) if swallowed != "in a loop with sleep" else asyncio.sleep(86400))
                return "slept"
            except asyncio.CancelledError:  # noqa: PERF203  this is the test
                continue
            except BaseException:
                if swallowed != "base exceptions for ever":
                    raise

    before = never_ended()
    workflow = Workflow(flow)
    row = await unwound(store, workflow)
    assert row.status is None and row.result is None
    is_kept = swallowed == "base exceptions for ever"
    assert never_ended() - before == is_kept
    assert ("swallows every cancellation" in caplog.text) == is_kept
    await carry(store, row, workflow)
    assert row.result == ("swallowed" if swallowed == "once" else "slept")


async def test_orphans_generators_and_locks_leave_without_a_line_of_noise(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def generate(run: AsyncRun) -> Any:
        try:
            while True:
                yield await run.step(note, "g")
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def orphan(run: AsyncRun, lock: asyncio.Lock) -> None:
        async with lock:
            await run.wait_signal(GO)

    async def flow(run: AsyncRun, _: None) -> None:
        lock = asyncio.Lock()
        orphans = [asyncio.create_task(orphan(run, lock)) for _ in range(3)]
        generator = generate(run)
        await generator.__anext__()
        orphans.append(asyncio.create_task(asyncio.sleep(86400)))
        await run.sleep(DAY)

    workflow = Workflow(flow)
    with caplog.at_level(logging.DEBUG):
        await unwound(store, workflow)
        gc.collect()
        await asyncio.sleep(0.01)
        row = await carry(store, store.start(workflow), workflow)
        gc.collect()
    assert row.status == "completed" and caplog.records == [] and "closed" in seen


async def test_tasks_that_nobody_waits_for_end_with_the_run(store: Store) -> None:
    async def orphan(run: AsyncRun) -> None:
        await run.step(hang)

    async def flow(run: AsyncRun, _: None) -> str:
        task = asyncio.create_task(orphan(run))
        await run.step(note, "a")
        return f"done, {task.done()}"

    row = store.start(Workflow(flow))
    await carry(store, row, Workflow(flow))
    assert row.result == "done, False" and seen[-1] == "ended" and list(row.steps) == ["note"]


async def test_an_orphans_error_is_logged_with_the_workflow(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async def orphan() -> None:
        raise ValueError("nobody hears")

    async def flow(run: AsyncRun, _: None) -> None:
        asyncio.create_task(orphan())  # noqa: RUF006  nobody waits for it
        await run.step(note, "a")
        gc.collect()

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "completed"
    assert "in workflow flow" in caplog.text and "never retrieved" in caplog.text
