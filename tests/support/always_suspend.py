"""The mode in which every save suspends the run, so that each test becomes a test of replay.

    PERDURE_TEST_ALWAYS_SUSPEND=1 .venv/bin/pytest tests/driver

Once something new of a run is on record (a checkpoint, an answered wait, a failed try) the run is given up: released,
its code unwound, its memory dropped, and it goes on only when it is claimed again, from what the record says. Nothing
that was just saved is delivered but by a replay. What is in flight is not cut off, since a run never suspends while one
of its steps still runs: then the run goes on in memory until the last one has ended, and is given up there. For the same
reason the start of an at-most-once step gives nothing up.

The driver has no such switch that could be left on: the worker is handed another class of execution, here and, by
`first/sitecustomize.py`, in each Python process that a test starts.

Invariant: this module imports the driver and nothing else, as those processes load it by its path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from perdure import _steps, _worker
from perdure._engine import Checkpoint
from perdure._execution import Execution
from perdure._history import Request
from perdure._steps import StepCall

VARIABLE = "PERDURE_TEST_ALWAYS_SUSPEND"
ORDINARY_DELAY = _steps.SHORT_DELAY

EXCLUDED: Mapping[str, str] = {
    "driver/test_execution.py::test_a_pending_takes_effect_at_rest_so_two_calls_run_in_parallel": (
        "the workflow's own code asks that nothing ran yet, which is so in its first pass alone"
    ),
    "driver/test_execution.py::test_replaying_is_told_and_logs_stay_silent": (
        "it asks for a first pass that gets as far as the second line"
    ),
    "driver/test_execution.py::test_a_wait_answered_at_once_goes_on_in_memory": (
        "going on in memory after an answer is what the mode forbids"
    ),
    "driver/test_execution.py::test_a_run_that_nothing_can_wake_fails_as_stuck": (
        "it counts how often the workflow's clean-up ran, once per pass"
    ),
    "driver/test_steps.py::test_a_thread_that_cannot_be_stopped_keeps_its_slot": (
        "it notes the order of what the workflow's code does, which each pass does again"
    ),
    "driver/test_steps.py::test_progress_is_there_for_the_next_try_and_for_the_heartbeat": (
        "what a try told of its progress is kept in memory alone"
    ),
    "driver/test_endings.py::test_a_cancel_reaches_every_pending_and_clean_up_may_take_further_steps": (
        "it notes what the workflow's code sees, which each pass sees again"
    ),
    "driver/test_endings.py::test_what_finally_asks_for_during_a_suspension_has_no_effect": (
        "it counts how often a finally clause ran, once per pass"
    ),
}
"""Tests that cannot hold in this mode, each with the reason. One that holds is a failure: see `conftest.py`."""


def is_on() -> bool:
    """Tell whether this process runs in the mode."""
    return bool(os.environ.get(VARIABLE))


def install() -> None:
    """Make each worker of this process, and of those that it starts, give up its runs at every save."""
    _worker.Execution = AlwaysSuspending  # type: ignore[attr-defined]
    _steps.SHORT_DELAY = timedelta(0)
    first = str(Path(__file__).with_name("first"))
    path = os.environ.get("PYTHONPATH", "")
    if first not in path.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [first, path]))


class AlwaysSuspending(Execution):
    """An execution that gives its run up after each save, as soon as nothing of it is in flight."""

    has_saved = False
    gave_up = False
    was_told_to_leave = False

    def acknowledged(self, ordinal: int, request: Request, checkpoint: Checkpoint, value: Any) -> None:
        super().acknowledged(ordinal, request, checkpoint, value)
        self.has_saved = True
        if all(call.request is request for call in self.calls):
            self.give_up()

    def push_answer(self, request: Request | None, checkpoint: Checkpoint) -> None:
        super().push_answer(request, checkpoint)
        self.has_saved = True
        if not self.calls:
            self.give_up()

    def call_ended(self, call: StepCall) -> None:
        super().call_ended(call)
        if self.has_saved and not self.calls:
            self.give_up()

    def is_alone(self, call: StepCall) -> bool:
        return False  # nothing is delivered ahead of its save

    def release_soon(self) -> None:
        self.was_told_to_leave = True
        super().release_soon()

    def give_up(self) -> None:
        """Release the run before anything more is delivered."""
        if not self.is_stopping:
            self.gave_up = True
            self.stop(None)
