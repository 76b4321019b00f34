"""What is read about one run, as it comes from the views."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perdure.cli import statements
from perdure.cli.session import Session
from perdure.cli.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Run:
    """A row of the view runs; `seen_at` is its end, or the database's now."""

    run_id: UUID
    workflow: str
    key: str | None
    state: str
    queue: str
    tags: Any  # an object, or what stands for one that cannot be read
    created_at: datetime
    created_by: str
    start_at: datetime | None
    finished_at: datetime | None
    seen_at: datetime
    worker_id: UUID | None
    worker: str | None
    recoveries: int
    pause_reason: str | None
    deadline: datetime | None
    grace_ends_at: datetime | None
    last_error: str | None
    input: Any
    result: Any
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Step:
    """A row of the view steps."""

    ordinal: int | None
    key: str
    kind: str | None
    state: str
    name: str | None
    error: dict[str, Any] | None
    attempts: int
    retry_at: datetime | None
    started_at: datetime | None
    saved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A row of the view waits."""

    key: str
    kind: str
    name: str | None
    until: datetime | None
    is_due: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """A row of the view signals."""

    id: str
    name: str
    payload: Any
    sent_at: datetime
    sent_by: str
    consumed_by: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the view history."""

    at: datetime
    what: str
    key: str | None
    started_at: datetime | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Activity:
    """A step that a worker says it is running."""

    key: str
    since: datetime
    progress: Any


@dataclass(frozen=True, slots=True)
class Story:
    """All of it."""

    run: Run
    steps: list[Step]
    waits: list[Wait]
    signals: list[Signal]
    history: list[Entry]
    activity: list[Activity]
    explanation: list[str]


def read_story(db: Session, run_id: UUID) -> Story:
    """Read all there is to tell about a run, as of one moment."""
    with db.snapshot():
        found = db.records(Run, statements.SHOW_RUN, run_id=run_id)
        if not found:
            raise Trouble(f"run {run_id} is not known", "`perdure runs` lists the latest runs.")
        return Story(
            run=found[0],
            steps=db.records(Step, statements.SHOW_STEPS, run_id=run_id),
            waits=db.records(Wait, statements.SHOW_WAITS, run_id=run_id),
            signals=db.records(Signal, statements.SHOW_SIGNALS, run_id=run_id),
            history=db.records(Entry, statements.SHOW_HISTORY, run_id=run_id),
            explanation=[line for (line,) in db.rows(statements.EXPLAIN, run_id=run_id)],
            activity=db.records(Activity, statements.SHOW_ACTIVITY, run_id=run_id, worker_id=found[0].worker_id),
        )
