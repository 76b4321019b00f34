"""The execution of one claimed run, to its end, its suspension, or the loss of its claim.

Invariants (the numbers are of the rules in the driver's design):

* Workflow code runs only inside `_advance`, which is called from plain callbacks of the worker's
  loop (1); what it asks for takes effect when it is at rest (3).
* Nothing new starts while a recorded result is due (5).
* The run leaves memory in one place, `Ending` says how; after that nothing is started or delivered, unless the end is
  refused together with the save that went along: then the save goes alone.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timezone
from time import monotonic
from typing import Any, ClassVar

from ._ahead import Ahead
from ._calls import Calls
from ._codec import Codec
from ._delivery import Delivery
from ._ending import Ending, Refusals, complete_at_once, conclude
from ._engine import Checkpoint, Claimed, Engine, Save
from ._errors import ClaimLost, DecodingFailed, Misuse, StepConflict, Stuck
from ._history import History, Request
from ._keys import Keys
from ._ledger import Ledger
from ._loop import RunLoop, Spinning, Timer, new_loop
from ._options import Retry
from ._pending import Pending, Race
from ._registry import Workflow
from ._run import AsyncRun
from ._steps import StepCall
from ._turns import Turns
from ._waits import Waits

logger = logging.getLogger("perdure")


@dataclass(frozen=True, slots=True)
class ExecutionOptions:
    """What the app sets for all its runs."""

    codec: Codec = field(default_factory=Codec)
    retry: Retry = field(default_factory=Retry)
    version: str | None = None
    turns: Turns = field(default_factory=Turns)


class Execution:
    """One claimed run in memory."""

    in_code: ClassVar[tuple[Execution, float] | None] = None
    """Whose workflow code runs at this moment, and since when (monotonic): the beat's thread looks at it."""

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
        self.is_stopping = False
        self.is_dropped = False
        self.is_unwinding = False
        self.pause_reason: str | None = None
        self.unawaited: dict[Pending[Any], None] = {}
        self.loop: RunLoop = new_loop(self, claimed.begun_at.timestamp())
        self.main: asyncio.Task[Any] | None = None
        self._history = History(claimed)
        self.ledger = Ledger(self._history.last_ordinal, self.schedule)
        self.ahead = Ahead(self)
        self.delivery = Delivery(claimed, self.codec, self.ledger, self._history, self.loop)
        self._asked: list[Request] = []
        self._withdrawn: list[Request] = []
        self._held: list[Request] = []
        self.calls = Calls(self.schedule)
        self._waits = Waits(self, is_told=claimed.cancel is not None and self._history.cancel is None)
        self._is_scheduled = False
        self._refuse = Refusals()
        self._worker_loop: asyncio.AbstractEventLoop | None = None
        self._left: Callable[[BaseException | None], None] | None = None
        self._ending: Ending | None = None
        self._concluding: asyncio.Task[None] | None = None

    # What the worker calls

    def begin(self, left: Callable[[BaseException | None], None]) -> None:
        """Carry the run to its end, its suspension, its release or the loss of its claim.

        Returns at once; `left` is called once it has left memory, with the error where the driver failed.
        """
        self._worker_loop = asyncio.get_running_loop()
        self._left = left
        if self.is_dropped:
            self.finish(Ending.GONE)
        self.schedule()

    async def run(self) -> None:
        """Carry the run as `begin` does, and wait until it has left memory; to be cancelled is to lose the claim."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begin(lambda error: gone.set_result(None) if error is None else gone.set_exception(error))
        try:
            await asyncio.shield(gone)
        except asyncio.CancelledError:
            self.drop()
            await gone
            raise

    def tell(self) -> None:
        """Note that something came for the run: look at the next rest."""
        self._waits.is_told = True
        self.schedule()

    def release_soon(self) -> None:
        """Start nothing more; once the steps in flight are saved, give the run back."""
        self.stop(None)

    def drop(self) -> None:
        """Cancel everything in memory and save nothing more: the claim is lost."""
        if self.is_dropped:
            return
        self.is_dropped = self.is_stopping = True
        self.ledger.free()
        self.ahead.drop()
        for call in self.calls:
            call.drop()
        self._waits.drop()
        self.finish(Ending.GONE)

    # What workflow code calls, by way of AsyncRun and the loop

    @property
    def is_replaying(self) -> bool:
        return not self.delivery.is_live

    @property
    def now(self) -> datetime:
        return self.delivery.now

    def enter(self) -> None:
        """Refuse a call that does not come from this run's own code."""
        if _get_running_loop() is not self.loop:
            raise Misuse(
                "run.* belongs in the code of its own workflow, not in a step, a thread or another run; "
                "a step returns what the workflow needs to go on"
            )
        if self.is_unwinding:
            self._refuse()

    def ask(self, request: Request) -> Pending[Any]:
        """Note what the run asks for; it takes effect at rest."""
        pending: Pending[Any] = Pending(repr(request.key), self.loop, self.unawaited, lambda: self._withdraw(request))
        if not self.is_unwinding:  # else it is never settled: the code that swallows all refusals stays here
            request.target = pending
            self._asked.append(request)
            self.delivery.unsettled[request] = None
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
        request.target, timer.request = timer, request
        self._asked.append(request)
        self.delivery.unsettled[request] = None

    def timer_cancelled(self, timer: Timer) -> None:
        request, timer.request = timer.request, None
        if request is not None:
            self._withdraw(request)

    def loop_error(self, context: dict[str, Any]) -> None:
        if not self.is_unwinding:
            logger.error(
                "in workflow %s, run %s: %s", self.workflow.name, self.claimed.run_id, context.get("message"),
                exc_info=context.get("exception"),
            )  # fmt: skip

    def _withdraw(self, request: Request) -> None:
        request.is_withdrawn = True
        request.target = None
        self.delivery.unsettled.pop(request, None)
        if not self.is_unwinding:
            self._withdrawn.append(request)

    # What steps call

    def was_started(self, key: str) -> bool:
        return self._history.was_started(key)

    def acknowledged(self, ordinal: int, request: Request, checkpoint: Checkpoint, value: Any) -> None:
        self.ledger.answered(ordinal)
        if checkpoint.ordinal == ordinal:
            self.delivery.push(request, checkpoint, value)
            self.schedule()
        else:
            self.stop(None)  # somebody else saved it: only a replay knows the order

    def is_alone(self, call: StepCall) -> bool:
        """Tell whether nothing of the run is under way but this step, whose result is here."""
        return (
            len(self.calls) == 1 and not self._waits and not self._waits.is_told
            and not self.is_stopping and not call.request.is_withdrawn
        )  # fmt: skip

    def retry_later(self, request: Request, at: datetime) -> None:
        self._waits.add_retry(request, at)

    def call_ended(self, call: StepCall) -> None:
        self.calls.ended(call)

    def stop(self, pause_reason: str | None) -> None:
        """Start nothing more; release the run once all is quiet, paused when there is a reason."""
        self.is_stopping = True
        self.pause_reason = self.pause_reason or pause_reason
        self.ledger.free()
        for call in self.calls:
            call.stop()
        self.schedule()

    # The machine

    def schedule(self) -> None:
        if not self._is_scheduled and self._worker_loop is not None and not self._worker_loop.is_closed():
            self._is_scheduled = True
            self.options.turns.add(self._worker_loop, self.context, self._drive)

    def _drive(self) -> None:
        self._is_scheduled = False
        if self._ending is not None:
            return
        Execution.in_code = (self, monotonic())
        try:
            self._advance()
        except (StepConflict, DecodingFailed, Misuse) as error:
            self.stop(f"{type(error).__name__}: {error}")
        except Spinning:
            self.finish(Ending.STUCK, Stuck("the run never comes to rest: a task spins without waiting for anything"))
        except Exception as error:
            logger.exception("in workflow %s, run %s", self.workflow.name, self.claimed.run_id)
            self.stop(f"the driver failed: {type(error).__name__}: {error}")
        finally:
            Execution.in_code = None

    def _advance(self) -> None:
        if self.main is None and not self.is_stopping:
            what, kind = f"input of workflow {self.workflow.name!r}", self.workflow.input_type
            # a start that names no input sends {}, also to a workflow that takes None
            value = None if kind in (None, type(None)) else self.codec.decode(self.claimed.input, kind, what)
            self.main = self.loop.create_task(self.workflow.fn(AsyncRun(self), value))
        while self.main is not None:
            if not self.is_stopping:
                self.loop.drain()
            self._cancel_withdrawn()
            if self.main.done() and self.ahead.call is None:
                self.finish(Ending.RETURNED)
                return
            if self.is_stopping or self._waits.is_asking:
                break
            self._take_asked()
            if not self.delivery.next(self._withdraw):
                break
        self._rest()

    def _cancel_withdrawn(self) -> None:
        withdrawn, self._withdrawn = self._withdrawn, []
        for request in withdrawn:
            self._waits.withdraw(request)
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
                self.delivery.push(request, record)
            elif request.kind in ("step", "transaction", "sql", "value"):
                self._held.append(request)
            else:
                self._waits.add(request)

    def _rest(self) -> None:
        waits = self._waits
        if self.ahead.call is not None:
            self.ahead.rest()
            return
        if waits.is_asking:
            return
        if self.is_stopping:
            if not self.calls:
                self.finish(Ending.RELEASED)
            return
        self.delivery.is_live = True
        if waits.is_told and (self._held or self.calls or not waits):
            waits.look()
            return
        self._start_held()
        if self.calls:
            if waits.has_new_signal:
                waits.look()
            else:
                waits.set_alarm()
        elif waits:
            waits.ask(keep=False)
        else:
            stuck = Stuck("nothing is in flight and nothing is waited for: nobody will ever wake the run")
            self.finish(Ending.STUCK, stuck)

    def _start_held(self) -> None:
        held, self._held = self._held, []
        for request in held:
            if not request.is_withdrawn:
                self.calls.start(StepCall(self, request), StepCall.start)

    # What the waits call

    def push_answer(self, request: Request | None, checkpoint: Checkpoint) -> None:
        self.delivery.push(request, checkpoint)

    def retry_now(self, request: Request) -> None:
        if request.call is not None:
            self.calls.start(request.call, StepCall.retry)

    # The end

    def finish(self, ending: Ending, error: Stuck | None = None) -> None:
        self._waits.clear_alarm()
        self.ahead.send()
        if self._worker_loop is None or self._ending is not None:
            return
        self.stuck, self._ending = error, ending
        if ending is not Ending.RETURNED or not complete_at_once(self, self._completed):
            self._conclude(ending, None)

    def complete_with(self, last: Save) -> bool:
        """End a run that has returned together with the save of its last step; return false where there is more to do."""
        is_complete = complete_at_once(self, self._completed, last)
        if is_complete:
            self._ending = Ending.RETURNED
        return is_complete

    def forsake(self) -> None:
        """Give the memory up: whoever claims the run next goes on from the record."""
        if self.main is not None and self.main.done() and not self.main.cancelled():
            self.main.exception()  # else asyncio complains that nobody has seen it
        self.main = self.pause_reason = None
        self.stop(None)

    def _completed(self, refused: Exception | None) -> None:
        if refused is None or isinstance(refused, ClaimLost):
            self.is_dropped |= refused is not None
            self.forget()
            self._leave(None)
        elif self.ahead.call is not None:  # the save or the end: the save alone will tell
            self._ending, self.is_unwinding = None, False
            self.ahead.send()
        else:
            self._conclude(Ending.RETURNED, refused)

    def _conclude(self, ending: Ending, refused: Exception | None) -> None:
        assert self._worker_loop is not None
        self._concluding = self._worker_loop.create_task(conclude(self, ending, refused))
        self._concluding.add_done_callback(lambda task: self._leave(None if task.cancelled() else task.exception()))

    def _leave(self, error: BaseException | None) -> None:
        left, self._left, self._concluding = self._left, None, None
        if left is not None:
            left(error)

    def forget(self) -> None:
        """Let go of everything, so that it is freed without the collector."""
        self.ledger.close()
        self.loop.close()
        self._waits.drop()
        self.delivery.clear()
        self.ahead.drop()
        self.calls.clear()
        for kept in (self.unawaited, self._held, self._asked, self._withdrawn):
            kept.clear()
        self.main = None
