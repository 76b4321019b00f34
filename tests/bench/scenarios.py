"""What all contestants are asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import psycopg

from bench import alone, keeping, waiting
from bench.pgbench import pgbench
from bench.side import Side, WorkOptions
from bench.stage import Stage

Figures = Mapping[str, float]
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to measure, and the yardsticks that are taken just before it."""

    key: str
    yardsticks: tuple[str, ...]
    measure: Callable[[Stage, Side], Figures]
    is_alone: bool = False
    """Whether only Perdure is asked."""
    repetitions: int = 3
    """No more than so many: some take minutes."""


def drain(stage: Stage, side: Side, workflow: str, runs: int, steps: int) -> Figures:
    """Start runs, then let two workers end them; what is told is about the time from the first saved step on."""
    with stage.database(side) as dsn, psycopg.connect(dsn, autocommit=True) as conn, ExitStack() as stack:
        empty = stage.server.wal_bytes()
        stage.fill(conn, side, workflow, runs)
        filled = stage.server.wal_bytes()
        workers = [stack.enter_context(stage.worker(side, dsn, WorkOptions())) for _ in range(_WORKERS)]
        for worker in workers:
            worker.go()
        begin = stage.until_saved(conn, side, 1, workers)
        end = stage.until_finished(conn, side, runs, workers)
    ended = max(1, end.finished - begin.finished)  # a miniature can be over at the first look
    rate = ended / max(0.001, end.at - begin.at)
    return {
        "rate": rate,
        "steps": rate * steps,
        "python_ms": (end.python_ms - begin.python_ms) / ended,
        "postgres_ms": (end.postgres_ms - begin.postgres_ms) / ended,
        "wal": (filled - empty) / runs + (end.wal - begin.wal) / ended,
    }


def one_step(stage: Stage, side: Side) -> Figures:
    """Drain 1-step runs."""
    return drain(stage, side, "one", stage.scale.one[side.name], 1)


def ten_steps(stage: Stage, side: Side) -> Figures:
    """Drain 10-step runs."""
    return drain(stage, side, "ten", stage.scale.ten[side.name], 10)


def start(stage: Stage, side: Side) -> Figures:
    """Start runs by SQL: one by one with 16 clients, a hundred in a statement with 4; nobody works."""
    server, seconds = stage.server, stage.scale.start_seconds
    figures = {}
    for name, script, clients, runs in (
        ("one", "\\set n random(1, 1000000)\n" + side.start_one + ";\n", 16, 1),
        ("many", side.start_hundred + ";\n", 4, 100),
    ):
        with stage.database(side) as dsn:
            cpu, wal = server.cpu_ms(), server.wal_bytes()
            bout = pgbench(server.bin, dsn, script, clients=clients, seconds=seconds)
            started = bout.count * runs
            figures[f"{name}_rate"] = bout.settled * runs
            figures[f"{name}_postgres_ms"] = (server.cpu_ms() - cpu) / started
            figures[f"{name}_wal"] = (server.wal_bytes() - wal) / started
    return figures


def recovery(stage: Stage, side: Side) -> Figures:
    """Kill a worker that holds runs after their first step; tell how long it takes until all have ended, and what ran twice."""
    held, effects = stage.scale.held, stage.server.home / "effects"
    effects.write_bytes(b"")
    options = WorkOptions(max_runs=held, hangs=True, effects=str(effects))
    with ExitStack() as stack:
        dsn = stack.enter_context(stage.database(side))
        conn = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        stage.fill(conn, side, "held", held)
        first = stack.enter_context(stage.worker(side, dsn, options))
        second = stack.enter_context(stage.worker(side, dsn, replace(options, hangs=False)))
        time.sleep(stage.scale.up_seconds)  # a database of this moment declares nobody dead for a while
        first.go()
        stage.until_saved(conn, side, held, [first])
        if side.is_standing_by:
            second.go()
        first.kill()
        killed_at = time.monotonic()
        if not side.is_standing_by:
            second.go()
        end = stage.until_finished(conn, side, held, [second])
        return {"seconds": end.at - killed_at, "run_twice": effects.stat().st_size - held}


SCENARIOS = (
    Scenario("one_step", ("ins1(16)",), one_step),
    Scenario("ten_steps", ("ins1(16)",), ten_steps),
    Scenario("start", ("ins1(16)", "ins100(4)"), start),
    Scenario("latency", ("ins1(1)",), waiting.latency),
    Scenario("signal", ("ins1(1)",), waiting.signal, is_alone=True),
    Scenario("handles", (), waiting.handles, is_alone=True, repetitions=1),
    Scenario("notices", ("ins1(16)",), waiting.notices, is_alone=True),
    Scenario("recovery", (), recovery),
    Scenario("protocol", ("ins1(4)",), alone.protocol, is_alone=True),
    Scenario("hold", ("ins1(4)",), alone.hold, is_alone=True, repetitions=2),
    Scenario("growth", ("ins1(4)",), alone.growth, is_alone=True, repetitions=2),
    Scenario("retention", ("ins1(4)",), keeping.retention, is_alone=True, repetitions=1),
)
