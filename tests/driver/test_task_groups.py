"""What came with Python 3.11: task groups, asyncio.timeout, except*."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import FakeEngine, Store, carry, carry_once
from perdure import AsyncRun, Cancelled, Signal, StepFailed, Workflow

DAY = timedelta(days=1)
GO = Signal("go", int)
seen: list[Any] = []


@pytest.fixture
def store() -> Store:
    seen.clear()
    return Store()


async def give(n: int) -> int:
    seen.append(n)
    return n


async def fail() -> int:
    raise AssertionError("no")


async def hang() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        seen.append("ended")


async def test_a_task_group_takes_what_the_run_returns(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[int]:
        async with asyncio.TaskGroup() as group:
            a = group.create_task(run.step(give, 1))
            b = group.create_task(run.step(give, 2))
        await run.sleep(DAY)
        return [a.result(), b.result()]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == [1, 2] and seen == [1, 2]


async def test_an_aborted_task_group_cancels_its_steps_and_replays_so(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[Any]:
        result: list[Any] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run.step(hang))
                group.create_task(run.step(fail))
        except* StepFailed as failed:
            result.append([str(error.type) for error in failed.exceptions if isinstance(error, StepFailed)])
        await run.sleep(DAY)
        return result

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == [["AssertionError"]] and seen == ["ended"] and list(row.steps) == ["fail", "~sleep"]


async def test_a_task_group_unwinds_on_suspension_without_ending_the_run(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run.wait_signal(GO))
                group.create_task(run.sleep(DAY))
        except* Exception as wrong:  # noqa: BLE001  none of them may come here
            seen.append(wrong)
        return "done"

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store), row, Workflow(flow))
    assert row.status is None and len(row.waits) == 2 and seen == []
    row.signals.append(("go", 1))
    await carry(store, row, Workflow(flow))
    assert row.result == "done"


async def test_a_timeout_is_durable(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[Any]:
        async with asyncio.timeout(3600):
            first = await run.step(give, 1)
        try:
            async with asyncio.timeout(3600):
                await run.wait_signal(GO)
        except TimeoutError:
            second = "late"
        async with asyncio.timeout(0.05):
            try:
                await run.step(hang)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise
        return [first, second]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.error["type"] == "TimeoutError"
    assert list(row.steps) == ["give", "~timer#2", "~timer#3"] and seen == [1, "cancelled", "ended"]


async def test_a_cancel_comes_out_of_a_task_group_and_except_star_sees_it(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run.wait_signal(GO))
                group.create_task(run.sleep(DAY))
        except* Cancelled:
            await run.step(give, 7)
        return "cleaned"

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store), row, Workflow(flow))
    row.cancel = "cancelled"
    await carry(store, row, Workflow(flow))
    assert row.status == "cancelled" and row.result == "cleaned" and list(row.steps) == ["~cancel", "give"]
