"""Simulate seed after seed until time is over, in two processes; or a single one, with its whole trace.

cd tests && ../.venv/bin/python -m sim.soak --seconds 600
cd tests && ../.venv/bin/python -m sim.soak --seed 1234 --trace
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.queues import Queue

from sim.breaks import BREAKS
from sim.rules import Violation
from sim.sessions import Arena, quiet_server
from sim.simulation import Failure, Result, simulate
from support.database import PostgresServer, remove_leftovers


@dataclass
class Report:
    """What a process found with one seed."""

    seed: int
    seconds: float
    counted: Counter[str] = field(default_factory=Counter)
    failure: str | None = None


def one(arena: Arena, seed: int, *, keeps_trace: bool = False, pause_in: str = "") -> tuple[Report, Result | None]:
    """Simulate one seed."""
    began = time.monotonic()
    try:
        result = simulate(arena, seed, keeps_trace=keeps_trace, pause_in=pause_in)
    except Failure as failure:
        text = str(failure)
        if not isinstance(failure.__cause__, Violation):
            text += "\n" + "".join(traceback.format_exception(failure.__cause__))
        return Report(seed, time.monotonic() - began, failure=text), None
    return Report(seed, time.monotonic() - began, result.counted), result


def made(server: PostgresServer, broken: str | None) -> Arena:
    """Make an arena, with the engine broken at one place if that is asked for."""
    arena = Arena(server.installed_database())
    for function, changes in BREAKS[broken].items() if broken else ():
        arena.replace(function, *changes)
    return arena


def live(
    first: int, stride: int, until: float, broken: str | None, pause_in: str, reports: Queue[Report | None]
) -> None:
    """Simulate every stride-th seed until the time is over, on a server of this process's own."""
    try:
        with quiet_server(f"perdure_soak_{os.getpid()}") as server:
            arena = made(server, broken)
            seed = first
            while time.monotonic() < until:
                reports.put(one(arena, seed, pause_in=pause_in)[0])
                seed += stride
    finally:
        reports.put(None)


def soak(seconds: float, first: int, processes: int, broken: str | None, pause_in: str, *, keep_going: bool) -> int:
    """Simulate for so long; return how many seeds failed."""
    context = multiprocessing.get_context("spawn")
    reports: Queue[Report | None] = context.Queue()
    until = time.monotonic() + seconds
    lives = [
        context.Process(target=live, args=(first + n, processes, until, broken, pause_in, reports), daemon=True)
        for n in range(processes)
    ]
    for process in lives:
        process.start()
    total, failed, seeds, ended = Counter[str](), [], 0, 0
    said_at = time.monotonic()
    while ended < processes:
        report = reports.get()
        if report is None:
            ended += 1
            continue
        seeds += 1
        total += report.counted
        if report.failure is not None:
            failed.append(report.seed)
            print(report.failure, flush=True)
            if not keep_going:
                break
        if time.monotonic() - said_at > 5:
            said_at = time.monotonic()
            left = max(0, round(until - said_at))
            print(f"[soak] {seeds} seeds, {total['calls']} calls, {len(failed)} failed, {left} s left", flush=True)
    for process in lives:
        if keep_going or not failed:
            process.join()
        else:
            process.terminate()
    print(f"[soak] {seeds} seeds; failed: {failed or 'none'}")
    for what, count in sorted(total.items()):
        print(f"[soak] {count:9} {what}")
    return len(failed)


def main() -> int:
    """Read what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="simulate this one alone")
    parser.add_argument("--trace", action="store_true", help="print all that it does")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=1, help="the seed to begin with")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first failure")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="break the engine there before")
    parser.add_argument("--pause-in", default="", metavar="FUNCTION", help="pause often in this function of the engine")
    options = parser.parse_args()
    remove_leftovers()
    if options.seed is None:
        failed = soak(
            options.seconds,
            options.first,
            options.processes,
            options.broken,
            options.pause_in,
            keep_going=options.keep_going,
        )
        return min(1, failed)
    with quiet_server(f"perdure_soak_{os.getpid()}") as server:
        report, result = one(
            made(server, options.broken), options.seed, keeps_trace=options.trace, pause_in=options.pause_in
        )
    if result is not None and options.trace:
        print("\n".join(result.trace))
    print(report.failure or f"seed {report.seed}: nothing found, in {report.seconds:.2f} s")
    return 0 if report.failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
