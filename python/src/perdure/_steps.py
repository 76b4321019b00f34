"""Steps: user code that runs on the worker's loop or in its threads, and its way into the record.

Invariants:

* A call is active from its start until its outcome is acknowledged, it is given up, or its last
  thread has ended, whichever is latest; a run neither ends nor suspends while one is active.
* Once its outcome is on the way into the record it is not cancelled any more (but by a lost claim).
* Retries are the database's: a failed try is told, and its answer obeyed. Only a transaction that met another
  one (a serialization failure, a deadlock, a lock) is begun anew here, and told of after the tenth time.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

from ._codec import parse
from ._engine import Checkpoint, FailedTry, Recorded, Save, Sent
from ._errors import ClaimLost
from ._failures import described, error_text, interrupted_text
from ._history import STARTED_KIND, Request, started_key
from ._options import Retry, StepInfo, running_step
from ._traits import StepPlan
from ._transactions import transact

if TYPE_CHECKING:
    from ._execution import Execution

logger = logging.getLogger("perdure")

SHORT_DELAY = timedelta(seconds=2)
"""A retry that is due sooner is waited for in memory."""


class Phase(Enum):
    """How far a try has come."""

    QUEUED = auto()
    RUNNING = auto()
    SAVING = auto()


_RESULT_OF = "result of step"

FROM_RECORD: Any = object()
"""Stands for a value that is to be decoded from the record."""


class StepCall:
    """One step of a run, over all its tries in this worker."""

    def __init__(self, host: Execution, request: Request) -> None:
        self.host = host
        self.request = request
        self.phase = Phase.QUEUED
        tries, self._retry_at = host.claimed.attempts.get(request.key, (0, None))
        self.attempt = tries + 1
        self.started_at: datetime | None = None
        self.info: StepInfo | None = None
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._sent: Sent | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._threads = 0
        self._owed_slots = 0
        self._is_cancelled = False

    # What the execution calls

    def start(self) -> None:
        """Begin the first try here, or wait for the one that is due."""
        plan = self.request.plan
        if plan is None:
            self._spawn(self._carry(self._save, self.request.text or "null", None))
        elif plan.at_most_once and self.host.was_started(self.request.key):
            self._spawn(self._carry(self._save, None, FROM_RECORD, interrupted_text(self.host.codec)))
        elif self._retry_at is not None:
            self._back_off(self._retry_at)
        else:
            self._spawn(self._try())

    def retry(self) -> None:
        """Begin the try that has become due."""
        self.request.retry_at = None
        self._timer = None
        self.phase = Phase.QUEUED
        self._spawn(self._try())

    def cancel(self) -> None:
        """Give the step up, unless its outcome is on the way into the record."""
        if self.info is not None:
            self.info.is_cancelled = True
        self._stop_timer()
        if self._task is not None and self.phase is not Phase.SAVING and not self._is_cancelled:
            self._is_cancelled = True  # once: a second one would cut off its clean-up
            self._cancel(self._task)

    def stop(self) -> None:
        """Begin nothing more; a try that runs goes on."""
        self._stop_timer()
        if self._task is not None and self.phase is Phase.QUEUED:
            self._cancel(self._task)

    def drop(self) -> None:
        """Cancel everything, also what is on its way into the record: the claim is lost."""
        self.cancel()
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._cancel(self._task)
        if self._sent is not None:
            self._sent.give_up()
            self._sent = None
        self._check_ended()

    # One try

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._has_begun = False
        self._task = self.host.context.copy().run(self._loop.create_task, work)

    async def _carry(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._has_begun = True
        try:
            await work(*args)
        except Exception as error:  # noqa: BLE001  the run hears of it
            self._refused(error)
        finally:
            self._work_ended()

    def _work_ended(self) -> None:
        """Come to the end of a task's work: not in a callback of it, which is one more round of the loop for each step."""
        self._task = None
        self._check_ended()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not self._has_begun:  # nor will it
            task.add_done_callback(lambda _: self._work_ended())
        task.cancel()

    def _refused(self, error: Exception) -> None:
        self._task = None
        if isinstance(error, ClaimLost):
            self.host.drop()
            return
        logger.error("step %r of run %s cannot be saved", self.request.key, self.host.claimed.run_id, exc_info=error)
        self.host.stop(f"step {self.request.key!r} cannot be saved: {described(error)}")

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is under way in this worker."""
        return (
            self._task is None and self._sent is None and self._timer is None and not self._threads
            and self.host.ahead.call is not self
        )  # fmt: skip

    def _check_ended(self) -> None:
        if self.is_over:
            self.host.call_ended(self)

    async def _try(self) -> None:
        # The outermost coroutine of its task: of a GeneratorExit that a future holds, those within hear by being closed.
        self._has_begun = True
        host, plan = self.host, self.request.plan
        assert plan is not None
        failure: BaseException | None = None
        text, value = "null", None
        try:
            await host.engine.step_slots.acquire()
            try:
                if self.request.is_withdrawn or host.is_stopping:
                    return
                if plan.at_most_once and not await self._mark_started():
                    return
                self.started_at = host.engine.now()
                if plan.is_transaction:
                    await transact(self)
                    return
                text, value = await self.invoke(plan.fn)
            except (ClaimLost, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  whatever the user's code raises is a failed try
                failure = error
            finally:
                self._leave_slot()
            if self.request.is_withdrawn or (isinstance(failure, asyncio.CancelledError) and host.is_stopping):
                return
            if failure is None:
                await self._save(text, value)
            else:
                await self.fail(failure)
        except Exception as error:  # noqa: BLE001  the run hears of it
            self._refused(error)
        finally:
            self._work_ended()

    def _leave_slot(self) -> None:
        if self._threads:
            self._owed_slots += 1  # the thread that could not be stopped still fills it
        else:
            self.host.engine.step_slots.release()

    async def invoke(self, fn: Callable[..., Any], *first: Any) -> tuple[str, Any]:
        """Run the function within its time-out; return its result as JSON text and as the run will see it."""
        plan, request = self.request.plan, self.request
        assert plan is not None
        self._begin_info(plan)
        self.phase = Phase.RUNNING
        args = (*first, *plan.args) if first else plan.args
        try:
            if plan.timeout is not None:
                value = await self._within(plan.timeout, partial(fn, *args, **plan.kwargs), plan.traits.is_async)
            elif plan.traits.is_async:
                value = await fn(*args, **plan.kwargs)
            else:
                value = await self._call(partial(fn, *args, **plan.kwargs))
        finally:
            self.phase = Phase.SAVING
        if request.is_withdrawn:
            raise asyncio.CancelledError
        codec = self.host.codec
        text = codec.encode(value, _RESULT_OF, request.key)
        return text, codec.decode(parse(text), plan.traits.result_type, _RESULT_OF, request.key)

    async def _within(self, timeout: timedelta, call: Callable[[], Any], is_async: bool) -> Any:
        task = asyncio.current_task()
        assert task is not None
        cut: list[bool] = []

        def cut_off() -> None:
            if self.phase is Phase.RUNNING:
                cut.append(True)
                task.cancel()

        timer = self._loop.call_later(timeout.total_seconds(), cut_off)
        error: BaseException | None = None
        value = None
        try:
            value = await (call() if is_async else self._call(call))
        except BaseException as raised:
            if not cut:
                raise
            error = raised
        finally:
            timer.cancel()
        if cut:
            if hasattr(task, "uncancel"):
                task.uncancel()
            if not self.request.is_withdrawn:
                shown = None if isinstance(error, asyncio.CancelledError) else error
                raise TimeoutError(f"no result within {timeout}") from shown
        return value

    def _begin_info(self, plan: StepPlan) -> None:
        deadline = self.host.claimed.deadline
        if plan.timeout is not None:
            cut_at = self.host.engine.now() + plan.timeout
            deadline = cut_at if deadline is None else min(cut_at, deadline)
        told = self.info.told_progress if self.info is not None else None
        self.info = StepInfo(self.request.key, self.attempt, self.host.claimed.run_id, deadline, told)
        running_step.set(self.info)

    async def _call(self, call: Callable[[], Any]) -> Any:
        """Run a plain function in a thread."""
        future = self.host.engine.threads.submit(contextvars.copy_context().run, _in_thread, call)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        value = await asyncio.wrap_future(future)
        return await value if inspect.iscoroutine(value) else value

    def _thread_done(self, _future: Future[Any]) -> None:  # called in the thread
        try:
            self._loop.call_soon_threadsafe(self._thread_ended)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            return

    def _thread_ended(self) -> None:
        self._threads -= 1
        if self._owed_slots:
            self._owed_slots -= 1
            self.host.engine.step_slots.release()
        self._check_ended()

    # Its way into the record

    async def _mark_started(self) -> bool:
        """Record that the step begins; return false when it was given up meanwhile."""
        self.phase = Phase.SAVING
        ordinal = await self.host.ledger.turn()
        key = started_key(self.request.key)
        mark = Save(key, STARTED_KIND, ordinal, None, None, "true", None, self.host.engine.now(), None)
        try:
            await self.host.engine.save(self.host.claimed, mark)
        finally:
            self.host.ledger.answered(ordinal)
        return not self.request.is_withdrawn

    async def _save(self, result: str | None, value: Any, error: str | None = None) -> None:
        """Send the outcome on its way into the record, or have it sent once the run rests; the answer comes to `_told`."""
        self.phase = Phase.SAVING
        host, ledger = self.host, self.host.ledger
        if ledger.is_held:
            await ledger.freed()
        save = self.save_of(ledger.next(), result, error, host.engine.now())
        if value is not FROM_RECORD and not self._threads and host.is_alone(self):
            host.ahead.deliver(self, save, value)
        else:
            self.send(save, value)

    def send(self, save: Save, value: Any = None) -> None:
        """Hand the outcome over; `value` is it as the run will see it."""
        self._sent = self.host.engine.save_soon(
            self.host.claimed, save, lambda answer: self._told(save.ordinal, value, answer)
        )

    def _told(self, ordinal: int, value: Any, answer: Recorded | Exception) -> None:
        self._sent = None
        host = self.host
        if host.ahead.call is self:
            host.ledger.answered(ordinal)
            host.ahead.answered(answer)
        elif isinstance(answer, Recorded):
            host.acknowledged(ordinal, self.request, answer.checkpoint, value if answer.is_new else FROM_RECORD)
        else:
            host.ledger.answered(ordinal)
        if isinstance(answer, ClaimLost):
            self._refused(answer)
        elif isinstance(answer, Exception):  # too large, or refused by jsonb: no other try would help
            self._spawn(self._carry(partial(self.fail, answer, is_final=True)))
        self._check_ended()

    def save_of(
        self, ordinal: int, result: str | None, error: str | None = None, saved_at: datetime | None = None
    ) -> Save:
        request = self.request
        return Save(
            request.key, request.kind, ordinal, request.name, request.fingerprint,
            result, error, self.started_at, self.attempt, saved_at,
        )  # fmt: skip

    async def fail(self, error: BaseException, *, is_final: bool = False) -> None:
        """Tell of a failed try, and obey: try again later, or raise in the workflow."""
        host, request = self.host, self.request
        self.phase = Phase.SAVING
        plan = request.plan
        retry, raises = (Retry(), ()) if plan is None else (plan.retry, plan.traits.options.raises)
        if is_final or (request.plan is not None and request.plan.at_most_once):
            retry = retry.once()
        logger.info(
            "run %s, step %s, try %s fails: %s", host.claimed.run_id, request.key, self.attempt, described(error)
        )
        text = error_text(error, host.codec, attempts=self.attempt)
        ordinal = await host.ledger.turn()
        attempt = FailedTry(
            request.key, request.kind, ordinal, request.name, request.fingerprint,
            self.attempt, text, retry.policy(raises), self.started_at,
        )  # fmt: skip
        try:
            answer = await host.engine.fail_step(host.claimed, attempt)
        except BaseException:
            host.ledger.answered(ordinal)
            raise
        if isinstance(answer, Checkpoint):
            host.acknowledged(ordinal, request, answer, FROM_RECORD)
            return
        host.ledger.answered(ordinal)
        self.attempt += 1
        if not request.is_withdrawn:
            self._back_off(answer)

    def _back_off(self, at: datetime) -> None:
        delay = at - self.host.engine.now()
        if self.host.is_stopping:
            return
        if delay > SHORT_DELAY:
            self.host.retry_later(self.request, at)
            return
        self._timer = self._loop.call_later(max(0.0, delay.total_seconds()), self.retry, context=self.host.context)

    def _stop_timer(self) -> None:
        self.request.retry_at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._check_ended()


def _in_thread(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StopIteration as error:  # no future takes one: it would never be done
        raise RuntimeError("the step raised StopIteration") from error
