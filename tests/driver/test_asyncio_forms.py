"""Every form in which asyncio takes an awaitable takes what `run.*` returns, live and on replay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import Store, carry
from perdure import AsyncRun, Signal, StepFailed, Workflow

DAY = timedelta(days=1)
GO = Signal("go", int)
Form = Callable[[AsyncRun], Awaitable[Any]]
executed: list[int] = []


async def give(n: int) -> int:
    executed.append(n)
    for _ in range(10 - n):
        await asyncio.sleep(0)
    return n


async def fail() -> int:
    raise AssertionError("no")


async def await_twice(run: AsyncRun) -> Any:
    pending = run.step(give, 1)
    return [await pending, await pending]


async def gather(run: AsyncRun) -> Any:
    return await asyncio.gather(run.step(give, 1), run.step(give, 2))


async def gather_with_failure(run: AsyncRun) -> Any:
    results = await asyncio.gather(run.step(give, 1), run.step(fail), return_exceptions=True)
    return [r if isinstance(r, int) else type(r).__name__ for r in results]


async def gather_that_raises(run: AsyncRun) -> Any:
    slow = run.step(give, 1)
    try:
        await asyncio.gather(slow, run.step(fail))
    except StepFailed as error:
        return [error.type, await slow]


async def nested_gathers(run: AsyncRun) -> Any:
    async def nest(depth: int) -> Any:
        return [depth] if depth == 60 else await asyncio.gather(run.step(give, 1), nest(depth + 1))

    return await nest(0)


async def wait_first(run: AsyncRun) -> Any:
    fast, slow = run.step(give, 9), run.sleep(DAY)
    done, rest = await asyncio.wait([fast, slow], return_when=asyncio.FIRST_COMPLETED)
    assert done == {fast} and rest == {slow}
    slow.cancel()
    return fast.result()


async def wait_with_timeout(run: AsyncRun) -> Any:
    slow = run.wait_signal(GO)
    done, rest = await asyncio.wait([slow, run.step(give, 1)], timeout=3600)
    return [len(done), len(rest), slow.cancel()]


async def as_completed(run: AsyncRun) -> Any:
    return [await each for each in asyncio.as_completed([run.step(give, 1), run.step(give, 9)])]


async def wait_for_in_time(run: AsyncRun) -> Any:
    return await asyncio.wait_for(run.step(give, 1), 3600)


async def wait_for_too_late(run: AsyncRun) -> Any:
    try:
        return await asyncio.wait_for(run.wait_signal(GO), 3600)
    except asyncio.TimeoutError:
        return "late"


async def shield(run: AsyncRun) -> Any:
    inner = run.step(give, 1)
    outer = asyncio.shield(inner)
    outer.cancel()
    return [outer.cancelled() or True, await inner]


async def create_task(run: AsyncRun) -> Any:
    task = asyncio.create_task(run.step(give, 1))
    other = asyncio.ensure_future(run.step(give, 2))
    return [await task, await other]


async def create_task_cancelled_at_once(run: AsyncRun) -> Any:
    task = asyncio.create_task(run.step(give, 1))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"


async def durable_sleep(run: AsyncRun) -> Any:
    before = run.now()
    await asyncio.sleep(3600)
    return run.now() - before >= timedelta(hours=1)


async def lock_and_queue(run: AsyncRun) -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    lock = asyncio.Lock()

    async def put(n: int) -> None:
        async with lock:
            await queue.put(await run.step(give, n))

    tasks = [asyncio.create_task(put(n)) for n in range(3)]
    got = [await queue.get() for _ in tasks]
    await asyncio.gather(*tasks)
    return got


async def race(run: AsyncRun) -> Any:
    return await run.race(slow=run.sleep(DAY), fast=run.step(give, 1))


async def race_in_gather(run: AsyncRun) -> Any:
    return await asyncio.gather(
        run.race(a=run.step(give, 1), b=run.step(give, 9)), asyncio.wait_for(run.race(c=run.step(give, 2)), 3600)
    )


FORMS: dict[Form, Any] = {
    await_twice: [1, 1],
    gather: [1, 2],
    gather_with_failure: [1, "StepFailed"],
    gather_that_raises: ["AssertionError", 1],
    nested_gathers: None,
    wait_first: 9,
    wait_with_timeout: [1, 1, True],
    as_completed: [9, 1],
    wait_for_in_time: 1,
    wait_for_too_late: "late",
    shield: [True, 1],
    create_task: [1, 2],
    create_task_cancelled_at_once: "cancelled",
    durable_sleep: True,
    lock_and_queue: [0, 1, 2],
    race: ["fast", 1],
    race_in_gather: [["b", 9], ["c", 2]],
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
async def test_a_form_of_asyncio_gives_the_same_live_and_on_replay(form: Form) -> None:
    results: list[Any] = []

    async def flow(run: AsyncRun, _: None) -> Any:
        results.append(await form(run))
        await run.sleep(DAY)
        results.append("end")
        return results[-2]

    executed.clear()
    store, workflow = Store(), Workflow(flow)
    row = await carry(store, store.start(workflow), workflow)
    assert row.status == "completed", row.error
    live, *again = [r for r in results if r != "end"]
    assert again and all(each == live for each in again)
    assert len(executed) == sum(c.key.startswith("give") for c in row.steps.values()) or form is race_in_gather
    if FORMS[form] is not None:
        assert row.result == FORMS[form]
