"""A result that reaches the run ahead of the acknowledgement of its save.

Invariants: there is one at most, and nothing else of the run is under way then. What the code asks for on the strength
of it takes effect only once the save is acknowledged, or with it in one commit: the end of the run. Where the save is
refused, or finds another result on record, the run is given up in memory, and goes on from the record.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ._engine import Checkpoint, Recorded, Save
from ._errors import ClaimLost

if TYPE_CHECKING:
    from ._execution import Execution
    from ._steps import StepCall


class Ahead:
    """The one result that was delivered and whose save is not acknowledged yet, if there is one."""

    def __init__(self, host: Execution) -> None:
        self._host: Execution = weakref.proxy(host)  # no cycle: a run is freed without the collector
        self.call: StepCall | None = None
        self._unsent: Save | None = None

    def deliver(self, call: StepCall, save: Save, value: Any) -> None:
        """Let the run go on with a result; once it rests, the save is sent."""
        assert save.saved_at is not None
        self.call, self._unsent = call, save
        checkpoint = Checkpoint(
            save.ordinal, save.key, save.kind, save.name, save.fingerprint, True, None, None, save.saved_at
        )
        self._host.delivery.push(call.request, checkpoint, value)
        self._host.schedule()

    def rest(self) -> None:
        """Send the save: with the end of the run, if it has come to that."""
        main, save = self._host.main, self._unsent
        if save is not None and not (main is not None and main.done() and self._host.complete_with(save)):
            self.send()

    def send(self) -> None:
        """Send the save alone."""
        save, self._unsent = self._unsent, None
        if save is not None and self.call is not None:
            self.call.send(save)

    def answered(self, answer: Recorded | Exception) -> None:
        """Go on, for the save is on record; from there, if what the run was told is not."""
        self.drop()
        if not isinstance(answer, ClaimLost) and not (isinstance(answer, Recorded) and answer.is_new):
            self._host.forsake()

    def drop(self) -> None:
        """Forget it."""
        self.call, self._unsent = None, None
