"""Many runs share one callback of the worker's loop, and each has its turn all the same."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context

import pytest

from perdure._turns import Turns

WHOSE: ContextVar[str] = ContextVar("whose", default="nobody")


async def test_each_has_its_turn_once_in_order_and_in_its_own_context() -> None:
    turns, loop, seen = Turns(), asyncio.get_running_loop(), []
    for name in ("a", "b", "c"):
        context = copy_context()
        context.run(WHOSE.set, name)
        turns.add(loop, context, lambda: seen.append((WHOSE.get(), asyncio.current_task())))
    assert not seen, "never from inside a task"
    await asyncio.sleep(0)
    assert seen == [("a", None), ("b", None), ("c", None)]
    assert WHOSE.get() == "nobody"


async def test_who_is_added_in_a_turn_comes_after_the_present_round() -> None:
    turns, loop, seen = Turns(), asyncio.get_running_loop(), []

    def first() -> None:
        seen.append("first")
        turns.add(loop, copy_context(), lambda: seen.append("third"))

    turns.add(loop, copy_context(), first)
    turns.add(loop, copy_context(), lambda: seen.append("second"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert seen == ["first", "second", "third"]


def test_a_turn_that_is_interrupted_takes_none_from_the_others() -> None:
    turns, loop, seen = Turns(), asyncio.new_event_loop(), []

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def add() -> None:
        turns.add(loop, copy_context(), interrupted)
        turns.add(loop, copy_context(), lambda: seen.append("the other"))
        await asyncio.sleep(0)

    try:
        adding = loop.create_task(add())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(adding)
        loop.run_until_complete(asyncio.sleep(0))
        assert seen == ["the other"]
    finally:
        loop.close()
