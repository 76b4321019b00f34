"""Random lives of a whole install, one thread and one seed each: every promise of the model holds after each commit.

A seed that fails says how to run it again; `make soak` runs thousands of others.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.sessions import Arena, quiet_server
from sim.simulation import simulate

QUICK = range(1, 5)
MORE = range(100, 121)


@pytest.fixture(scope="module")
def arena(prefix: str) -> Iterator[Arena]:
    """A database in which all chance and all time are the simulation's."""
    with quiet_server(f"{prefix}_sim") as server:
        made = Arena(server.installed_database())
        yield made
        made.close()


@pytest.mark.parametrize("seed", QUICK)
def test_a_random_life_breaks_no_promise(arena: Arena, seed: int) -> None:
    simulate(arena, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_another_random_life_breaks_no_promise(arena: Arena, seed: int) -> None:
    simulate(arena, seed)


@pytest.mark.parametrize("seed", [3])
def test_the_same_seed_gives_the_same_run(arena: Arena, seed: int) -> None:
    first, second = simulate(arena, seed, keeps_trace=True), simulate(arena, seed, keeps_trace=True)
    for n, (one, other) in enumerate(zip(first.trace, second.trace, strict=False)):
        assert one == other, f"line {n} of the trace differs"
    assert first.digest == second.digest
