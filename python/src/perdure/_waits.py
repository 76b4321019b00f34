"""What a run waits for, and how the engine is asked for it.

Invariants: the engine is asked only when all saves that were handed over are acknowledged, and none
is handed over until it answers, since it chooses the ordinal of what it answers (6, 8); with steps
in flight it is only asked to look (10): when something came, when a wait for a signal is new, and
when a time-out is due here.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import weakref
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING

from ._ending import Ending
from ._engine import Answered, Checkpoint, RetryDue, StillWaiting, SuspendAnswer, Wait
from ._errors import ClaimLost
from ._history import CANCEL_KIND, Request

if TYPE_CHECKING:
    from ._execution import Execution

logger = logging.getLogger("perdure")

_LOOK_PAUSE = 0.1
"""Seconds between two looks at a wait that is due by the clock here and not yet by the database's."""


class Waits:
    """The open waits of a run, in the order asked."""

    def __init__(self, host: Execution, *, is_told: bool) -> None:
        self._host: Execution = weakref.proxy(host)  # no cycle: a run is freed without the collector
        self._open: dict[str, Request] = {}
        self._question: asyncio.Task[SuspendAnswer] | None = None
        self._times: list[tuple[datetime, int, Request]] = []
        self._sequence = count()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at: datetime | None = None
        self._look_after = 0.0
        self.is_told = is_told
        self.has_new_signal = False

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def is_asking(self) -> bool:
        """Whether the engine has been asked and has not answered."""
        return self._question is not None

    def add(self, request: Request) -> None:
        """Open a wait."""
        self._open[request.key] = request
        self.has_new_signal |= request.kind == "signal"
        if request.until is not None:
            heapq.heappush(self._times, (request.until, next(self._sequence), request))

    def add_retry(self, request: Request, at: datetime) -> None:
        """Wait for a step's next try."""
        request.retry_at = at
        self._open[request.key] = request
        heapq.heappush(self._times, (at, next(self._sequence), request))

    def withdraw(self, request: Request) -> None:
        """Close a wait that nobody awaits any more."""
        if self._open.get(request.key) is request:
            del self._open[request.key]

    def look(self) -> None:
        """Ask whether a wait has its answer, once all saves are acknowledged."""
        self._host.ledger.hold()
        if not self._host.ledger.sent:  # else the acknowledgement of the last comes here again
            self.ask(keep=True)

    def ask(self, *, keep: bool) -> None:
        """Suspend the run on its waits, or with `keep` only look."""
        host = self._host
        self.is_told = self.has_new_signal = False
        host.ledger.hold()
        waits = [
            Wait(r.key, r.kind, r.name, r.until) if r.retry_at is None else Wait(r.key, "retry", None, r.retry_at)
            for r in self._open.values()
        ]
        work = host.engine.suspend(host.claimed, waits, keep=keep)
        self._question = host.context.copy().run(asyncio.get_running_loop().create_task, work)
        self._question.add_done_callback(lambda task: self._answered(task, keep))

    def _answered(self, task: asyncio.Task[SuspendAnswer], keep: bool) -> None:
        host = self._host
        self._question = None
        try:
            answer = task.result()
        except asyncio.CancelledError:
            return
        except ClaimLost:
            host.drop()
            return
        except Exception as error:
            logger.exception("run %s cannot be suspended", host.claimed.run_id)
            host.stop(f"the run cannot be suspended: {type(error).__name__}: {error}")
            return
        if isinstance(answer, Answered):
            self._take(answer.checkpoint)
            self.is_told = self.is_told or keep  # there may be more
        elif isinstance(answer, RetryDue):
            self._retry_earliest()
        elif isinstance(answer, StillWaiting):
            self._look_after = task.get_loop().time() + _LOOK_PAUSE
            self.clear_alarm()  # to be set anew: the clocks may have moved
        else:
            host.finish(Ending.GONE)
        host.ledger.free()
        host.schedule()

    def _take(self, checkpoint: Checkpoint) -> None:
        self._host.ledger.last = max(self._host.ledger.last, checkpoint.ordinal)
        if checkpoint.kind == CANCEL_KIND:
            self._host.push_answer(None, checkpoint)
            return
        request = self._open.pop(checkpoint.key, None)
        if request is None:
            self._host.stop(None)  # an answer to what was not asked here: replay finds its place
        else:
            self._host.push_answer(request, checkpoint)

    def _retry_earliest(self) -> None:
        due = [(request.retry_at, key) for key, request in self._open.items() if request.retry_at is not None]
        if due and not self._host.is_stopping:
            self._host.retry_now(self._open.pop(min(due)[1]))

    def set_alarm(self) -> None:
        """Wake the run when the first of its waits is due, while steps are in flight."""
        times = self._times
        if not times and self._alarm is None:
            return
        while times and (self._open.get(times[0][2].key) is not times[0][2] or times[0][0] != _due_at(times[0][2])):
            heapq.heappop(times)
        at = times[0][0] if times else None
        loop = asyncio.get_running_loop()
        if self._alarm is not None and at == self._alarm_at:
            return
        self.clear_alarm()
        if at is not None:
            due = (at - self._host.engine.now()).total_seconds()
            self._alarm_at = at
            delay = max(due, self._look_after - loop.time(), 0.0)
            self._alarm = loop.call_later(delay, self._ring, context=self._host.context)

    def clear_alarm(self) -> None:
        """Forget the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        now = self._host.engine.now()
        if any(request.retry_at is not None and request.retry_at <= now for request in self._open.values()):
            self._retry_earliest()
        else:
            self.is_told = True
        self._host.schedule()

    def drop(self) -> None:
        """Forget everything."""
        self.clear_alarm()
        self._open.clear()
        self._times.clear()
        if self._question is not None:
            self._question.cancel()


def _due_at(request: Request) -> datetime | None:
    return request.retry_at or request.until
