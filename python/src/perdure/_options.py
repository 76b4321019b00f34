"""What a program declares: retries, signals, values, steps; and what a step can know of itself.

Invariant: nothing here decides. A `Retry` is data for the database, which does the counting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload
from uuid import UUID

from ._errors import Misuse

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Retry:
    """Say how often and how fast a failed step is tried again; `max_attempts=None` means without end."""

    max_attempts: int | None = 4
    delay: timedelta = timedelta(seconds=1)
    factor: float = 3.0
    max_delay: timedelta = timedelta(minutes=5)
    jitter: float = 0.2
    stop_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise Misuse("Retry(max_attempts=) counts the first try too, so it is 1 or more")
        if (
            self.delay < timedelta(0)
            or self.max_delay < timedelta(0)
            or not 1 <= self.factor <= 1000
            or not 0 <= self.jitter <= 1
        ):
            raise Misuse("Retry takes delays of 0 or more, a factor from 1 to 1000 and a jitter from 0 to 1")

    def policy(self, raises: Sequence[type[Exception]] = ()) -> dict[str, Any]:
        """Return the policy as `fail_steps` takes it, delays in seconds; a declared error is an answer, not retried."""
        return {
            "max_attempts": self.max_attempts,
            "delay": self.delay.total_seconds(),
            "factor": self.factor,
            "max_delay": self.max_delay.total_seconds(),
            "jitter": self.jitter,
            "stop_on": [error.__name__ for error in (*self.stop_on, *raises)],
        }

    def once(self) -> Retry:
        """Return this policy with a single try."""
        return replace(self, max_attempts=1)


class Signal(Generic[T]):
    """A message to one run, known by its name; its payload has this type."""

    def __init__(self, name: str, type: type[T]) -> None:
        self.name = check_name(name, "a signal's name")
        self.type = type

    def __repr__(self) -> str:
        return f"Signal({self.name!r})"


class Value(Generic[T]):
    """Something a run shows of itself while it goes on, known by its name."""

    def __init__(self, name: str, type: type[T]) -> None:
        self.name = check_name(name, "a value's name")
        self.type = type

    def __repr__(self) -> str:
        return f"Value({self.name!r})"


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What `step` noted on a function; what is None is left to the run, then to the app."""

    name: str | None = None
    retry: Retry | None = None
    timeout: timedelta | None = None
    at_most_once: bool = False
    raises: tuple[type[Exception], ...] = ()


NO_OPTIONS = StepOptions()
_ATTRIBUTE = "__perdure_step__"


@overload
def step(fn: F, /) -> F: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    at_most_once: bool = False,
    raises: Sequence[type[Exception]] = (),
) -> Callable[[F], F]: ...
def step(
    fn: F | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    at_most_once: bool = False,
    raises: Sequence[type[Exception]] = (),
) -> F | Callable[[F], F]:
    """Note on a function how it is to run as a step; the function itself stays as it is. Parentheses may be left out.

    `name` replaces the function's own in keys. Errors listed in `raises` are answers: not tried again, and raised
    in the workflow as themselves, live and on replay.
    """
    if name is not None:
        check_name(name, "a step's name")
    options = StepOptions(name, retry, timeout, at_most_once, tuple(raises))

    def note(fn: F) -> F:
        setattr(fn, _ATTRIBUTE, options)
        return fn

    return note if fn is None else note(fn)


def step_options(fn: Callable[..., Any]) -> StepOptions:
    """Return what `step` noted on this function, or on the one a partial or method wraps."""
    inner = getattr(fn, "func", fn)
    found = getattr(fn, _ATTRIBUTE, None) or getattr(inner, _ATTRIBUTE, None)
    return found if isinstance(found, StepOptions) else NO_OPTIONS


def step_name(fn: Callable[..., Any], options: StepOptions) -> str:
    """Return the name that keys of this step are made of."""
    if options.name is not None:
        return options.name
    inner = getattr(fn, "func", fn)
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if name == "<lambda>":
        raise Misuse('a lambda has no name to be known by; use @perdure.step(name="…") on a function')
    return str(name)


def check_name(name: str, what: str) -> str:
    """Return the name, or raise Misuse when it cannot be (part of) a key."""
    if not name or len(name) > 200 or name.startswith("~") or not name.isprintable():
        raise Misuse(f"{what} has 1 to 200 printable characters and does not begin with '~': {name!r}")
    return name


class StepInfo:
    """What a running step knows of itself.

    `attempt` counts from 1. `idempotency_key` is the same for all tries. `deadline` is when this try
    is cut off. `last_progress` is what an earlier try in this worker last told `progress`.
    """

    __slots__ = ("attempt", "deadline", "is_cancelled", "key", "last_progress", "run_id", "told_progress")

    def __init__(self, key: str, attempt: int, run_id: UUID, deadline: datetime | None, last_progress: Any) -> None:
        self.key = key
        self.attempt = attempt
        self.run_id = run_id
        self.deadline = deadline
        self.is_cancelled = False
        self.last_progress = last_progress
        self.told_progress = last_progress

    @property
    def idempotency_key(self) -> str:
        """The key to hand to services that take one: equal for all tries of this step."""
        return f"{self.run_id}/{self.key}"

    def progress(self, value: Any) -> None:
        """Tell how far the step has come; it travels with the heartbeat and costs no write."""
        self.told_progress = value

    def __repr__(self) -> str:
        return f"<StepInfo {self.key!r} attempt={self.attempt} run={self.run_id}>"


running_step: ContextVar[StepInfo] = ContextVar("perdure_running_step")


def current_step() -> StepInfo:
    """Return what the running step knows of itself; raise Misuse outside of a step."""
    try:
        return running_step.get()
    except LookupError:
        raise Misuse("no step is running here; current_step() is for the code of steps") from None
