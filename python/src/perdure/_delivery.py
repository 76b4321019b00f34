"""How results reach a run: one at a time, lowest ordinal first.

Invariants: a result is never delivered before an earlier save is acknowledged, so the order is the
recorded one, live and on replay (5, 6); what was withdrawn is passed over, and moves no clock; the
run's clock is the time of the last result that was delivered.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from ._codec import Codec
from ._engine import Checkpoint, Claimed
from ._errors import Cancelled, TimedOut
from ._failures import raised_by
from ._history import History, Request
from ._ledger import Ledger
from ._loop import RunLoop, Timer
from ._steps import FROM_RECORD


class _Raised(NamedTuple):
    error: BaseException


class Delivery:
    """The results that are due, and those who await them."""

    def __init__(self, claimed: Claimed, codec: Codec, ledger: Ledger, history: History, loop: RunLoop) -> None:
        self.now = claimed.begun_at
        self.is_live = not history.undelivered
        self.unsettled: dict[Request, None] = {}
        """What was asked for and has no result yet, in the order asked."""
        self._codec = codec
        self._ledger = ledger
        self._history = history
        self._loop = loop
        self._due: list[tuple[int, int, Request | None, Checkpoint, Any]] = []
        self._sequence = count()
        if history.cancel is not None:
            self.push(None, history.cancel)

    def push(self, request: Request | None, checkpoint: Checkpoint, value: Any = FROM_RECORD) -> None:
        """Add a result that is on record, or ahead of it; without a request it is the run's cancel."""
        heapq.heappush(self._due, (checkpoint.ordinal, next(self._sequence), request, checkpoint, value))

    def next(self, withdraw: Callable[[Request], None]) -> bool:
        """Deliver the next result; return false when none may be delivered now."""
        while self._due and not self._ledger.is_blocked(self._due[0][0]):
            _, _, request, checkpoint, value = heapq.heappop(self._due)
            if checkpoint.ordinal <= self._history.last_ordinal:
                self._history.undelivered -= 1
            if request is None or not request.is_withdrawn:
                self._deliver(request, checkpoint, value, withdraw)
                return True
        return False

    def _deliver(
        self, request: Request | None, checkpoint: Checkpoint, value: Any, withdraw: Callable[[Request], None]
    ) -> None:
        outcome = value if request is None or value is not FROM_RECORD else self._decode(request, checkpoint)
        if not self._history.undelivered:
            self.is_live = True
        self.now = max(self.now, checkpoint.saved_at)
        self._loop.now = self.now.timestamp()
        if request is None:
            self._cancel_all(checkpoint, withdraw)
            return
        self.unsettled.pop(request, None)
        target, request.target, request.call = request.target, None, None
        if isinstance(target, Timer):
            target.fire(self._loop)
        elif target is not None and isinstance(outcome, _Raised):
            target.settle_error(outcome.error)
        elif target is not None:
            target.settle(outcome)

    def _decode(self, request: Request, checkpoint: Checkpoint) -> Any:
        plan = request.plan
        if checkpoint.error is not None:
            raises = plan.traits.options.raises if plan is not None else ()
            return _Raised(raised_by(checkpoint.error, request.key, raises, self._codec))
        if request.decode is not None:
            try:
                return request.decode(checkpoint)
            except TimedOut as error:
                return _Raised(error)
        if plan is None:
            return None
        return self._codec.decode(checkpoint.result, plan.traits.result_type, "step", request.key)

    def _cancel_all(self, checkpoint: Checkpoint, withdraw: Callable[[Request], None]) -> None:
        told = checkpoint.result if isinstance(checkpoint.result, dict) else {}
        for request in list(self.unsettled):
            target = request.target
            error = Cancelled(told.get("status", "cancelled"), told.get("reason"))
            if isinstance(target, Timer):
                sleeper = target.sleeper
                if sleeper is not None and not sleeper.done():
                    sleeper.set_exception(error)  # its sleep cancels the timer
            elif target is not None:
                withdraw(request)
                target.settle_error(error)

    def clear(self) -> None:
        """Forget everything."""
        self._due.clear()
        self.unsettled.clear()
