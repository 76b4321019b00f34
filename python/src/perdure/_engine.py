"""The seam between a run's execution and the worker that carries it.

Invariants of this file:

* The execution never speaks SQL and never opens a connection; the worker never runs workflow code.
* Every method of `Engine` is called on the worker's own event loop; one that saves returns only after
  the COMMIT was acknowledged, `save_in_transaction` aside, whose COMMIT the caller makes. `busy` is sent again inside it; the caller never sees it.
* A method whose answer is "lost" raises `ClaimLost`; the execution then drops all it holds in
  memory and saves nothing more.
* What a `Checkpoint` holds is what the database recorded: the parsed jsonb (of a new one, the text that was sent,
  which jsonb does not change: see `_codec`), and the `saved_at` of the row. `run.now()` is made of it, so live and
  replay must see one value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID


class Checkpoint(NamedTuple):
    """What is on record under one key of a run.

    `has_result` tells a JSON null from no result at all (a sleep that ended, a wait that timed
    out, a failure). Kinds: step, transaction, sql, value, started (before an at-most-once step),
    signal, sleep, timer, cancel.
    """

    ordinal: int
    key: str
    kind: str
    name: str | None
    fingerprint: str | None
    has_result: bool
    result: Any
    error: dict[str, Any] | None
    saved_at: datetime


@dataclass(slots=True, eq=False)
class Claimed:
    """A run as `claim_runs` handed it over, all its checkpoints read; nobody changes it.

    `attempts` holds, per key without a checkpoint, the tries that failed and when the next is due. `head` is how every
    JSON object about the run begins, made when first needed.
    """

    run_id: UUID
    claim: UUID
    workflow: str
    input: Any
    key: str | None
    tags: Mapping[str, str]
    headers: Mapping[str, Any]
    begun_at: datetime
    scheduled_at: datetime | None
    deadline: datetime | None
    cancel: str | None
    recoveries: int
    checkpoints: Sequence[Checkpoint]
    attempts: Mapping[str, tuple[int, datetime | None]]
    head: str = ""


class Save(NamedTuple):
    """One checkpoint to be saved; results and errors are JSON texts, ready to be sent.

    Exactly one of `result_text` and `error_text` is set. Without `saved_at` the database takes its own time.
    """

    key: str
    kind: str
    ordinal: int
    name: str | None
    fingerprint: str | None
    result_text: str | None
    error_text: str | None
    started_at: datetime | None
    attempt: int | None
    saved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FailedTry:
    """A try that failed; the database decides by `policy` whether there is another one.

    The final error, if it comes to that, is saved as this key's checkpoint under `ordinal`, with
    `error_text` as it is (the database may add to it, never take away). `policy` has the fields
    max_attempts, delay, factor, max_delay (seconds), jitter and stop_on.
    """

    key: str
    kind: str
    ordinal: int
    name: str | None
    fingerprint: str | None
    attempt: int
    error_text: str
    policy: Mapping[str, Any]
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wait:
    """What a run waits for: a signal, a sleep, a timer, or a retry that is due later.

    `until` is absent when it waits for as long as it takes.
    """

    key: str
    kind: str
    name: str | None
    until: datetime | None


class Recorded(NamedTuple):
    """The answer to a save: `is_new` is false when the key was on record before.

    The checkpoint of a new one has no result, for whoever saved it has it.
    """

    is_new: bool
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class LetGo:
    """The claim is gone: the run waits in the database, or ended meanwhile by an act of somebody else."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One wait (or the cancel, kind "cancel") has its answer on record; the claim is kept."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class RetryDue:
    """A wait of kind "retry" is due: nothing was saved, the claim is kept."""


@dataclass(frozen=True, slots=True)
class StillWaiting:
    """Only with `keep`: nothing has come, the claim is kept."""


SuspendAnswer = LetGo | Answered | RetryDue | StillWaiting


class ConnectionLost(Exception):
    """The connection of a transaction broke before the COMMIT was acknowledged; its cause is what was raised."""


class Sent(Protocol):
    """Something that was handed over and has no answer yet."""

    def give_up(self) -> None:
        """Note that nobody is to be told any more."""
        ...


class Engine(Protocol):
    """What a worker does for its runs."""

    step_slots: asyncio.Semaphore
    """One slot per step that may run at the same time in this worker."""

    threads: Executor
    """Where plain functions run as steps."""

    def now(self) -> datetime:
        """Return the database's clock as it is known here, aware; used for waiting in memory, `started_at`, `saved_at`."""
        ...

    async def save(self, run: Claimed, save: Save) -> Recorded:
        """Save one checkpoint and return what is on record under its key.

        The saves of one run are handed over in the order of their ordinals; two flushes with saves
        of the same run must not be in flight on different connections.
        """
        ...

    def save_soon(self, run: Claimed, save: Save, told: Callable[[Recorded | Exception], None]) -> Sent:
        """Hand over one checkpoint as `save` does, and return at once; `told` hears later what became of it."""
        ...

    async def fail_step(self, run: Claimed, attempt: FailedTry) -> datetime | Checkpoint:
        """Record a failed try; return when to try again, or the final error's checkpoint."""
        ...

    async def suspend(self, run: Claimed, waits: Sequence[Wait], *, keep: bool) -> SuspendAnswer:
        """Suspend on this set of waits, or with `keep` only look whether one has its answer.

        All saves of the run have been acknowledged before, and none is handed over meanwhile.
        """
        ...

    async def complete(self, run: Claimed, result_text: str) -> str:
        """End the run with its result; return done, or the act that came first."""
        ...

    def complete_soon(
        self, run: Claimed, result_text: str, told: Callable[[Exception | None], None], last: Save | None = None
    ) -> None:
        """End the run as `complete` does, and return at once; `told` hears later whether it was refused.

        `last` is saved with it, or neither: also where another result is on record under its key.
        """
        ...

    async def fail(self, run: Claimed, error_text: str) -> str:
        """End the run with its error; return done, or the act that came first."""
        ...

    async def release(self, run: Claimed, pause_reason: str | None) -> str:
        """Give the run back, to be claimed by anybody, or paused with a reason."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Open a connection in a READ COMMITTED transaction for a transaction or SQL step.

        Leaving without an error commits and returns after the acknowledgement; leaving with one
        rolls back and lets it pass. Raise `ConnectionLost` from whatever was raised where the connection broke.
        """
        ...

    async def save_in_transaction(self, connection: Any, run: Claimed, save: Save) -> Checkpoint:
        """Save a checkpoint inside that transaction; it counts once the transaction commits.

        Raise `ClaimLost` when the claim is lost or the key is on record.
        """
        ...

    async def still_held(self, run: Claimed) -> bool:
        """Ask whether this worker still holds the run, after a doubt."""
        ...
