"""An engine in memory, for the tests of the execution alone.

Why there is one, in a repository that does not mock Postgres: these tests are about what the execution
does with the engine's answers, in thousands of random programs that are killed between any two of
them. Everything that is about the engine itself is tested against Postgres, elsewhere.

What it keeps to is the contract of `perdure._engine`: saves are fenced by the claim and written once
per key; at most one wait is answered per call, the first in the order asked; JSON goes through what
jsonb does to it; ordinals of waits are chosen here. A kill happens just before or just after a commit,
and nothing that was under way in the killed worker gets an answer.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from perdure._engine import (
    Answered,
    Checkpoint,
    Claimed,
    FailedTry,
    LetGo,
    Recorded,
    RetryDue,
    Save,
    StillWaiting,
    SuspendAnswer,
    Wait,
)
from perdure._errors import ClaimLost, StepConflict
from perdure._execution import Execution, ExecutionOptions
from perdure._registry import Workflow
from support import always_suspend
from support.always_suspend import AlwaysSuspending

THREADS = ThreadPoolExecutor(8)


def jsonb(text: str) -> Any:
    """Return what jsonb gives back for a JSON text."""
    return _stored(json.loads(text, parse_float=Decimal))


def _stored(data: Any) -> Any:
    if isinstance(data, Decimal):
        plain = format(data, "f")
        value = float(plain) if "." in plain else int(plain)
        return 0.0 if value == 0 and isinstance(value, float) else value
    if isinstance(data, dict):
        return {k: _stored(data[k]) for k in sorted(data, key=lambda k: (len(k.encode()), k.encode()))}
    if isinstance(data, list):
        return [_stored(item) for item in data]
    if isinstance(data, str) and "\0" in data:
        raise ValueError("unsupported Unicode escape sequence")
    return data


@dataclass
class Row:
    """A run in the database."""

    run_id: UUID
    workflow: str
    input: Any
    created_at: datetime
    steps: dict[str, Checkpoint] = field(default_factory=dict)
    attempts: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    signals: list[tuple[str, Any]] = field(default_factory=list)
    cancel: str | None = None
    claim: UUID | None = None
    ready_at: datetime | None = None
    waits: list[Wait] = field(default_factory=list)
    status: str | None = None
    result: Any = None
    error: Any = None
    pause_reason: str | None = None

    def add(self, checkpoint: Checkpoint) -> Checkpoint:
        assert checkpoint.key not in self.steps
        assert all(c.ordinal != checkpoint.ordinal for c in self.steps.values()), "an ordinal was given twice"
        self.steps[checkpoint.key] = checkpoint
        return checkpoint

    @property
    def next_ordinal(self) -> int:
        return max((c.ordinal for c in self.steps.values()), default=0) + 1


class Store:
    """The database: rows and a clock that tests can move."""

    def __init__(self) -> None:
        self.rows: dict[UUID, Row] = {}
        self.offset = timedelta(0)
        self.log: list[str] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=timezone.utc) + timedelta(seconds=time.monotonic() % 100_000) + self.offset

    def skip(self, delay: timedelta) -> None:
        self.offset += delay

    def start(self, workflow: Workflow[Any, Any], input: Any = None) -> Row:
        row = Row(uuid4(), workflow.name, jsonb(json.dumps(input)), self.now())
        self.rows[row.run_id] = row
        return row

    def claim(self, row: Row, attempt: int = 0) -> Claimed:
        row.claim = uuid4()
        row.ready_at = None
        if row.waits:
            look(self, row, row.waits)
            row.waits = []
        steps = sorted(row.steps.values(), key=lambda c: c.ordinal)
        attempts = {key: tries for key, tries in row.attempts.items() if key not in row.steps}
        return Claimed(
            row.run_id, row.claim, row.workflow, row.input, None, {}, {}, row.created_at, None, None,
            row.cancel, 0, steps, attempts,
        )  # fmt: skip


def look(store: Store, row: Row, waits: Sequence[Wait]) -> SuspendAnswer | None:
    now = store.now()
    if row.cancel is not None and "~cancel" not in row.steps:
        told = {"status": row.cancel, "reason": "asked"}
        return Answered(row.add(Checkpoint(row.next_ordinal, "~cancel", "cancel", None, None, True, told, None, now)))
    for wait in waits:
        if wait.kind == "signal":
            found = next((s for s in row.signals if s[0] == wait.name), None)
            if found is not None:
                row.signals.remove(found)
                return Answered(answer(store, row, wait, True, found[1]))
        if wait.until is not None and wait.until <= now:
            if wait.kind == "retry":
                return RetryDue()
            return Answered(answer(store, row, wait, False, None))
    return None


def answer(store: Store, row: Row, wait: Wait, has_result: bool, result: Any) -> Checkpoint:
    return row.add(
        Checkpoint(row.next_ordinal, wait.key, wait.kind, wait.name, None, has_result, result, None, store.now())
    )


class FakeEngine:
    """One worker's engine; `kill_after` commits of its own it dies, before or after the commit."""

    def __init__(
        self, store: Store, *, chance: random.Random | None = None, kill_after: int | None = None, slots: int = 50
    ) -> None:
        self.store = store
        self.step_slots = asyncio.Semaphore(slots)
        self.threads = THREADS
        self.chance = chance
        self.kill_after = kill_after
        self.is_dead = False
        self.executions: list[Execution] = []
        self.calls: list[str] = []
        self.fail_next: dict[str, list[BaseException]] = {}

    def now(self) -> datetime:
        return self.store.now()

    def kill(self) -> None:
        self.is_dead = True
        for execution in self.executions:
            execution.drop()

    async def _arrive(self, what: str, run: Claimed) -> Row:
        """Travel to the database; die before the commit, if it is time."""
        self.calls.append(what)
        if self.fail_next.get(what):
            raise self.fail_next[what].pop(0)
        if self.chance is not None:
            for _ in range(self.chance.choice((0, 1, 1, 2, 5))):
                await asyncio.sleep(0)
        row = self.store.rows[run.run_id]
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0 and (self.chance is None or self.chance.random() < 0.5):
                self.kill()
        if self.is_dead or row.claim != run.claim or row.status is not None:
            raise ClaimLost("the claim is lost")
        return row

    async def _commit(self) -> None:
        """Travel back; die after the commit, if it is time."""
        if self.kill_after is not None and self.kill_after < 0:
            self.kill()
        if self.chance is not None:
            for _ in range(self.chance.choice((0, 0, 1, 3))):
                await asyncio.sleep(0)
        if self.is_dead:
            raise ClaimLost("the claim is lost")

    def _checkpoint(self, save: Save) -> Checkpoint:
        assert (save.result_text is None) != (save.error_text is None)
        return Checkpoint(
            save.ordinal, save.key, save.kind, save.name, save.fingerprint, save.error_text is None,
            None if save.result_text is None else jsonb(save.result_text),
            None if save.error_text is None else jsonb(save.error_text), save.saved_at or self.now(),
        )  # fmt: skip

    async def save(self, run: Claimed, save: Save) -> Recorded:
        row = await self._arrive("save", run)
        known = row.steps.get(save.key)
        checkpoint = known or row.add(self._checkpoint(save))
        await self._commit()
        return Recorded(known is None, checkpoint)

    def save_soon(self, run: Claimed, save: Save, told: Callable[[Recorded | Exception], None]) -> Travelling:
        return Travelling(self.save(run, save), told)

    async def fail_step(self, run: Claimed, attempt: FailedTry) -> datetime | Checkpoint:
        row = await self._arrive("fail_step", run)
        error = jsonb(attempt.error_text)
        policy: Mapping[str, Any] = attempt.policy
        most = policy["max_attempts"]
        answer: datetime | Checkpoint
        if (most is not None and attempt.attempt >= most) or set(error["types"]) & {
            *policy["stop_on"],
            "TypeError",
            "AssertionError",
            "DoNotRetry",
            "EncodingFailed",
            "DecodingFailed",
            "Misuse",
        }:
            final = Checkpoint(
                    attempt.ordinal,
                    attempt.key,
                    attempt.kind,
                    attempt.name,
                    attempt.fingerprint,
                    False,
                    None,
                    error,
                    self.now(),
            )  # fmt: skip
            answer = row.add(final)
        else:
            delay = error.get("retry_after", policy["delay"] * policy["factor"] ** (attempt.attempt - 1))
            answer = self.now() + timedelta(seconds=min(delay, policy["max_delay"]))
            row.attempts[attempt.key] = (attempt.attempt, answer)
        await self._commit()
        return answer

    async def suspend(self, run: Claimed, waits: Sequence[Wait], *, keep: bool) -> SuspendAnswer:
        row = await self._arrive("look" if keep else "suspend", run)
        answer = look(self.store, row, waits)
        if answer is None and keep:
            answer = StillWaiting()
        if answer is None:
            assert waits, "a run suspends on something"
            row.claim, row.waits = None, list(waits)
            row.ready_at = min((w.until for w in waits if w.until is not None), default=None)
            answer = LetGo()
        await self._commit()
        return answer

    async def complete(self, run: Claimed, result_text: str, last: Save | None = None) -> str:
        row = await self._arrive("complete", run)
        if last is not None:
            if self.fail_next.get("save"):
                raise self.fail_next["save"][0]
            if last.key in row.steps:
                raise StepConflict("another result is on record")
            jsonb(result_text)  # both, or neither
            row.add(self._checkpoint(last))
        row.status, row.result, row.claim = row.cancel or "completed", jsonb(result_text), None
        await self._commit()
        return "done"

    def complete_soon(
        self, run: Claimed, result_text: str, told: Callable[[Exception | None], None], last: Save | None = None
    ) -> None:
        Travelling(
            self.complete(run, result_text, last),
            lambda answer: told(answer if isinstance(answer, Exception) else None),
        )

    async def fail(self, run: Claimed, error_text: str) -> str:
        row = await self._arrive("fail", run)
        row.status, row.error, row.claim = row.cancel or "failed", jsonb(error_text), None
        await self._commit()
        return "done"

    async def release(self, run: Claimed, pause_reason: str | None) -> str:
        row = await self._arrive("release", run)
        row.claim, row.pause_reason, row.ready_at = None, pause_reason, self.now()
        await self._commit()
        return "done"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        connection = FakeConnection()
        yield connection
        if self.fail_next.get("commit"):
            raise self.fail_next["commit"].pop(0)
        for row, checkpoint in connection.saves:
            row.add(checkpoint)
        connection.rows_written()
        await self._commit()

    async def save_in_transaction(self, connection: FakeConnection, run: Claimed, save: Save) -> Checkpoint:
        row = await self._arrive("save_in_transaction", run)
        if save.key in row.steps:
            raise ClaimLost("the key is on record")
        checkpoint = self._checkpoint(save)
        connection.saves.append((row, checkpoint))
        return checkpoint

    async def still_held(self, run: Claimed) -> bool:
        self.calls.append("still_held")
        return not self.is_dead and self.store.rows[run.run_id].claim == run.claim


