"""The event loop of one run.

Invariants:

* It is drained from callbacks of the worker's loop, never from inside one of its tasks, and returns
  when nothing is ready: the run is then at rest, exactly.
* Its clock is the run's (the time of the last delivered checkpoint), so `call_at` in the future is a
  durable wait, which the host keeps; nothing here waits.
* It has no I/O: whatever would block, or would come from outside the record, raises Misuse.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from asyncio import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, NoReturn, Protocol, TypeVar

from ._errors import Misuse

T = TypeVar("T")

_DRAIN_LIMIT = 1_000_000
"""Callbacks in one drain after which a run counts as spinning."""


class LoopHost(Protocol):
    """What the loop asks of the run's execution."""

    def timer_opened(self, timer: Timer) -> None: ...
    def timer_cancelled(self, timer: Timer) -> None: ...
    def loop_error(self, context: dict[str, Any]) -> None: ...


class Spinning(Exception):
    """The run's tasks never come to rest."""


def _nothing() -> None:
    return None


class _Ready(asyncio.Handle):
    """A callback that is ready; our own, since a Handle cannot be run without private attributes."""

    __slots__ = ("_call", "_context_of", "_is_dropped", "_with")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], context: Context | None) -> None:
        # Not calling the base: its fields are private and unused here.
        self._call = call
        self._with = args
        self._context_of = context if context is not None else copy_context()
        self._is_dropped = False

    def cancel(self) -> None:
        self._is_dropped = True

    def cancelled(self) -> bool:
        return self._is_dropped

    def get_context(self) -> Context:
        return self._context_of

    def __repr__(self) -> str:
        return f"<ready {self._call!r}>"

    def run(self) -> None:
        try:
            if not self._is_dropped:
                self._context_of.run(self._call, *self._with)
        finally:
            # A traceback keeps this frame alive, and with it the task that keeps the traceback.
            self._call, self._with = _nothing, ()


