"""Measure: `python -m bench --scale quick`, from the folder of the tests; `make bench` prepares what it needs."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench import readme
from bench.report import Record, Results, markdown
from bench.scale import SCALES
from bench.scenarios import SCENARIOS, Scenario
from bench.server import BenchServer
from bench.side import Side, side
from bench.stage import Stage
from support.provision import own_binaries

_HERE = Path(__file__).parent
_README = _HERE.parents[1] / "README.md"


def say(told: str) -> None:
    """Tell how it goes."""
    print(f"[bench] {told}", flush=True)


def machine() -> str:
    """Describe this machine, without naming it."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB, Linux {platform.release()}, Python {platform.python_version()}"


def measured(stage: Stage, scenario: Scenario, contestant: Side, repetition: int) -> Record:
    """Take the yardsticks, then measure one contestant once."""
    at, began = dt.datetime.now(dt.timezone.utc), time.monotonic()
    yardsticks = {name: stage.yardstick(name) for name in scenario.yardsticks}
    figures = scenario.measure(stage, contestant)
    seconds = time.monotonic() - began
    return Record(
        scenario.key, contestant.name, repetition, f"{at:%Y-%m-%dT%H:%M:%SZ}", round(seconds, 1), figures, yardsticks
    )


def bench(stage: Stage, results: Results, repetitions: int, only: list[str], path: Path) -> None:
    """Measure all, contestant after contestant, scenario after scenario, again and again; each result is kept at once."""
    contestants = [side(name) for name in results.sides]
    until = time.monotonic() + stage.scale.minutes * 60
    for repetition in range(1, repetitions + 1):
        turn = repetition % len(contestants)
        for scenario in SCENARIOS:
            if (only and scenario.key not in only) or repetition > scenario.repetitions:
                continue
            for contestant in contestants[turn:] + contestants[:turn]:
                if scenario.is_alone and contestant.is_peer:
                    continue
                what = f"{scenario.key}, {contestant.title}, {repetition} of {repetitions}"
                if time.monotonic() > until:
                    results.failures.append(f"{what}: the time was over")
                    continue
                try:
                    record = measured(stage, scenario, contestant, repetition)
                except Exception as error:  # noqa: BLE001 - whatever one of them runs into, the others are measured
                    results.failures.append(f"{what}: {type(error).__name__}")
                    say(f"{what}: {type(error).__name__}: {error}")
                    continue
                results.records.append(record)
                results.write(path)
                told = {**record.figures, **record.yardsticks}
                say(f"{what} ({record.seconds:.0f} s): " + ", ".join(f"{k} {v:,.4g}" for k, v in told.items()))


def tell(results: Results, into: Path, options: argparse.Namespace) -> None:
    """Write the table, draw the picture, and tell README of both."""
    results.write(into / "results.json")
    table = markdown(results)
    (into / "results.md").write_text(table)
    print(f"\n{table}", flush=True)
    if options.peers:
        picture = (into / "results.svg").absolute()
        draw = [options.peers.absolute(), "-m", "bench.picture", (into / "results.json").absolute(), picture]
        if subprocess.run(draw, cwd=_HERE.parent, check=False).returncode:
            say("the picture could not be drawn")
    # a part of it, or of one contestant, is not what README tells of
    path = options.readme or (_README if options.peers and not options.only and results.scale == "full" else None)
    if path is not None:
        readme.write(results, path, into)
        say(f"told in {path}")


def main() -> int:
    """Read what is asked, measure, and tell; what was measured is told also when it is interrupted."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--repetitions", type=int, help="how often each is measured")
    parser.add_argument("--only", nargs="*", default=[], choices=[each.key for each in SCENARIOS], metavar="SCENARIO")
    parser.add_argument(
        "--peers", type=Path, help="the Python of the environment that has them; without it Perdure alone"
    )
    parser.add_argument("--into", type=Path, default=_HERE, help="where results.json, .md and .svg are written")
    parser.add_argument("--command", default="make bench", help="what the table names as its origin")
    parser.add_argument(
        "--readme",
        type=Path,
        help="where the table and the picture are told of; README.md, where all was measured in full",
    )
    options = parser.parse_args()
    scale = SCALES[options.scale]
    into: Path = options.into
    sides = ["perdure", "absurd", "dbos"] if options.peers else ["perdure"]
    interrupted = False
    into.mkdir(parents=True, exist_ok=True)
    with BenchServer(own_binaries()) as server:
        results = Results(
            scale=scale.name,
            command=options.command,
            date=f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d %H:%M} UTC",
            machine=machine(),
            server=server.description,
            sides=sides,
            titles={name: side(name).title for name in sides},
            load=f"{os.getloadavg()[0]:.1f}",
        )
        say(f"{results.machine}; load {results.load}")
        if float(results.load) > 0.5 * (os.cpu_count() or 1):
            say("others work on this machine: ratios and costs say more than rates, and none of them much")
        say(results.server)
        stage = Stage(server, scale, options.peers.absolute() if options.peers else None)
        repetitions = options.repetitions or scale.repetitions
        try:
            bench(stage, results, repetitions, options.only, into / "results.json")
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; this is what there is")
    if not results.records:
        return 130 if interrupted else 1
    tell(results, into, options)
    say(f"written: {', '.join(sorted(str(each) for each in into.glob('results.*')))}")
    return 130 if interrupted else min(1, len(results.failures))


if __name__ == "__main__":
    sys.exit(main())