class Travelling:
    """What was handed over, on its way to the database and back."""

    def __init__(self, work: Coroutine[Any, Any, Any], told: Callable[[Any], None]) -> None:
        self._told = told
        self._task = asyncio.ensure_future(work)
        self._task.add_done_callback(self._arrived)

    def give_up(self) -> None:
        self._task.cancel()

    def _arrived(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled():
            self._told(task.exception() or task.result())


class FakeConnection:
    """What a transaction step gets: writes that count only once it commits."""

    committed: list[str] = []  # noqa: RUF012  one table for all

    def __init__(self) -> None:
        self.saves: list[tuple[Row, Checkpoint]] = []
        self._writes: list[str] = []

    def write(self, what: str) -> None:
        self._writes.append(what)

    def rows_written(self) -> None:
        FakeConnection.committed.extend(self._writes)


def execution_of(
    engine: FakeEngine, row: Row, workflow: Workflow[Any, Any], options: ExecutionOptions | None = None
) -> Execution:
    options = options or ExecutionOptions()
    execution: Any
    if always_suspend.is_on():
        execution = Lives(engine, row, lambda: AlwaysSuspending(engine.store.claim(row), workflow, options, engine))
    else:
        execution = Execution(engine.store.claim(row), workflow, options, engine)
    engine.executions.append(execution)
    made: Execution = execution
    return made


class Lives:
    """A run in the mode that gives it up at every save: claimed again by the same worker each time that it was."""

    def __init__(self, engine: FakeEngine, row: Row, claim: Callable[[], AlwaysSuspending]) -> None:
        self._engine = engine
        self._row = row
        self._claim = claim
        self._now = claim()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)

    async def run(self) -> None:
        """Carry the run until it leaves the worker for another reason."""
        while True:
            await self._now.run()
            if not await self._was_given_up():
                return
            self._engine.calls.pop()  # the tests know nothing of it
            self._now = self._claim()

    async def _was_given_up(self) -> bool:
        row, left = self._row, self._now
        if row.status is not None or row.claim is not None or row.pause_reason is not None or left.was_told_to_leave:
            return False
        if not row.waits:
            return left.gave_up
        delay = min((w.until - self._engine.now() for w in row.waits if w.kind == "retry" and w.until), default=None)
        if delay is None or delay > always_suspend.ORDINARY_DELAY:
            return False
        await asyncio.sleep(max(0.0, delay.total_seconds()))
        return not self._engine.is_dead


