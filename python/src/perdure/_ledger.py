"""The order of a run's saves.

Invariants: ordinals are given when a save is handed to the engine, or is about to be once the run rests, one counter for all kinds; what
has been handed over and not been answered stands in `sent`, so nothing later is delivered before
it; while the ledger is held (the engine itself chooses the next ordinal) nothing is handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Ledger:
    """Ordinals, and the saves that are under way."""

    def __init__(self, last_ordinal: int, settled: Callable[[], None]) -> None:
        self.last = last_ordinal
        self._settled = settled
        self.sent: dict[int, None] = {}
        self.is_held = False
        self._queue: list[asyncio.Future[None]] = []

    async def turn(self) -> int:
        """Wait until saves may be handed over; return the ordinal of this one."""
        await self.freed()
        return self.next()

    def next(self) -> int:
        """Return the ordinal of a save that is handed over at once; nobody may hold the ledger."""
        self.last += 1
        self.sent[self.last] = None
        return self.last

    async def freed(self) -> None:
        """Wait until saves may be handed over."""
        while self.is_held:
            waiter = asyncio.get_running_loop().create_future()
            self._queue.append(waiter)
            await waiter

    def answered(self, ordinal: int) -> None:
        """Note that this save needs no more waiting for, whatever became of it."""
        self.sent.pop(ordinal, None)
        if self.is_held and not self.sent:  # whoever holds it waited for this
            self._settled()

    def is_blocked(self, ordinal: int) -> bool:
        """Tell whether an earlier save is still under way."""
        return bool(self.sent) and next(iter(self.sent)) < ordinal

    def hold(self) -> None:
        """Hand over nothing more until `free`."""
        self.is_held = True

    def close(self) -> None:
        """Let go of whoever is told."""
        self._settled = lambda: None

    def free(self) -> None:
        """Let the saves that waited go on."""
        self.is_held = False
        queue, self._queue = self._queue, []
        for waiter in queue:
            if not waiter.done():
                waiter.set_result(None)
