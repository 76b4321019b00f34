"""What is on record of a run, and whether the code still asks for the same.

Invariant: a record is handed out once, to the request with its key; one that does not fit what is
asked for is a conflict, and pauses the run instead of failing it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ._engine import Checkpoint, Claimed
from ._errors import StepConflict
from ._loop import Timer
from ._pending import Pending

if TYPE_CHECKING:
    from ._steps import StepCall
    from ._traits import StepPlan

CANCEL_KIND = "cancel"
STARTED_KIND = "started"


def started_key(key: str) -> str:
    """Return the key under which the start of an at-most-once step is on record."""
    return f"{key}~started"


class Request:
    """What a run asked for: reserved at the call, effective at rest, settled by a checkpoint.

    `number` counts the uses of its name. `text` is a value's JSON. `decode` makes what a wait returns from its
    checkpoint. `target` is who awaits it, `call` the step under way, `retry_at` when that is tried again.
    """

    __slots__ = (
        "call", "decode", "fingerprint", "is_withdrawn", "key", "kind",
        "name", "number", "plan", "retry_at", "target", "text", "until",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        kind: str,
        *,
        number: int = 1,
        name: str | None = None,
        fingerprint: str | None = None,
        until: datetime | None = None,
        text: str | None = None,
        plan: StepPlan | None = None,
        decode: Callable[[Checkpoint], Any] | None = None,
    ) -> None:
        self.key = key
        self.kind = kind
        self.number = number
        self.name = name
        self.fingerprint = fingerprint
        self.until = until
        self.text = text
        self.plan = plan
        self.decode = decode
        self.target: Pending[Any] | Timer | None = None
        self.call: StepCall | None = None
        self.retry_at: datetime | None = None
        self.is_withdrawn = False


class History:
    """The checkpoints of a claimed run that were not asked for yet.

    `undelivered` is how many records replay has still to hand out, if the code asks for all of them.
    """

    def __init__(self, claimed: Claimed) -> None:
        self._keys: set[str] = set()
        self._started: set[str] = set()
        self._due: dict[str, Checkpoint] = {}
        self.cancel: Checkpoint | None = None
        self.last_ordinal = self.undelivered = 0
        if claimed.checkpoints:
            self._read(claimed)

    def _read(self, claimed: Claimed) -> None:
        self._keys = {checkpoint.key for checkpoint in claimed.checkpoints}
        self._started = {c.key for c in claimed.checkpoints if c.kind == STARTED_KIND}
        self._due = {c.key: c for c in claimed.checkpoints if c.kind not in (STARTED_KIND, CANCEL_KIND)}
        self.cancel = next((c for c in claimed.checkpoints if c.kind == CANCEL_KIND), None)
        self.last_ordinal = max((c.ordinal for c in claimed.checkpoints), default=0)
        self.undelivered = len(self._due) + (self.cancel is not None)

    def was_started(self, key: str) -> bool:
        """Tell whether an at-most-once step was under way when the run was lost."""
        return started_key(key) in self._started

    def take(self, request: Request) -> Checkpoint | None:
        """Return the request's record, if there is one; raise StepConflict when it does not fit."""
        record = self._due.pop(request.key, None) if self._due else None
        if record is None:
            return None
        if record.kind != request.kind:
            raise StepConflict(
                f"{request.key!r} is on record as a {record.kind} (saved {record.saved_at.isoformat()}), "
                f"the code asks for a {request.kind}"
            )
        recorded, asked = record.fingerprint, request.fingerprint
        is_numbered = request.number >= 2 or f"{request.key}#2" in self._keys
        if is_numbered and recorded is not None and asked is not None and recorded != asked:
            raise StepConflict(
                f"{request.key!r} is on record with the arguments {recorded} (saved {record.saved_at.isoformat()}), "
                f"the code asks with {asked}; names that are used more than once must be used in the same order"
            )
        return record
