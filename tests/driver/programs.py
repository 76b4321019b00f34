"""Random workflow programs: trees of asyncio's and the run's own forms, made from a seed.

A program's result and trace depend on what the run delivers alone, so the same record must give the
same both again, whatever the timing was.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import perdure._options as options
from perdure._errors import Cancelled, StepFailed, TimedOut
from perdure._options import Retry, Signal
from perdure._pending import Pending
from perdure._run import AsyncRun

HAS_GROUPS = sys.version_info >= (3, 11)
SIGNALS = [Signal(name, int) for name in ("red", "green", "blue")]
BROKEN = (StepFailed, TimedOut, asyncio.TimeoutError, TimeoutError)

LEAVES = ("step", "step", "step", "thread", "broken", "sleep", "asleep", "signal", "value")
FORMS = ["seq", "seq", "gather", "gather", "race", "wait_for", "first", "completed", "tasks", "shield"]
if HAS_GROUPS:
    FORMS += ["group", "group", "timeout"]

Node = tuple[Any, ...]


def make_program(chance: random.Random, depth: int = 4) -> Node:
    """Return a random tree; its root is a sequence, so that there is always something to kill."""
    if depth == 4:
        return "seq", [make_program(chance, 3) for _ in range(3)], False
    if depth == 0 or chance.random() < 0.2:
        return leaf(chance)
    form = chance.choice(FORMS)
    children = [make_program(chance, depth - 1) for _ in range(chance.randint(1, 4))]
    if form == "race":
        return form, [leaf(chance) for _ in range(chance.randint(2, 4))]
    if form in ("wait_for", "timeout", "shield"):
        return form, children[:1], chance.choice((0.002, 0.02, 0.2, 5.0))
    return form, children, chance.random() < 0.3


def leaf(chance: random.Random) -> Node:
    return chance.choice(LEAVES), chance.randrange(1000)


class Player:
    """Plays a program in a run, and notes what it sees."""

    def __init__(self, run: AsyncRun, on_step: Callable[[], None]) -> None:
        self.run = run
        self.trace: list[Any] = []
        self.sure: int | None = None  # how much of it rests on the record; None for all
        self.on_step = on_step

    async def play(self, node: Node) -> Any:
        form = node[0]
        try:
            value = (
                await getattr(self, f"play_{form}")(*node[1:])
                if hasattr(self, f"play_{form}")
                else await self.leaf(node)
            )
        except BROKEN as error:
            value = type(error).__name__
        except Cancelled:
            self.trace.append((form, "cancelled", self.run.now().isoformat()))
            raise
        self.trace.append((form, repr(value), self.run.now().isoformat()))
        return value

    def leaf(self, node: Node) -> Pending[Any] | Any:
        form, n = node
        run = self.run
        if form == "step":
            return run.step(self.work, n)
        if form == "thread":
            return run.step(self.plain_work, n)
        if form == "broken":
            retry = Retry(max_attempts=1 + n % 3, delay=timedelta(milliseconds=n % 7), jitter=0)
            return run.options(retry=retry).step(self.broken_work, n)
        if form == "sleep":
            return run.sleep(timedelta(milliseconds=n % 40) if n % 10 else timedelta(hours=n))
        if form == "signal":
            timeout = None if n % 3 == 0 else timedelta(milliseconds=n)
            return run.wait_signal(SIGNALS[n % len(SIGNALS)], timeout=timeout)
        if form == "value":
            return run.set_value(options.Value("shown", int), n)
        return asyncio.sleep(n % 40 / 1000, n)

    async def work(self, n: int) -> int:
        self.on_step()
        for _ in range(n % 5):
            await asyncio.sleep(0)
        if n % 11 == 0:
            await asyncio.sleep(n % 13 / 1000)
        return n

    def plain_work(self, n: int) -> int:
        self.on_step()
        return n

    async def broken_work(self, n: int) -> int:
        self.on_step()
        if options.current_step().attempt < 1 + n % 4:
            raise ConnectionError(f"try {options.current_step().attempt}")
        return n

    async def play_seq(self, children: list[Node], _: bool) -> Any:
        try:
            return [await self.play(child) for child in children]
        except Cancelled:
            await self.play(("step", 5))
            if len(children) % 2:
                raise
            return "cleaned up"

    async def play_gather(self, children: list[Node], is_mixed: bool) -> Any:
        # Leaves as bare pendings when mixed: some fail then, and gather leaves the others running.
        parts = [self.leaf(c) if is_mixed and c[0] in LEAVES else self.play(c) for c in children]
        results = await asyncio.gather(*parts, return_exceptions=True)
        return [r if not isinstance(r, BaseException) else type(r).__name__ for r in results]

    async def play_race(self, children: list[Node]) -> Any:
        racers = {f"r{n}": self.leaf(c) for n, c in enumerate(children) if c[0] != "asleep"}
        return await self.run.race(**racers) if racers else None

    async def play_wait_for(self, children: list[Node], timeout: float) -> Any:
        (child,) = children
        return await asyncio.wait_for(self.leaf(child) if child[0] in LEAVES else self.play(child), timeout)

    async def play_timeout(self, children: list[Node], timeout: float) -> Any:
        async with asyncio.timeout(timeout):  # type: ignore[attr-defined,unused-ignore]
            return await self.play(children[0])

    async def play_shield(self, children: list[Node], timeout: float) -> Any:
        inner = asyncio.ensure_future(self.play(children[0]))
        try:
            return await asyncio.wait_for(asyncio.shield(inner), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            return ["late", await inner]

    async def play_first(self, children: list[Node], leaves_rest: bool) -> Any:
        tasks = [asyncio.ensure_future(self.play(child)) for child in children]
        _, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if leaves_rest and rest:
            await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return [outcome(task) for task in tasks]

    async def play_completed(self, children: list[Node], _: bool) -> Any:
        # Tasks, not coroutines: as_completed keeps those in a set, and would start them in any order.
        tasks = [asyncio.ensure_future(self.play(child)) for child in children]
        return [await ended for ended in asyncio.as_completed(tasks)]

    async def play_tasks(self, children: list[Node], is_reversed: bool) -> Any:
        tasks = [asyncio.create_task(self.play(child)) for child in children]
        return [await task for task in (reversed(tasks) if is_reversed else tasks)]

    async def play_group(self, children: list[Node], aborts: bool) -> Any:
        tasks = []
        try:
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
                tasks = [group.create_task(self.play(child)) for child in children]
                if aborts:
                    await self.play(("step", 7))
                    raise ValueError("abort")
        except BaseException as error:
            if type(error).__name__ != "ExceptionGroup":
                raise
            return ["aborted", [outcome(task) for task in tasks]]
        return [task.result() for task in tasks]


def outcome(task: asyncio.Future[Any]) -> Any:
    """Return what a task gave, or how it ended otherwise."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return task.result() if error is None else type(error).__name__