class Timer(asyncio.TimerHandle):
    """A callback of the future: a wait of the run."""

    def __init__(
        self, loop: RunLoop, at: float, call: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> None:
        super().__init__(at, call, args, loop, context)
        self.at = at
        self.ready = _Ready(call, args, context)
        self.host: LoopHost | None = loop.host
        self.request: Any = None
        """What the host keeps for it."""
        sleeper = args[0] if args and call is _SLEEP_CALLBACK else None
        self.sleeper: asyncio.Future[Any] | None = sleeper
        """What a task awaits in asyncio.sleep, so that a cancel can reach it."""

    def cancel(self) -> None:
        # Not the base's: it tells the loop by a private method.
        self.ready.cancel()
        self.sleeper = None
        host, self.host = self.host, None
        if host is not None:
            host.timer_cancelled(self)

    def cancelled(self) -> bool:
        return self.ready.cancelled()

    def fire(self, loop: RunLoop) -> None:
        self.host = None
        loop.make_ready(self.ready)


class RunLoop(asyncio.AbstractEventLoop):
    """An event loop without a selector; `drain` runs what is ready."""

    def __init__(self, host: LoopHost, now: float) -> None:
        self.host: LoopHost | None = host
        self.now = now
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._ready: deque[_Ready] = deque()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None
        self._is_draining = False
        self._is_closed = False

    # What the execution calls

    def drain(self, limit: int | None = None) -> None:
        """Run all that is ready; raise Spinning when there is no end of it."""
        if not self._ready:
            return
        left = _DRAIN_LIMIT if limit is None else limit
        outer = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        ready = self._ready
        _set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._note_generator, finalizer=self._close_generator)
        self._is_draining = True
        try:
            while ready:
                left -= 1
                if left < 0:
                    raise Spinning
                try:
                    ready.popleft().run()
                except SystemExit:
                    continue  # the task that raised it keeps it as its outcome
                except Exception as error:  # noqa: BLE001  whatever a callback raises
                    self.call_exception_handler({"message": "error in a callback", "exception": error})
        finally:
            self._is_draining = False
            sys.set_asyncgen_hooks(*hooks)
            _set_running_loop(outer)

    @property
    def is_empty(self) -> bool:
        """Whether no code of the run is left that could still be told anything."""
        return not (self.tasks or self._ready or self._generators)

    def unwind(self, rounds: int = 20, limit: int = 100_000) -> bool:
        """Cancel all tasks until they have ended; return false for code that never ends."""
        for _ in range(rounds):
            self._cancel_tasks()
            if not self._drain_within(limit) or not self.tasks:
                break
        for generator in list(self._generators or ()):
            self._close_generator(generator)
        return self._drain_within(limit) and not self.tasks

    def _cancel_tasks(self) -> None:
        # Apart from `unwind`, whose frame a traceback may keep: see _Ready.run.
        for task in list(self.tasks):
            task.cancel()

    def _drain_within(self, limit: int) -> bool:
        try:
            self.drain(limit)
        except Spinning:
            self._ready.clear()
            return False
        return True

    def make_ready(self, handle: _Ready) -> None:
        self._ready.append(handle)

    def close(self) -> None:
        self._is_closed = True
        self._ready.clear()
        self.host = None

    # What asyncio calls

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Ready(callback, args, context)
        if not self._is_closed:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = Timer(self, when, callback, args, context)
        if self.host is None or when <= self.now:
            timer.fire(self)
        else:
            self.host.timer_opened(timer)
        return timer

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, **options: Any) -> asyncio.Task[Any]:
        pending = coro if isinstance(coro, asyncio.Future) else None
        if options.get("context", self) is None:
            del options["context"]  # unknown to 3.10
        task: asyncio.Task[Any] = asyncio.Task(
            _await(pending) if pending is not None else coro, loop=self, name=name, **options
        )
        if not task.done():
            self.tasks[task] = None
            task.add_done_callback(self._task_done)
        if pending is not None:
            # A task that is cancelled before its first step never reaches what it wraps.
            task.add_done_callback(lambda done: pending.cancel() if done.cancelled() else None)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def _note_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is not None:
            self._generators.discard(generator)
        if not self._is_closed:
            self.create_task(generator.aclose())

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.host is not None:
            self.host.loop_error(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_exception_handler(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def is_running(self) -> bool:
        return self._is_draining

    def is_closed(self) -> bool:
        return self._is_closed

    async def shutdown_asyncgens(self) -> None:
        return None

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        return None


def new_loop(host: LoopHost, now: float) -> RunLoop:
    """Make a run's loop; what mypy takes for abstract is refused by name, below."""
    return RunLoop(host, now)  # type: ignore[abstract]


async def _await(pending: asyncio.Future[T]) -> T:
    return await pending


def refuse_in_workflow(what: str) -> None:
    """Raise Misuse where a run's own code asks for what is not on its record."""
    if isinstance(_get_running_loop(), RunLoop):
        raise Misuse(f"workflow code cannot ask {what}: that belongs in a step (await run.step(…))")


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*_args: Any, **_options: Any) -> NoReturn:
        raise Misuse(
            f"workflow code cannot use the event loop's {name}: files, sockets, threads, processes and "
            "other event loops belong in a step (await run.step(…))"
        )

    refused.__name__ = name
    return refused


# Everything that the base class leaves open reaches outside of the record.
for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in RunLoop.__dict__:
        setattr(RunLoop, _name, _refuse(_name))


class _Probe(RunLoop):
    """A loop that catches what asyncio.sleep hands to `call_later`."""

    found: Callable[..., Any] | None = None

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.found = callback
        return super().call_later(0, callback, *args)


def _sleep_callback() -> Callable[..., Any] | None:
    class Nobody:
        def timer_opened(self, timer: Timer) -> None: ...
        def timer_cancelled(self, timer: Timer) -> None: ...
        def loop_error(self, context: dict[str, Any]) -> None: ...

    probe = _Probe(Nobody(), 0)  # type: ignore[abstract]
    sleeping: Coroutine[Any, Any, None] = asyncio.sleep(1)
    probe.create_task(sleeping)
    probe.drain()
    return probe.found


_SLEEP_CALLBACK: Callable[..., Any] | None = None
_SLEEP_CALLBACK = _sleep_callback()
