"""What all contestants are asked to do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

import psycopg

from bench import alone
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


def latency(stage: Stage, side: Side) -> Figures:
    """Let one worker idle, and see what that costs; then start runs one after the other, each after the last's result."""
    server, scale = stage.server, stage.scale
    with stage.database(side) as dsn, stage.worker(side, dsn, WorkOptions(is_quick=True)) as worker:
        worker.go()
        _round_trips(stage, side, dsn, 2)
        time.sleep(scale.idle_seconds)
        began, seen = time.monotonic(), server.transactions(dsn)
        cpu = server.cpu_ms() + worker.cpu_ms
        time.sleep(scale.idle_seconds)
        idle = time.monotonic() - began
        transactions = (server.transactions(dsn) - seen) / idle
        cpu = (server.cpu_ms() + worker.cpu_ms - cpu) / (idle * 1000)
        taken = sorted(_round_trips(stage, side, dsn, scale.round_trips))
    return {
        "p50_ms": statistics.median(taken) * 1000,
        "p99_ms": taken[min(len(taken) - 1, len(taken) * 99 // 100)] * 1000,
        "idle_transactions": transactions,
        "idle_cpu_percent": cpu * 100,
    }


def _round_trips(stage: Stage, side: Side, dsn: str, trips: int) -> list[float]:
    warm_up = min(20, trips)
    with stage.process(side, "round_trips", dsn=dsn, count=trips, warm_up=warm_up) as client:
        taken: list[float] = client.answer(600)
    return taken


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
    Scenario("latency", ("ins1(1)",), latency),
    Scenario("recovery", (), recovery),
    Scenario("protocol", ("ins1(4)",), alone.protocol, is_alone=True),
    Scenario("hold", ("ins1(4)",), alone.hold, is_alone=True),
    Scenario("growth", ("ins1(4)",), alone.growth, is_alone=True),
)
