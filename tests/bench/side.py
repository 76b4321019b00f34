"""What a contestant is: statements that every client could type, and what its own SDK does in a process of its own.

Invariant: nothing here or in a contestant's module imports a peer's package at its top: the bench reads the statements
in an environment that has none of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

QUEUE = "bench"
LEASE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How a worker process works."""

    max_runs: int = 100
    """How many runs it holds at a time."""
    is_quick: bool = False
    """Whether it polls for latency's sake."""
    hangs: bool = False
    """Whether the second step of `held` waits for ever, until the process is killed."""
    effects: str = ""
    """A file to which the first step of `held` appends a byte each time it runs."""


class Side(Protocol):
    """A contestant.

    Its workflows: `one` runs one step that adds 1 to its input, `ten` runs ten of them, `held` runs one that leaves
    an effect and one that may hang.
    """

    name: str
    title: str
    is_peer: bool
    tuning: str
    recovery: str
    """How it takes runs back from a dead worker."""
    start_one: str
    """What pgbench sends to start one run of `one`."""
    start_hundred: str
    """What pgbench sends to start a hundred runs of `one` in one statement."""
    fill: str
    """Starts %(count)s runs of %(workflow)s."""
    finished: str
    """Counts the runs that have ended well."""
    saved: str
    """Counts the steps that are saved."""
    package: str
    """What a process of its loads before it is ready."""
    after_copy: str
    """Makes it work in a copy of the database that it was installed into."""
    is_standing_by: bool
    """Whether a worker that already runs may take over from a dead one."""

    def install(self, dsn: str) -> None:
        """Install it into an empty database."""

    def work(self, dsn: str, options: WorkOptions) -> None:
        """Run a worker as this process, until it is killed."""

    def round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        """Start a run of `one` and wait for its result, one after the other; return how many seconds each took.

        Before each there is a pause, of 0.5 to 1.5 times so many seconds.
        """


def pauses(pause: float) -> float:
    """Return a pause around that one, so that nobody falls into step with what polls."""
    return pause * random.uniform(0.5, 1.5)


def leave_effect(options: WorkOptions) -> None:
    """Append the byte of a first step."""
    with Path(options.effects).open("ab") as effects:
        effects.write(b"x")


def side(name: str) -> Side:
    """Return a contestant by its name."""
    made: Side = import_module(f"bench.{name}_side").SIDE
    return made