async def carry_once(engine: FakeEngine, row: Row, workflow: Workflow[Any, Any], **options: Any) -> Execution:
    """Claim the run and carry it until it ends, suspends, or is lost."""
    execution = execution_of(engine, row, workflow, ExecutionOptions(**options))
    await asyncio.wait_for(execution.run(), 20)
    return execution


async def carry(
    store: Store,
    row: Row,
    workflow: Workflow[Any, Any],
    *,
    rounds: int = 200,
    engine: FakeEngine | None = None,
    **options: Any,
) -> Row:
    """Carry the run to its end; time is skipped while it sleeps. Stops where only a signal can help."""
    for _ in range(rounds):
        await carry_once(engine or FakeEngine(store), row, workflow, **options)
        if row.status is not None or row.pause_reason is not None:
            return row
        if row.claim is None and row.waits and not _has_answer(store, row):
            if row.ready_at is None:
                return row
            store.skip(max(row.ready_at - store.now(), timedelta(0)))
    raise AssertionError("the run does not come to an end")


def _has_answer(store: Store, row: Row) -> bool:
    names = {name for name, _ in row.signals}
    return any(
        (wait.kind == "signal" and wait.name in names) or (wait.until is not None and wait.until <= store.now())
        for wait in row.waits
    ) or (row.cancel is not None and "~cancel" not in row.steps)
