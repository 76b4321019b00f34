"""The execution of one claimed run, to its end, its suspension, or the loss of its claim.

Invariants (the numbers are of the rules in the driver's design):

* Workflow code runs only inside `_advance`, which is called from plain callbacks of the worker's
  loop (1); what it asks for takes effect when it is at rest (3).
* Results are delivered one at a time, lowest ordinal first, and never before an earlier save is
  acknowledged; nothing new starts while a recorded result is due (5, 6).
* While the engine is asked (`suspend`), no workflow code runs and no save is handed over (8, 9, 10).
* The run is given up in one place, `_Ending` says how; after that nothing is started or delivered.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import count
from typing import Any

from ._codec import Codec
from ._ending import Ending, Unwinding, conclude
from ._engine import (
    Answered,
    Checkpoint,
    Claimed,
    Ended,
    Engine,
    RetryDue,
    StillWaiting,
    SuspendAnswer,
    Suspended,
    Wait,
)
from ._errors import Cancelled, ClaimLost, DecodingFailed, Misuse, StepConflict, Stuck, TimedOut
from ._failures import raised_by
from ._history import History, Request
from ._keys import Keys
from ._ledger import Ledger
from ._loop import RunLoop, Spinning, Timer, new_loop
from ._options import Retry
from ._pending import Pending, Race
from ._registry import Workflow
from ._run import AsyncRun
from ._steps import FROM_RECORD, Phase, StepCall

logger = logging.getLogger("perdure")

_LOOK_PAUSE = 0.1
"""Seconds between two looks at a wait that is due here and not yet there."""


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """What the app sets for all its runs."""

    codec: Codec = field(default_factory=Codec)
    retry: Retry = field(default_factory=Retry)
    version: str | None = None


class Execution:
    """One claimed run in memory."""

    def __init__(
        self, claimed: Claimed, workflow: Workflow[Any, Any], options: ExecutionOptions, engine: Engine
    ) -> None:
        self.claimed = claimed
        self.workflow = workflow
        self.options = options
        self.codec = options.codec
        self.engine = engine
        self.context = copy_context()
        self.keys = Keys()
        self.now = claimed.created_at
        self.is_stopping = False
        self.is_dropped = False
        self.is_unwinding = False
        self.pause_reason: str | None = None
        self.unawaited: dict[asyncio.Future[Any], None] = {}
        self.loop: RunLoop = new_loop(self, self.now.timestamp())
        self.main: asyncio.Task[Any] | None = None
        self._history = History(claimed)
        self.ledger = Ledger(self._history.last_ordinal)
        self._asked: list[Request] = []
        self._unsettled: dict[Request, None] = {}
        self._withdrawn: list[Request] = []
        self._due: list[tuple[int, int, Request | None, Checkpoint, Any]] = []
        self._sequence = count()
        self._held: list[Request] = []
        self._open: dict[str, Request] = {}
        self.calls: dict[StepCall, None] = {}
        self._question: asyncio.Task[SuspendAnswer] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_told = claimed.cancel is not None and self._history.cancel is None
        self._has_new_signal = False
        self._look_after = 0.0
        self._is_live = not self._history.undelivered
        self._is_scheduled = False
        self._refusals = 0
        self._worker_loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Future[Ending] | None = None
        self._quiet: asyncio.Future[None] | None = None
        if self._history.cancel is not None:
            self._push(None, self._history.cancel, FROM_RECORD)

    # What the worker calls

    async def run(self) -> None:
        """Carry the run to its end, its suspension, its release or the loss of its claim."""
        self._worker_loop = asyncio.get_running_loop()
        self._end = self._worker_loop.create_future()
        if self.is_dropped:
            self._finish(Ending.DROPPED)
        self._schedule()
        try:
            ending = await self._end
        except asyncio.CancelledError:
            self.drop()
            await conclude(self, Ending.DROPPED)
            raise
        await conclude(self, ending)

    def tell(self) -> None:
        """Note that something came for the run: look at the next rest."""
        self._is_told = True
        self._schedule()

    def release_soon(self) -> None:
        """Start nothing more; once the steps in flight are saved, give the run back."""
        self.stop(None)

    def drop(self) -> None:
        """Cancel everything in memory and save nothing more: the claim is lost."""
        if self.is_dropped:
            return
        self.is_dropped = self.is_stopping = True
        self.ledger.free()
        for call in list(self.calls):
            call.drop()
        if self._question is not None:
            self._question.cancel()
        self._finish(Ending.DROPPED)

    @property
    def running(self) -> list[tuple[str, datetime, Any]]:
        """The steps whose code runs now: key, since when, and what they told of their progress."""
        return [
            (call.request.key, call.started_at, call.info.told_progress)
            for call in self.calls
            if call.phase is Phase.RUNNING and call.started_at is not None and call.info is not None
        ]

    # What workflow code calls, by way of AsyncRun and the loop

    @property
    def is_replaying(self) -> bool:
        return not self._is_live

    def enter(self) -> None:
        """Refuse a call that does not come from this run's own code."""
        if _get_running_loop() is not self.loop:
            raise Misuse(
                "run.* belongs in the code of its own workflow, not in a step, a thread or another run; "
                "a step returns what the workflow needs to go on"
            )
        if self.is_unwinding:
            self._refuse()

    def _refuse(self) -> None:
        self._refusals += 1
        if self._refusals <= 1_000:
            raise Unwinding("the run leaves memory; what is asked of it now has no effect")
        if self._refusals <= 1_100:
            raise SystemExit("the run leaves memory, and this code does not let it")

    def ask(self, request: Request) -> Pending[Any]:
        """Note what the run asks for; it takes effect at rest."""
        pending: Pending[Any] = Pending(repr(request.key), self.loop, self.unawaited, lambda: self._withdraw(request))
        if not self.is_unwinding:  # else it is never settled: the code that swallows all refusals stays here
            request.target = pending
            self._asked.append(request)
            self._unsettled[request] = None
        return pending

    def race(self, racers: Mapping[str, asyncio.Future[Any]]) -> Race:
        return Race(racers, self.loop, self.unawaited)

    def timer_opened(self, timer: Timer) -> None:
        if self.is_unwinding:
            self._refuse()
            return
        key, number = self.keys.number("~timer")
        until = datetime.fromtimestamp(timer.at, timezone.utc)
        request = Request(key, "timer", number=number, until=until)
        request.target = timer
        self._asked.append(request)
        self._unsettled[request] = None

    def timer_cancelled(self, timer: Timer) -> None:
        for request in reversed(self._unsettled):
            if request.target is timer:
                self._withdraw(request)
                return

    def loop_error(self, context: dict[str, Any]) -> None:
        if not self.is_unwinding:
            logger.error(
                "in workflow %s, run %s: %s", self.workflow.name, self.claimed.run_id, context.get("message"),
                exc_info=context.get("exception"),
            )  # fmt: skip

    def _withdraw(self, request: Request) -> None:
        request.is_withdrawn = True
        request.target = None
        self._unsettled.pop(request, None)
        if not self.is_unwinding:
            self._withdrawn.append(request)

    # What steps call

    def was_started(self, key: str) -> bool:
        return self._history.was_started(key)

    def acknowledged(self, ordinal: int, request: Request, checkpoint: Checkpoint, value: Any) -> None:
        self.ledger.answered(ordinal)
        if checkpoint.ordinal == ordinal:
            self._push(request, checkpoint, value)
            self._schedule()
        else:
            self.stop(None)  # somebody else saved it: only a replay knows the order

    def retry_later(self, request: Request, at: datetime) -> None:
        request.retry_at = at
        self._open[request.key] = request

    def call_ended(self, call: StepCall) -> None:
        self.calls.pop(call, None)
        if not self.calls and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)
        self._schedule()

    def stop(self, pause_reason: str | None) -> None:
        """Start nothing more; release the run once all is quiet, paused when there is a reason."""
        self.is_stopping = True
        self.pause_reason = self.pause_reason or pause_reason
        self.ledger.free()
        for call in list(self.calls):
            call.stop()
        self._schedule()

    # The machine

    def _schedule(self) -> None:
        if not self._is_scheduled and self._worker_loop is not None and not self._worker_loop.is_closed():
            self._is_scheduled = True
            self._worker_loop.call_soon(self._drive, context=self.context)

    def _drive(self) -> None:
        self._is_scheduled = False
        if self._end is None or self._end.done():
            return
        try:
            self._advance()
        except (StepConflict, DecodingFailed, Misuse) as error:
            self.stop(f"{type(error).__name__}: {error}")
        except Spinning:
            self._finish(Ending.STUCK, Stuck("the run never comes to rest: a task spins without waiting for anything"))
        except Exception as error:
            logger.exception("in workflow %s, run %s", self.workflow.name, self.claimed.run_id)
            self.stop(f"the driver failed: {type(error).__name__}: {error}")

    def _advance(self) -> None:
        if self.main is None and not self.is_stopping:
            what = f"input of workflow {self.workflow.name!r}"
            value = self.codec.decode(self.claimed.input, self.workflow.input_type, what)
            self.main = self.loop.create_task(self.workflow.fn(AsyncRun(self), value))
        while self.main is not None:
            if not self.is_stopping:
                self.loop.drain()
            self._cancel_withdrawn()
            if self.main.done():
                self._finish(Ending.RETURNED)
                return
            if self.is_stopping or self._question is not None:
                break
            self._take_asked()
            if not self._deliver_next():
                break
        self._rest()

    def _cancel_withdrawn(self) -> None:
        withdrawn, self._withdrawn = self._withdrawn, []
        for request in withdrawn:
            if self._open.get(request.key) is request:
                del self._open[request.key]
            if request.call is not None:
                request.call.cancel()
                request.call = None

    def _take_asked(self) -> None:
        asked, self._asked = self._asked, []
        for request in asked:
            if request.is_withdrawn:
                continue
            record = self._history.take(request)
            if record is not None:
                self._push(request, record, FROM_RECORD)
            elif request.kind in ("step", "transaction", "sql", "value"):
                self._held.append(request)
            else:
                self._open[request.key] = request
                self._has_new_signal |= request.kind == "signal"

    def _push(self, request: Request | None, checkpoint: Checkpoint, value: Any) -> None:
        heapq.heappush(self._due, (checkpoint.ordinal, next(self._sequence), request, checkpoint, value))

    def _deliver_next(self) -> bool:
        while self._due and not self.ledger.is_blocked(self._due[0][0]):
            _, _, request, checkpoint, value = heapq.heappop(self._due)
            if checkpoint.ordinal <= self._history.last_ordinal:
                self._history.undelivered -= 1
            if request is not None and request.is_withdrawn:
                continue
            self._deliver(request, checkpoint, value)
            return True
        return False

    def _deliver(self, request: Request | None, checkpoint: Checkpoint, value: Any) -> None:
        outcome = value if request is None or value is not FROM_RECORD else self._decode(request, checkpoint)
        if not self._history.undelivered:
            self._is_live = True
        self.now = max(self.now, checkpoint.saved_at)
        self.loop.now = self.now.timestamp()
        if request is None:
            self._cancel_all(checkpoint)
            return
        self._unsettled.pop(request, None)
        target, request.target, request.call = request.target, None, None
        if isinstance(target, Timer):
            target.fire(self.loop)
        elif target is not None and isinstance(outcome, _Raised):
            target.settle_error(outcome.error)
        elif target is not None:
            target.settle(outcome)

    def _decode(self, request: Request, checkpoint: Checkpoint) -> Any:
        plan = request.plan
        if checkpoint.error is not None:
            return _Raised(
                raised_by(checkpoint.error, request.key, plan.raises if plan is not None else (), self.codec)
            )
        if request.decode is not None:
            try:
                return request.decode(checkpoint)
            except TimedOut as error:
                return _Raised(error)
        return None if plan is None else self.codec.decode(checkpoint.result, plan.result_type, f"step {request.key!r}")

    def _cancel_all(self, checkpoint: Checkpoint) -> None:
        told = checkpoint.result if isinstance(checkpoint.result, dict) else {}
        for request in list(self._unsettled):
            target = request.target
            error = Cancelled(told.get("status", "cancelled"), told.get("reason"))
            if isinstance(target, Timer):
                sleeper = target.sleeper
                if sleeper is not None and not sleeper.done():
                    sleeper.set_exception(error)  # its sleep cancels the timer
            elif target is not None:
                self._withdraw(request)
                target.settle_error(error)

    def _rest(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._question is not None:
            return
        if self.is_stopping:
            if not self.calls:
                self._finish(Ending.RELEASED)
            return
        if self._is_told and (self._held or self.calls or not self._open):
            self._look()
            return
        self._start_held()
        if self.calls:
            if self._has_new_signal:
                self._look()
            else:
                self._set_alarm()
        elif self._open:
            self._ask_engine(keep=False)
        else:
            self._finish(
                Ending.STUCK, Stuck("nothing is in flight and nothing is waited for: nobody will ever wake the run")
            )

    def _start_held(self) -> None:
        held, self._held = self._held, []
        for request in held:
            if not request.is_withdrawn:
                self._is_live = True
                self._start(StepCall(self, request), lambda call: call.start())

    def _start(self, call: StepCall, begin: Callable[[StepCall], None]) -> None:
        call.request.call = call
        self.calls[call] = None
        begin(call)
        if call.is_over:  # it waits for a retry that is due later
            self.calls.pop(call, None)

    # Asking the engine

    def _look(self) -> None:
        self.ledger.hold()
        if not self.ledger.sent:  # else the last of them comes here again
            self._ask_engine(keep=True)

    def _ask_engine(self, *, keep: bool) -> None:
        self._is_live = True
        self._is_told = self._has_new_signal = False
        self.ledger.hold()
        waits = [
            Wait(r.key, r.kind, r.name, r.until) if r.retry_at is None else Wait(r.key, "retry", None, r.retry_at)
            for r in self._open.values()
        ]
        assert self._worker_loop is not None
        work = self.engine.suspend(self.claimed, waits, keep=keep)
        self._question = self.context.copy().run(self._worker_loop.create_task, work)
        self._question.add_done_callback(lambda task: self._answered(task, keep))

    def _answered(self, task: asyncio.Task[SuspendAnswer], keep: bool) -> None:
        self._question = None
        try:
            answer = task.result()
        except asyncio.CancelledError:
            return
        except ClaimLost:
            self.drop()
            return
        except Exception as error:
            logger.exception("run %s cannot be suspended", self.claimed.run_id)
            self.stop(f"the run cannot be suspended: {type(error).__name__}: {error}")
            return
        if isinstance(answer, Answered):
            self._take_answer(answer.checkpoint)
            self._is_told = self._is_told or keep  # there may be more
        elif isinstance(answer, RetryDue):
            self._retry_earliest()
        elif isinstance(answer, StillWaiting):
            self._look_after = task.get_loop().time() + _LOOK_PAUSE
        elif isinstance(answer, Suspended | Ended):
            self._finish(Ending.SUSPENDED if isinstance(answer, Suspended) else Ending.ENDED)
        self.ledger.free()
        self._schedule()

    def _take_answer(self, checkpoint: Checkpoint) -> None:
        self.ledger.last = max(self.ledger.last, checkpoint.ordinal)
        if checkpoint.kind == "cancel":
            self._push(None, checkpoint, FROM_RECORD)
            return
        request = self._open.pop(checkpoint.key, None)
        if request is None:
            self.stop(None)  # an answer to what was not asked here: replay finds its place
        else:
            self._push(request, checkpoint, FROM_RECORD)

    def _retry_earliest(self) -> None:
        due = [(r.retry_at, key) for key, r in self._open.items() if r.retry_at is not None]
        if due and not self.is_stopping:
            request = self._open.pop(min(due)[1])
            if request.call is not None:
                self._start(request.call, lambda call: call.retry())

    def _set_alarm(self) -> None:
        times = [at for r in self._open.values() if (at := r.retry_at or r.until) is not None]
        if times and self._worker_loop is not None:
            due = (min(times) - self.engine.now()).total_seconds()
            pause = self._look_after - self._worker_loop.time()
            self._alarm = self._worker_loop.call_later(max(due, pause, 0.0), self._ring, context=self.context)

    def _ring(self) -> None:
        self._alarm = None
        now = self.engine.now()
        if any(r.retry_at is not None and r.retry_at <= now for r in self._open.values()):
            self._retry_earliest()
        else:
            self._is_told = True
        self._schedule()

    # The end

    def _finish(self, ending: Ending, error: Stuck | None = None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self.stuck = error
        if self._end is not None and not self._end.done():
            self._end.set_result(ending)

    async def until_quiet(self) -> None:
        """Wait until the last step in flight has ended."""
        self.ledger.free()
        while self.calls:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet

    def forget(self) -> None:
        """Let go of everything, so that it is freed without the collector."""
        self.loop.close()
        for kept in (self._unsettled, self._open, self.unawaited, self._held, self._asked, self._due, self._withdrawn):
            kept.clear()
        self.main = None


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException
