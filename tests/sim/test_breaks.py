"""The simulation finds what it is there for: the engine is broken at one line, and a bounded number of seeds tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.breaks import BREAKS
from sim.sessions import Arena, quiet_server
from sim.simulation import Failure, simulate

# The seed that is known to tell; `python -m sim.soak --break NAME` looks for others.
TELLING: dict[str, int] = {
    "a_drain_that_looks_before_it_deletes": 12,
    "a_suspension_that_does_not_look": 2,
    "a_worker_without_a_fence": 2,
    "a_time_out_that_beats_the_message": 1,
    "a_look_that_answers_two_waits": 1,
    "a_release_that_ends_a_pause": 1,
    "a_restart_without_grace": 2,
}


@pytest.fixture(scope="module")
def arena(prefix: str) -> Iterator[Arena]:
    """A database to break the engine in."""
    with quiet_server(f"{prefix}_breaks") as server:
        made = Arena(server.installed_database())
        yield made
        made.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TELLING))
def test_the_simulation_finds(arena: Arena, name: str) -> None:
    for function, changes in BREAKS[name].items():
        arena.replace(function, *changes)
    try:
        with pytest.raises(Failure) as found:
            simulate(arena, TELLING[name])
    finally:
        arena.restore()
    assert found.value.rule
