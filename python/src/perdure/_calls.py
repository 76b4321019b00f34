"""The steps of a run that are under way.

Invariant: a step is here from its start until nothing of it is left in this worker, its save and its threads included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from ._steps import Phase, StepCall


class Calls:
    """The steps under way, in the order started."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._calls: dict[StepCall, None] = {}
        self._quiet: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[StepCall]:
        return iter(list(self._calls))

    def start(self, call: StepCall, begin: Callable[[StepCall], None]) -> None:
        """Begin a step, or go on with it."""
        call.request.call = call
        self._calls[call] = None
        begin(call)
        if call.is_over:  # it waits for a retry that is due later
            self._calls.pop(call, None)

    def ended(self, call: StepCall) -> None:
        """Note that nothing of a step is left."""
        self._calls.pop(call, None)
        if not self._calls and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)
        self._ended()

    async def until_quiet(self) -> None:
        """Wait until the last one has ended."""
        while self._calls:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet

    @property
    def running(self) -> list[tuple[str, datetime, Any]]:
        """Those whose code runs now: key, since when, and what they told of their progress."""
        return [
            (call.request.key, call.started_at, call.info.told_progress)
            for call in self._calls
            if call.phase is Phase.RUNNING and call.started_at is not None and call.info is not None
        ]

    def clear(self) -> None:
        """Forget all, and whoever is told."""
        self._calls.clear()
        self._ended = lambda: None
