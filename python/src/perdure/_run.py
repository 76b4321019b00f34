"""The run, as workflow code sees it.

Invariant: whatever is asked for here is fixed at the call and takes effect at rest; what is answered
at once (now, uuid, random) depends on the record alone.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload
from uuid import UUID, uuid5

from ._engine import Checkpoint
from ._errors import Misuse, TimedOut
from ._hints import Unresolved
from ._history import Request
from ._options import NO_OPTIONS, Retry, Signal, StepOptions, Value, check_name
from ._pending import Pending
from ._traits import StepPlan, traits_of
from ._transactions import run_query

if TYPE_CHECKING:
    from ._execution import Execution

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
D = TypeVar("D")

_ABSENT: Any = object()


class AsyncRun:
    """One execution of a workflow; its methods return a `Pending`, to be awaited."""

    def __init__(self, execution: Execution) -> None:
        claimed = execution.claimed
        self._execution = execution
        self._prefix = ""
        self._overrides = NO_OPTIONS
        self._key: str | None = None
        self.id: UUID = claimed.run_id
        self.workflow: str = claimed.workflow
        self.key: str | None = claimed.key
        self.scheduled_at: datetime | None = claimed.scheduled_at
        self.tags: Mapping[str, str] = dict(claimed.tags)
        self.version: str | None = execution.options.version
        self._logs: list[logging.Logger] = []  # shared by copies, made when first asked for
        self._uuids = [0]
        self._dice: list[random.Random] = []

    @property
    def log(self) -> logging.Logger:
        """A logger that is silent while the run replays what was logged before."""
        if not self._logs:
            self._logs.append(_RunLogger(self._execution))
        return self._logs[0]

    @property
    def random(self) -> random.Random:
        """Random numbers that are the same at every replay."""
        if not self._dice:
            self._dice.append(random.Random(self.id.int))
        return self._dice[0]

    @property
    def is_replaying(self) -> bool:
        """Whether a recorded result is still due: nothing that happens now is new."""
        return self._execution.is_replaying

    def now(self) -> datetime:
        """Return the time of the last result that was delivered; before the first, when the run was claimed first."""
        return self._execution.now

    def uuid(self) -> UUID:
        """Return a UUID that is the same at every replay."""
        self._uuids[0] += 1
        return uuid5(self.id, f"uuid-{self._uuids[0]}")

    def options(
        self,
        *,
        key: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        at_most_once: bool = False,
    ) -> AsyncRun:
        """Return this run with options for what is asked of it next; `key` holds for one call only."""
        other = copy(self)
        given = self._overrides
        vars(other).update(
            _key=None if key is None else check_name(key, "a key"),
            _overrides=StepOptions(
                None, retry or given.retry, timeout or given.timeout, at_most_once or given.at_most_once
            ),
        )
        return other

    def scope(self, name: str) -> AsyncRun:
        """Return this run with a prefix for its keys."""
        other = copy(self)
        vars(other).update(_prefix=f"{self._prefix}{check_name(name, 'a scope')}/")
        return other

    @overload
    def step(self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> Pending[R]: ...
    @overload
    def step(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Pending[R]: ...
    def step(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Pending[Any]:
        """Run a function as a step: an async one on the worker's loop, a plain one in a thread."""
        self._execution.enter()
        return self._ask_step("step", fn, None, args, kwargs)

    def transaction(
        self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Pending[R]:
        """Run a function on a connection in a transaction; its writes and its checkpoint are one commit.

        It runs again from its beginning where the connection breaks. Between two statements it may take ten leases of
        the worker (5 minutes), or as long as `set local idle_in_transaction_session_timeout` in it says.
        """
        self._execution.enter()
        return self._ask_step("transaction", fn, None, args, kwargs)

    def sql(self, key: str, query: str, args: Mapping[str, Any] | None = None) -> Pending[Any]:
        """Run one query, effective exactly once: one column gives its value, several an object, no row None."""
        self._execution.enter()
        check_name(key, "a key")
        arguments = (query, dict(args or {}))
        return self._ask_step("sql", run_query, key, arguments, {})

    def _ask_step(
        self, kind: str, fn: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Pending[Any]:
        execution, given = self._execution, self._overrides
        try:
            traits = traits_of(fn)
        except Unresolved as unresolved:
            raise Misuse(f"step {fn!r}: {unresolved}") from None
        if kind != "step" and not traits.is_async:
            raise Misuse(f"a transaction step is an async function, which gets the connection first: {fn!r}")
        key, number = self._reserve(name or traits.name)
        fingerprint = execution.codec.fingerprint(args, kwargs, "arguments of", key)
        execution.codec.decoder(traits.result_type, "result of", key)
        options = traits.options
        plan = StepPlan(
            fn,
            args,
            kwargs,
            traits,
            given.retry or options.retry or execution.options.retry,
            given.timeout or options.timeout,
            given.at_most_once or options.at_most_once,
            kind != "step",
        )
        return execution.ask(Request(key, kind, number=number, fingerprint=fingerprint, plan=plan))

    def sleep(self, delay: timedelta) -> Pending[None]:
        """Sleep for as long as this, from `now()`; while nothing else goes on, the run is not in memory."""
        return self.sleep_until(self.now() + delay)

    def sleep_until(self, at: datetime) -> Pending[None]:
        """Sleep until this time, which must be aware."""
        self._execution.enter()
        if at.tzinfo is None:
            raise Misuse("sleep_until() takes an aware datetime, for example datetime.now(timezone.utc)")
        key, number = self._reserve("~sleep")
        return self._execution.ask(Request(key, "sleep", number=number, until=at.astimezone(timezone.utc)))

    @overload
    def wait_signal(self, signal: Signal[T], *, timeout: timedelta | None = None) -> Pending[T]: ...
    @overload
    def wait_signal(self, signal: Signal[T], *, timeout: timedelta, default: D) -> Pending[T | D]: ...
    def wait_signal(
        self, signal: Signal[Any], *, timeout: timedelta | None = None, default: Any = _ABSENT
    ) -> Pending[Any]:
        """Wait for the next message of this name; after `timeout` give `default`, or raise TimedOut."""
        execution = self._execution
        execution.enter()
        key, number = self._reserve(signal.name)
        until = None if timeout is None else self.now() + timeout
        codec = execution.codec
        codec.decoder(signal.type, f"payload of {signal!r}")

        def decode(checkpoint: Checkpoint) -> Any:
            if checkpoint.has_result:
                return codec.decode(checkpoint.result, signal.type, f"payload of signal {signal.name!r}")
            if default is not _ABSENT:
                return default
            raise TimedOut(f"no signal {signal.name!r} within {timeout}")

        return execution.ask(Request(key, "signal", number=number, name=signal.name, until=until, decode=decode))

    def set_value(self, value: Value[T], item: T) -> Pending[None]:
        """Show something of the run while it goes on; `value()` of its handle reads the last one."""
        execution = self._execution
        execution.enter()
        key, number = self._reserve(value.name)
        text = execution.codec.encode(item, f"value {value.name!r}")
        fingerprint = execution.codec.fingerprint([item], {}, f"value {value.name!r}")
        request = Request(key, "value", number=number, name=value.name, fingerprint=fingerprint, text=text)
        return execution.ask(request)

    def race(self, **pending: Pending[Any]) -> Pending[tuple[str, Any]]:
        """Give the name and result of the first to end, and cancel the others."""
        self._execution.enter()
        if not pending:
            raise Misuse(
                "race() takes at least one pending, by name: race(paid=run.wait_signal(PAID), late=run.sleep(…))"
            )
        return self._execution.race(pending)

    def _reserve(self, name: str) -> tuple[str, int]:
        keys = self._execution.keys
        if self._key is not None:
            return keys.exact(self._prefix + self._key), 1
        return keys.number(self._prefix + name)

    def __repr__(self) -> str:
        return f"<AsyncRun {self.workflow} {self.id}>"


class _RunLogger(logging.Logger):
    """A logger that is silent while the run replays what was logged before."""

    def __init__(self, execution: Execution) -> None:
        claimed = execution.claimed
        super().__init__(f"perdure.run.{claimed.workflow}")
        self.parent = logging.getLogger("perdure")
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  logging's own name
        return not self._execution.is_replaying and super().isEnabledFor(level)

    def filter(self, record: logging.LogRecord) -> Any:
        record.run_id = str(self._execution.claimed.run_id)
        record.workflow = self._execution.claimed.workflow
        return super().filter(record)
