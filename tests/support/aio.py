"""Waiting inside an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], T], *, seconds: float = 10, what: str = "") -> T:
    """Ask again and again, without holding up the loop, until the answer is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or look}")
        await asyncio.sleep(0.005)
    return answer
