"""What is told of each scenario: figure by figure, in words, beside its yardstick and what is aimed at."""

from __future__ import annotations

from dataclasses import dataclass

from bench.scale import Scale


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    scenario: str
    figure: str
    title: str
    unit: str
    yardstick: str = ""
    aim: str = ""
    is_low_good: bool = True
    short: str = ""
    """What README calls it; empty where README leaves it out."""


def _rate(
    scenario: str, figure: str, title: str, unit: str, yardstick: str = "", aim: str = "", short: str = ""
) -> Line:
    return Line(scenario, figure, title, unit, yardstick, aim, is_low_good=False, short=short)


def lines(scale: Scale) -> list[Line]:
    """Return the lines of the table, in its order."""
    drained = "drain of 1-step runs, 2 worker processes"
    told = [
        _rate(
            "one_step", "rate", drained, "runs/s", "ins1(16)", "≥ 1.0 × ins1(16), 50 × DBOS, 20 × Absurd",
            short="runs of 1 step, drained by 2 worker processes",
        ),
        Line("one_step", "python_ms", "— CPU of the workers", "ms/run", aim="≤ 0.10", short="— CPU of the workers"),
        Line("one_step", "postgres_ms", "— CPU of Postgres", "ms/run", short="— CPU of Postgres"),
        Line(
            "one_step", "wal", "— WAL, start to outcome", "bytes/run", aim="≤ 2,000", short="— WAL, start to outcome"
        ),
        _rate(
            "ten_steps", "steps", "drain of 10-step runs, 2 worker processes", "steps/s", "ins1(16)",
            "≥ 2.0 × ins1(16), 100 × DBOS, 25 × Absurd", short="steps of runs of 10, drained by 2 worker processes",
        ),
        Line("ten_steps", "python_ms", "— CPU of the workers", "ms/run"),
        Line("ten_steps", "postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("ten_steps", "wal", "— WAL, start to outcome", "bytes/run"),
        _rate(
            "start", "one_rate", "start one by one, 16 clients", "runs/s", "ins1(16)", "≥ 0.6 × ins1(16), 3 × Absurd",
            short="starts one by one, 16 clients",
        ),
        Line("start", "one_postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("start", "one_wal", "— WAL", "bytes/run"),
        _rate(
            "start", "many_rate", "start 100 in a statement, 4 clients", "runs/s", "ins100(4)", "≥ 0.25 × ins100(4)",
            short="starts, 100 in a statement, 4 clients",
        ),
        Line("start", "many_postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("start", "many_wal", "— WAL", "bytes/run"),
        Line(
            "latency", "p50_ms", "start to result in hand, idle, p50", "ms", aim="≤ 8",
            short="start to result in hand, p50, now and then",
        ),
        Line("latency", "p99_ms", "— p99", "ms", aim="≤ 30"),
        Line(
            "latency", "loop_p50_ms", "start to result in hand, each right after the last, p50", "ms", aim="≤ 8",
            short="— each start right after the last result",
        ),
        Line("latency", "loop_p99_ms", "— p99", "ms", aim="≤ 30"),
        Line(
            "latency", "idle_transactions", "transactions of an idle worker", "/s", aim="≤ 5",
            short="transactions of an idle worker",
        ),
        Line("latency", "idle_cpu_percent", "— CPU of it and of Postgres", "% of a core"),
        Line(
            "signal", "p50_ms", "signal to a waiting run goes on, idle, p50", "ms", aim="≤ 8",
            short="signal to a waiting run goes on, p50",
        ),
        Line("signal", "p99_ms", "— p99", "ms"),
        Line("handles", "queries", f"{scale.handles:,} handles waiting in one process, queries", "/s"),
        Line("handles", "cpu_percent", "— CPU of it and of Postgres", "% of a core"),
        _rate("notices", "off_rate", "start one by one, 16 clients, beside a worker, without notifications", "runs/s", "ins1(16)"),
        _rate("notices", "on_rate", "— with notifications", "runs/s", "ins1(16)"),
        _rate("notices", "kept", "— with against without", "%", "", "≥ 95"),
        Line(
            "recovery", "seconds", f"worker killed with {scale.held} runs in mid-air, all ended", "s", aim="≤ 3",
            short=f"a worker is killed with {scale.held} runs in mid-air: all have ended after",
        ),
        Line("recovery", "run_twice", "— saved steps that ran twice", "", aim="0"),
        _rate("protocol", "rate", "protocol alone, 4 clients, 100 at a time", "runs/s", "ins1(4)", "≥ 3.0 × ins1(4)"),
        Line("protocol", "postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("protocol", "wal", "— WAL, claim to outcome", "bytes/run"),
    ]  # fmt: skip
    for name, what in (
        ("free", "nobody holds anything"),
        ("snapshot", "an open REPEATABLE READ transaction"),
        ("writer", "an open writing transaction"),
    ):
        aim = "" if name == "free" else "≥ 90"
        told += [
            _rate(
                "hold", f"{name}_kept", f"{what}: last sixth of {scale.hold_seconds} s against the first", "%", "", aim
            ),
            _rate("hold", f"{name}_first", "— the first sixth", "runs/s", "ins1(4)"),
            Line("hold", f"{name}_buffers", "— buffers that one more claim touches", "", aim="≤ 60"),
        ]
    beside = [(f"{runs}_queued", f"{runs:,} queued") for runs in scale.backlogs]
    for name, what in (*beside, (f"{scale.sleeping}_sleeping", f"{scale.sleeping:,} sleeping")):
        told.append(Line("growth", f"{name}_postgres_ms", f"CPU of Postgres beside {what}", "ms/run", aim="± 15 %"))
    told += [
        Line("retention", "postgres_ms", f"CPU of Postgres beside {scale.kept:,} ended", "ms/run", aim="± 15 %"),
        Line("retention", "seconds", f"dropping {scale.kept:,} ended runs", "s", aim="≤ 1"),
        Line("retention", "pause_ms", "— longest round of a worker meanwhile", "ms", aim="≤ 100"),
        Line("retention", "quiet_ms", "— the same in the second before", "ms"),
    ]
    return told
