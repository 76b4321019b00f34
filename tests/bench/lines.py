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


def _rate(scenario: str, figure: str, title: str, unit: str, yardstick: str = "", aim: str = "") -> Line:
    return Line(scenario, figure, title, unit, yardstick, aim, is_low_good=False)


def lines(scale: Scale) -> list[Line]:
    """Return the lines of the table, in its order."""
    drained = "drain of 1-step runs, 2 worker processes"
    told = [
        _rate("one_step", "rate", drained, "runs/s", "ins1(16)", "≥ 1.0 × ins1(16), 50 × DBOS, 20 × Absurd"),
        Line("one_step", "python_ms", "— CPU of the workers", "ms/run", aim="≤ 0.10"),
        Line("one_step", "postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("one_step", "wal", "— WAL, start to outcome", "bytes/run", aim="≤ 2,000"),
        _rate(
            "ten_steps", "steps", "drain of 10-step runs, 2 worker processes", "steps/s", "ins1(16)",
            "≥ 2.0 × ins1(16), 100 × DBOS, 25 × Absurd",
        ),
        Line("ten_steps", "python_ms", "— CPU of the workers", "ms/run"),
        Line("ten_steps", "postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("ten_steps", "wal", "— WAL, start to outcome", "bytes/run"),
        _rate("start", "one_rate", "start one by one, 16 clients", "runs/s", "ins1(16)", "≥ 0.6 × ins1(16), 3 × Absurd"),
        Line("start", "one_postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("start", "one_wal", "— WAL", "bytes/run"),
        _rate("start", "many_rate", "start 100 in a statement, 4 clients", "runs/s", "ins100(4)", "≥ 0.25 × ins100(4)"),
        Line("start", "many_postgres_ms", "— CPU of Postgres", "ms/run"),
        Line("start", "many_wal", "— WAL", "bytes/run"),
        Line("latency", "p50_ms", "start to result in hand, idle, p50", "ms", aim="≤ 8"),
        Line("latency", "p99_ms", "— p99", "ms", aim="≤ 30"),
        Line("latency", "idle_transactions", "— transactions of the idle worker", "/s", aim="≤ 5"),
        Line("latency", "idle_cpu_percent", "— CPU of the idle worker and Postgres", "% of a core"),
        Line("recovery", "seconds", f"worker killed with {scale.held} runs in mid-air, all ended", "s", aim="≤ 3"),
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
    return told
