"""What runs have asked for and not been answered: in each run's own order.

Invariants:

* A batch takes the first call of each run, and with it only those right behind it that go into the
  same function, where that takes several of one run.
* A call leaves only when it is answered, so one that is put off (busy, in doubt) holds up its own
  run's later calls and nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from typing_extensions import LiteralString

from . import _sql
from ._connect import BackOff
from ._errors import ClaimLost

Row = dict[str, Any]

MAX_CALLS = 1_000
_MAX_CHARACTERS = 8_000_000
_FIRST_BUSY_PAUSE, _LAST_BUSY_PAUSE = 0.002, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A function that takes batches; whether one run may have several calls of it in one flush."""

    statement: LiteralString
    has_many: bool = False


SAVE = Kind(_sql.SAVE_STEPS, has_many=True)
TRY = Kind(_sql.FAIL_STEPS, has_many=True)
SUSPEND = Kind(_sql.SUSPEND_RUNS)
LOOK = Kind(_sql.SUSPEND_RUNS)
COMPLETE = Kind(_sql.COMPLETE_RUNS)
FAIL = Kind(_sql.FAIL_RUNS)
RELEASE = Kind(_sql.RELEASE_RUNS)

# In this order a flush calls them.
KINDS = (SAVE, TRY, SUSPEND, LOOK, COMPLETE, FAIL, RELEASE)
ENDS = frozenset({COMPLETE, FAIL})


@dataclass(slots=True, eq=False)
class Call:
    """One thing that a run asks; `text` is its JSON object, `key` names it among others of its run.

    `told` hears the answer's row or the error, once and at once, unless the call was given up before.
    """

    kind: Kind
    run_id: UUID
    key: str | None
    text: str
    told: Callable[[Call, Row | None, Exception | None], None]
    was_in_doubt: bool = False
    not_before: float = 0.0
    pauses: BackOff | None = None
    is_over: bool = False

    def give_up(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.is_over = True

    def tell(self, row: Row | None, error: Exception | None) -> None:
        """Pass the answer on."""
        if not self.is_over:
            self.is_over = True
            self.told(self, row, error)


class Backlog:
    """The calls that wait, by run."""

    def __init__(self) -> None:
        self._queues: dict[UUID, deque[Call]] = {}
        self._is_put_off = False

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, call: Call) -> None:
        """Put a call behind its run's others."""
        self._queues.setdefault(call.run_id, deque()).append(call)

    def due_at(self) -> float | None:
        """Return when the first of them may be sent."""
        if not self._is_put_off:
            return 0.0 if self._queues else None
        return min((queue[0].not_before for queue in self._queues.values()), default=None)

    def put_off(self, call: Call, now: float) -> None:
        """Send a call that was busy later, after a pause that grows."""
        if call.pauses is None:
            call.pauses = BackOff(_FIRST_BUSY_PAUSE, _LAST_BUSY_PAUSE)
        call.not_before = now + call.pauses.pause()
        self._is_put_off = True

    def batch(self, now: float) -> list[Call]:
        """Return what may be sent in one transaction."""
        calls: list[Call] = []
        characters = 0
        is_put_off = False
        for run_id, queue in list(self._queues.items()):
            while queue and queue[0].is_over:  # nobody waits for it any more
                queue.popleft()
            if not queue:
                del self._queues[run_id]
                continue
            head = queue[0]
            if head.not_before > now:
                is_put_off = True
                continue
            for call in queue:
                if call.kind is not head.kind or (call is not head and not head.kind.has_many):
                    break
                characters += len(call.text)
                if calls and (len(calls) >= MAX_CALLS or characters > _MAX_CHARACTERS):
                    return calls
                calls.append(call)
        self._is_put_off = is_put_off
        return calls

    def remove(self, call: Call) -> None:
        """Take out a call that has its answer."""
        queue = self._queues.get(call.run_id)
        if queue and queue[0] is call:
            queue.popleft()
            if not queue:
                del self._queues[call.run_id]

    def forget(self, run_ids: Iterable[UUID] | None = None) -> None:
        """Give up the calls of these runs, or of all: their claims are lost."""
        for run_id in list(self._queues if run_ids is None else run_ids):
            for call in self._queues.pop(run_id, ()):
                call.tell(None, ClaimLost(f"the claim on run {run_id} is lost"))
