"""How a run leaves memory.

Invariants: what ends or suspends the run is acknowledged before its code is unwound (9); while it
unwinds, `run.*` raises at the call and nothing is saved (14); a run never ends while one of its steps
still runs (4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from ._engine import Save
from ._errors import Cancelled, ClaimLost, CodecError, Misuse
from ._failures import described, error_text

if TYPE_CHECKING:
    from ._execution import Execution
    from ._loop import RunLoop

logger = logging.getLogger("perdure")


class Unwinding(asyncio.CancelledError):
    """Raised by run.* while the run leaves memory."""


class Refusals:
    """How often a run was refused something while it leaves memory."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        """Raise, but for code that swallows it for ever, which would be here for ever."""
        self._count += 1
        if self._count <= 1_000:
            raise Unwinding("the run leaves memory; what is asked of it now has no effect")
        if self._count <= 1_100:
            raise SystemExit("the run leaves memory, and this code does not let it")


class Ending(Enum):
    """Why a run leaves memory."""

    RETURNED = auto()
    STUCK = auto()
    RELEASED = auto()
    GONE = auto()


_never_ended: list[RunLoop] = []


def never_ended() -> int:
    """Return how many runs left code behind that swallowed every cancellation."""
    return len(_never_ended)


def complete_at_once(execution: Execution, told: Callable[[Exception | None], None], last: Save | None = None) -> bool:
    """Complete a run of which nothing is left, without a task that waits for it; return false where there is more to do.

    With `last`, its last step is left, whose save goes along.
    """
    if len(execution.calls) != (0 if last is None else 1) or not execution.loop.is_empty:
        return False
    text, error = _outcome(execution)
    if error is not None:
        return False
    execution.is_unwinding = True
    execution.engine.complete_soon(execution.claimed, text, told, last)
    return True


async def conclude(execution: Execution, ending: Ending, refused: Exception | None = None) -> None:
    """Tell the engine how the run leaves, and unwind its code; log what cannot be told.

    `refused` is why a run that has returned cannot be completed, where that is known.
    """
    engine, claimed = execution.engine, execution.claimed
    try:
        if ending is Ending.RETURNED:
            await _end(execution, refused)
        elif ending is Ending.STUCK:
            error = execution.stuck
            assert error is not None
            await _quieten(execution)
            if execution.main is None:  # what it got stuck on is not on record
                await _release(execution)
            elif not execution.is_dropped:
                await _tell(execution, lambda: engine.fail(claimed, error_text(error, execution.codec)))
        elif ending is Ending.RELEASED:
            await _release(execution)
    finally:
        await _quieten(execution)
        await _unwind(execution)
        await _quiet(execution)
        execution.forget()


async def _release(execution: Execution) -> None:
    engine, claimed, reason = execution.engine, execution.claimed, execution.pause_reason
    if execution.is_dropped:
        return
    if reason is not None:
        logger.warning("workflow %s, run %s is paused: %s", execution.workflow.name, claimed.run_id, reason)
    await _tell(execution, lambda: engine.release(claimed, reason))


async def _end(execution: Execution, refused: Exception | None) -> None:
    """Complete or fail the run by what its function returned or raised."""
    engine, claimed = execution.engine, execution.claimed
    text, error = _outcome(execution) if refused is None else ("", refused)
    # Tasks that nobody waited for end with the run; their steps are waited for.
    await _unwind(execution)
    await _quieten(execution)
    if execution.is_dropped:
        return
    if error is None:
        try:
            await _tell(execution, lambda: engine.complete(claimed, text))
            return
        except Exception as too_large:  # noqa: BLE001  or refused by jsonb
            error = too_large
    if not isinstance(error, Cancelled):
        logger.warning("workflow %s, run %s fails: %s", execution.workflow.name, claimed.run_id, described(error))
    failed = error_text(error, execution.codec)
    try:
        await _tell(execution, lambda: engine.fail(claimed, failed))
    except Exception as unsaved:
        logger.exception("the end of run %s cannot be saved", claimed.run_id)
        reason = f"the end of the run cannot be saved: {described(unsaved)}"
        await _tell(execution, lambda: engine.release(claimed, reason))


def _outcome(execution: Execution) -> tuple[str, BaseException | None]:
    main = execution.main
    assert main is not None
    if main.cancelled():
        return "", asyncio.CancelledError("the workflow was cancelled by its own code")
    error = main.exception()
    if error is not None:
        return "", error
    if execution.unawaited:
        labels = ", ".join(sorted(pending.label for pending in execution.unawaited))
        return "", Misuse(f"never awaited: {labels}; await what run.* returns, or cancel it")
    try:
        return execution.codec.encode(main.result(), f"result of workflow {execution.workflow.name!r}"), None
    except CodecError as refused:
        return "", refused


async def _tell(execution: Execution, call: Callable[[], Awaitable[str]]) -> None:
    try:
        await call()
    except ClaimLost:
        execution.drop()


async def _quieten(execution: Execution) -> None:
    for call in execution.calls:
        call.cancel()
    await _quiet(execution)


async def _quiet(execution: Execution) -> None:
    execution.ledger.free()
    await execution.calls.until_quiet()


async def _unwind(execution: Execution) -> None:
    execution.is_unwinding = True
    if not execution.loop.is_empty:
        await _in_callback(lambda: _cancel_all(execution))


def _cancel_all(execution: Execution) -> None:
    if not execution.loop.unwind():
        _never_ended.append(execution.loop)
        logger.warning(
            "workflow %s, run %s: its code swallows every cancellation and stays in memory; let CancelledError pass",
            execution.workflow.name,
            execution.claimed.run_id,
        )


async def _in_callback(work: Callable[[], None]) -> None:
    """Run workflow code from a plain callback, never from inside a task."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def call() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  handed to who waits
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon(call)
    await done
