"""The database's clock, as it is known in the worker.

Invariant: what is due is due by the database's clock, for it wrote the times down. Here it is the worker's own clock,
moved where the database's answers contradict it, and then never ahead of theirs: between two clocks that agree nothing is moved.
Whoever sets the clock of the machine sets nothing here: a time that was recorded too late would never be taken back.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone

_STARTED = time.time() - time.monotonic()

_A_JUMP = 1.0
"""Seconds by which a clock moves that was set, and does not only run differently."""


def steady() -> float:
    """Return the time of this machine, in seconds, as if nobody had set its clock since the process began."""
    return _STARTED + time.monotonic()


class Clock:
    """Tell the database's time without asking it; callable from any thread."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> datetime:
        """Return the database's time, aware."""
        return datetime.fromtimestamp(steady() + self._ahead, timezone.utc)

    def heard(self, told: float, asked: float, answered: float) -> bool:
        """Note the time that the database told between two moments of `steady`; return whether it was set."""
        before = self._ahead
        if not told - answered <= before <= told - asked:
            self._ahead = told - answered  # rather late by a slow answer than early: what was promised to last lasts
        return abs(self._ahead - before) > _A_JUMP
