"""How much is measured: all of it, the same in five minutes, or a miniature that only proves that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How many, how long, how often. Slower contestants get fewer runs, so that each takes seconds."""

    name: str
    repetitions: int
    yardstick_seconds: float
    """0: a few statements of each client."""
    one: Mapping[str, int]
    """1-step runs to drain, by contestant."""
    ten: Mapping[str, int]
    """10-step runs to drain, by contestant."""
    start_seconds: float
    round_trips: int
    idle_trips: int
    """Round trips with a pause before each."""
    idle_seconds: float
    handles: int
    """Results that one process waits for."""
    held: int
    """Runs in mid-air when the worker is killed."""
    up_seconds: float
    """How old the database is when its worker begins."""
    protocol: int
    """Runs that the protocol alone drains."""
    hold_seconds: int
    backlogs: tuple[int, ...]
    backlog_seconds: float
    sleeping: int
    kept: int
    """Ended runs of the period that is dropped."""
    minutes: float
    """After that nothing new is begun."""


FULL = Scale(
    name="full",
    repetitions=3,
    yardstick_seconds=2,
    one={"perdure": 60_000, "absurd": 8_000, "dbos": 2_000},
    ten={"perdure": 10_000, "absurd": 2_000, "dbos": 400},
    start_seconds=8,
    round_trips=300,
    idle_trips=30,
    idle_seconds=5,
    handles=10_000,
    held=500,
    up_seconds=6,
    protocol=100_000,
    hold_seconds=60,
    backlogs=(1_000, 10_000, 100_000, 1_000_000),
    backlog_seconds=5,
    sleeping=1_000_000,
    kept=1_000_000,
    minutes=34,
)
QUICK = Scale(
    name="quick",
    repetitions=1,
    yardstick_seconds=1,
    one={"perdure": 20_000, "absurd": 2_500, "dbos": 800},
    ten={"perdure": 3_000, "absurd": 800, "dbos": 150},
    start_seconds=4,
    round_trips=200,
    idle_trips=10,
    idle_seconds=3,
    handles=10_000,
    held=500,
    up_seconds=6,
    protocol=40_000,
    hold_seconds=18,
    backlogs=(1_000, 10_000, 100_000),
    backlog_seconds=3,
    sleeping=100_000,
    kept=100_000,
    minutes=10,
)
MINIATURE = Scale(
    name="miniature",
    repetitions=1,
    yardstick_seconds=0,
    one={"perdure": 40, "absurd": 40, "dbos": 40},
    ten={"perdure": 20, "absurd": 20, "dbos": 20},
    start_seconds=1,
    round_trips=3,
    idle_trips=2,
    idle_seconds=0.5,
    handles=200,
    held=20,
    up_seconds=0,
    protocol=800,
    hold_seconds=1,
    backlogs=(100,),
    backlog_seconds=1,
    sleeping=100,
    kept=1_000,
    minutes=10,
)
SCALES = {scale.name: scale for scale in (FULL, QUICK, MINIATURE)}
