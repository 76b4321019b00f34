"""How long it takes until somebody who waits goes on, and what waiting costs: results, signals, handles, notifications."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import psycopg
from psycopg.types.json import Jsonb

from bench.pgbench import pgbench
from bench.side import Side, WorkOptions
from bench.stage import Process, Stage, Stuck, count

_PAUSE = 0.4
_PATIENCE = 300.0


def latency(stage: Stage, side: Side) -> Mapping[str, float]:
    """Let one worker idle, and see what that costs; start runs now and then, then each right after the last's result."""
    scale = stage.scale
    with stage.database(side) as dsn, stage.worker(side, dsn, WorkOptions(is_quick=True)) as worker:
        worker.go()
        _taken(stage, side, "round_trips", dsn, 2, 0)
        time.sleep(scale.idle_seconds)
        transactions, percent = _cost(stage, dsn, worker)
        idle = _taken(stage, side, "round_trips", dsn, scale.idle_trips, _PAUSE)
        closed = _taken(stage, side, "round_trips", dsn, scale.round_trips, 0)
    return {
        **_percentiles("", idle),
        **_percentiles("loop_", closed),
        "idle_transactions": transactions,
        "idle_cpu_percent": percent,
    }


def signal(stage: Stage, side: Side) -> Mapping[str, float]:
    """Send signals to runs that wait for them in an idle system: how long until the run goes on?"""
    with stage.database(side) as dsn, stage.worker(side, dsn, WorkOptions(is_quick=True)) as worker:
        worker.go()
        return _percentiles("", _taken(stage, side, "signals", dsn, stage.scale.idle_trips, _PAUSE))


def handles(stage: Stage, side: Side) -> Mapping[str, float]:
    """Let one process wait for the results of many runs that nobody executes."""
    wanted = stage.scale.handles
    with ExitStack() as stack:
        dsn = stack.enter_context(stage.database(side))
        conn = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        client = stack.enter_context(stage.process(side, "wait_for_many", dsn=dsn, count=wanted))
        client.answer()
        until = time.monotonic() + _PATIENCE
        while count(conn, "select count(*) from perdure.dispatch") < wanted:
            if time.monotonic() > until:
                raise Stuck(client.complaint())
            time.sleep(0.1)
        time.sleep(stage.scale.idle_seconds)
        transactions, percent = _cost(stage, dsn, client)
        if count(conn, "select count(*) from perdure.outcome"):
            raise Stuck("somebody executes what nobody was to execute")
        client.go()
        client.answer()  # none has failed meanwhile
    return {"queries": transactions, "cpu_percent": percent}


def notices(stage: Stage, side: Side) -> Mapping[str, float]:
    """Start runs one by one with 16 clients beside a worker that takes them: without notifications, then as it comes."""
    figures: dict[str, float] = {}
    for name, value in (("off", "never"), ("on", "auto")):
        with stage.database(side) as dsn, stage.worker(side, dsn, WorkOptions()) as worker:
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute("select perdure.put_setting('notify', %s)", [Jsonb(value)])
            worker.go()
            _taken(stage, side, "round_trips", dsn, 2, 0)
            time.sleep(stage.scale.idle_seconds)
            script, seconds = f"{side.start_one.replace(':n', '1')};\n", stage.scale.start_seconds
            figures[f"{name}_rate"] = pgbench(stage.server.bin, dsn, script, clients=16, seconds=seconds).settled
    figures["kept"] = figures["on_rate"] / figures["off_rate"] * 100
    return figures


def _cost(stage: Stage, dsn: str, process: Process) -> tuple[float, float]:
    """Look for a while at what happens: transactions a second, and the CPU of the process and Postgres in percent of a core."""
    server = stage.server
    began, seen, cpu = time.monotonic(), server.transactions(dsn), server.cpu_ms() + process.cpu_ms
    time.sleep(stage.scale.idle_seconds)
    transactions, spent = server.transactions(dsn) - seen, server.cpu_ms() + process.cpu_ms - cpu
    seconds = time.monotonic() - began
    return transactions / seconds, spent / (seconds * 10)


def _taken(stage: Stage, side: Side, role: str, dsn: str, trips: int, pause: float) -> list[float]:
    warm_up = min(5 if pause else 20, trips)
    with stage.process(side, role, dsn=dsn, count=trips, warm_up=warm_up, pause=pause) as client:
        taken: list[float] = client.answer(_PATIENCE)
    return taken


def _percentiles(prefix: str, taken: Sequence[float]) -> dict[str, float]:
    ranked = sorted(taken)
    return {
        f"{prefix}p50_ms": statistics.median(ranked) * 1000,
        f"{prefix}p99_ms": ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)] * 1000,
    }
