"""The database's clock, as it is known in the worker.

Invariant: what is due is due by the database's clock, for it wrote the times down. Here it is the worker's own clock,
moved where the database's answers contradict it, and then never ahead of theirs: between two clocks that agree nothing is moved.
"""

from __future__ import annotations

import time
from datetime import datetime, timezone

_A_JUMP = 1.0
"""Seconds by which a clock moves that was set, and does not only run differently."""


class Clock:
    """Tell the database's time without asking it; callable from any thread."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> datetime:
        """Return the database's time, aware."""
        return datetime.fromtimestamp(time.time() + self._ahead, timezone.utc)

    def heard(self, told: float, asked: float, answered: float) -> bool:
        """Note the time that the database told between two moments of this clock; return whether one of both was set."""
        if answered < asked:
            return False  # ours was set back meanwhile: the next answer will tell
        before = self._ahead
        if not told - answered <= before <= told - asked:
            self._ahead = told - answered  # rather late by a slow answer than early: what was promised to last lasts
        return abs(self._ahead - before) > _A_JUMP
