"""What `run.*` returns: a future of the run's own loop.

Invariant: key, arguments and time-out are fixed when it is made; nothing is asked of the outside
before the run is at rest; cancelling it withdraws what it asked for, and nothing is saved for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

R = TypeVar("R")


if TYPE_CHECKING:

    class _Future(asyncio.Future[R], Coroutine[Any, Any, R]):
        """Typed as a coroutine too: the run's loop takes it where asyncio's create_task asks for one."""

        def send(self, value: Any, /) -> Any: ...
        def throw(self, *args: Any) -> Any: ...
        def close(self) -> None: ...
else:
    _Future = asyncio.Future


class Pending(_Future[R]):
    """Key reserved when made, result when awaited; may be awaited often and given to asyncio's functions."""

    def __init__(
        self,
        label: str,
        loop: asyncio.AbstractEventLoop,
        unawaited: dict[Pending[Any], None],
        withdraw: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self.label = label
        self._withdraw = withdraw
        self._unawaited: dict[Pending[Any], None] | None = unawaited
        unawaited[self] = None

    def __await__(self) -> Generator[Any, None, R]:
        self._note_awaited()
        return super().__await__()

    __iter__ = __await__

    def add_done_callback(self, *args: Any, **kwargs: Any) -> None:  # every way to wait ends here
        self._note_awaited()
        super().add_done_callback(*args, **kwargs)

    def _note_awaited(self) -> None:
        if self._unawaited is not None:
            self._unawaited.pop(self, None)
            self._unawaited = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the step or withdraw the wait; return false when it has its result already."""
        if not super().cancel(msg):
            return False
        self._note_awaited()
        withdraw, self._withdraw = self._withdraw, None
        if withdraw is not None:
            withdraw()
        return True

    # What the execution calls

    def settle(self, value: R) -> None:
        self._withdraw = None
        if not self.done():
            self.set_result(value)

    def settle_error(self, error: BaseException) -> None:
        self._withdraw = None
        if not self.done():
            self.set_exception(error)
            self.exception()  # nobody is to be told that it was never retrieved: rule 4 tells of it

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "pending"
        return f"<Pending {self.label} {state}>"


class Race(Pending[tuple[str, Any]]):
    """The first of several to end, by name; the others are cancelled."""

    def __init__(
        self,
        racers: Mapping[str, asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        unawaited: dict[Pending[Any], None],
    ) -> None:
        super().__init__(f"race of {', '.join(racers)}", loop, unawaited, self._cancel_racers)
        self._racers = dict(racers)
        for name, racer in racers.items():
            racer.add_done_callback(partial(self._ended, name))

    def _ended(self, name: str, racer: asyncio.Future[Any]) -> None:
        self._racers.pop(name, None)
        error = None if racer.cancelled() else racer.exception()
        if self.done():
            return
        if racer.cancelled():
            if not self._racers:
                self.cancel()
            return
        if error is not None:
            self.settle_error(error)
        else:
            self.settle((name, racer.result()))
        self._cancel_racers()

    def _cancel_racers(self) -> None:
        racers, self._racers = self._racers, {}
        for racer in racers.values():
            with suppress(RuntimeError):  # the loop of a foreign future may be gone
                racer.cancel()
