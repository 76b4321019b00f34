"""Turns of many runs in one callback of the worker's loop.

Invariant: whoever is added has its turn once, in the order added, in its own context and from a plain callback, never
from inside a task; who is added during a turn comes after all of the present round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context


class Turns:
    """Those whose turn is next."""

    def __init__(self) -> None:
        self._due: list[tuple[Context, Callable[[], None]]] = []

    def add(self, loop: asyncio.AbstractEventLoop, context: Context, turn: Callable[[], None]) -> None:
        """Give a turn as soon as the loop can; called in it."""
        if not self._due:
            loop.call_soon(self._take)
        self._due.append((context, turn))

    def _take(self) -> None:
        due, self._due = self._due, []
        taken = 0
        try:
            for context, turn in due:
                taken += 1
                context.run(turn)
        finally:
            if taken < len(due):  # KeyboardInterrupt, SystemExit: the loop may go on all the same
                if not self._due:
                    asyncio.get_running_loop().call_soon(self._take)
                self._due[:0] = due[taken:]
