"""The simulation finds what it is there for: the engine is broken at one line, and a bounded number of seeds tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.breaks import BREAKS
from sim.rules import Violation
from sim.sessions import Arena, Refused, quiet_server
from sim.simulation import Failure, simulate
from support.database import Database

# Those that a few seeds tell; `python -m sim.soak --break NAME` looks for the others.
SOON = (
    "a_suspension_that_does_not_look",
    "a_look_that_answers_two_waits",
    "a_time_out_that_beats_the_message",
    "a_claim_whose_token_nobody_compares",
    "a_message_whose_conflict_is_not_looked_at",
)
SEEDS = range(1, 25)


@pytest.fixture(scope="module")
def arena(prefix: str) -> Iterator[Arena]:
    """A database to break the engine in."""
    with quiet_server(f"{prefix}_breaks") as server:
        made = Arena(server.installed_database())
        yield made
        made.close()


def simulate_all(arena: Arena) -> None:
    """Simulate one seed after the other."""
    for seed in SEEDS:
        simulate(arena, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOON)
def test_the_simulation_finds(arena: Arena, name: str) -> None:
    for function, changes in BREAKS[name].items():
        arena.replace(function, *changes)
    try:
        with pytest.raises(Failure) as found:
            simulate_all(arena)
    finally:
        arena.restore()
    # a broken promise, or an error that no worker may get
    assert isinstance(found.value.__cause__, (Violation, Refused))


def test_each_break_fits_the_engine(database: Database) -> None:
    for name, functions in BREAKS.items():
        for function, changes in functions.items():
            text = database.value("select pg_get_functiondef(to_regproc(%s))", f"perdure.{function}")
            for old, new in changes:
                assert text and old in text and old != new, f"{name}: {function} does not say {old!r}"
