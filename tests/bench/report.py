"""What was measured: kept as JSON after each measurement, and told as one table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.lines import Line, lines
from bench.scale import SCALES
from bench.side import side


@dataclass(frozen=True, slots=True)
class Record:
    """One measurement of one contestant, and the yardsticks of that minute."""

    scenario: str
    side: str
    repetition: int
    at: str
    seconds: float
    figures: Mapping[str, float]
    yardsticks: Mapping[str, float]


@dataclass(slots=True)
class Results:
    """All that a run of the bench has found out."""

    scale: str
    command: str
    date: str
    machine: str
    server: str
    sides: Sequence[str]
    titles: Mapping[str, str]
    load: str
    """How busy the machine was when it began."""
    records: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Keep it."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def values(self, line: Line, name: str) -> list[float]:
        """Return the figures of one contestant, one for each repetition."""
        return [
            record.figures[line.figure]
            for record in self.records
            if record.scenario == line.scenario and record.side == name and line.figure in record.figures
        ]

    def ratios(self, line: Line, name: str) -> list[float]:
        """Return the same as multiples of the yardstick taken just before each."""
        return [
            record.figures[line.figure] / record.yardsticks[line.yardstick]
            for record in self.records
            if record.scenario == line.scenario
            and record.side == name
            and line.figure in record.figures
            and record.yardsticks.get(line.yardstick)
        ]


def read(path: Path) -> Results:
    """Read what was kept."""
    kept = json.loads(path.read_text())
    records = [Record(**record) for record in kept.pop("records")]
    return Results(**kept, records=records)


def markdown(results: Results) -> str:
    """Tell it as a table, with all that a reader needs to judge it."""
    sides = [side(name) for name in results.sides]
    repetitions = max((record.repetition for record in results.records), default=0)
    rows = [["", *(each.title for each in sides), "Perdure ÷ yardstick", "aimed at"]]
    rows.append(["---", *("---:" for _ in sides), "---:", "---"])
    for line in lines(SCALES[results.scale]):
        if any(results.values(line, name) for name in results.sides):
            ratios = results.ratios(line, "perdure") if line.yardstick else []
            ratio = f"{spread(ratios)} × {line.yardstick}" if ratios else ""
            cells = (cell(results, line, name) for name in results.sides)
            rows.append([f"{line.title}{', ' if line.unit else ''}{line.unit}", *cells, ratio, line.aim])
    yardsticks: dict[str, list[float]] = {}
    for record in results.records:
        for name, value in record.yardsticks.items():
            yardsticks.setdefault(name, []).append(value)
    told = [
        f"Median and range of {repetitions} repetition{'s' if repetitions > 1 else ''} (what takes minutes: 1 or 2), {results.date}, by `{results.command}`.",
        f"Machine: {results.machine}; load when it began: {results.load}. Server: {results.server}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Yardsticks, taken by pgbench just before each measurement, in rows/s: `ins1(c)` is one row in a commit with c"
        " clients, `ins100(c)` a hundred rows in a commit: "
        + "; ".join(f"{name} {spread(values)}" for name, values in sorted(yardsticks.items()))
        + ".",
        "Contestants take turns on the same server, each in a new database of it, with the same durability. [n ×]: Perdure"
        " is so many times better, or worse below 1.",
        "",
        *(f"- {each.title}: {each.tuning}; takes runs over {each.recovery}." for each in sides),
        *(f"- Not measured: {failure}" for failure in results.failures),
    ]
    return "\n".join(told) + "\n"


def cell(results: Results, line: Line, name: str) -> str:
    values = results.values(line, name)
    if not values:
        return ""
    told = spread(values)
    ours = results.values(line, "perdure")
    if name == "perdure" or not ours or line.unit in ("", "%", "/s"):
        return told
    mine, other = statistics.median(ours), statistics.median(values)
    if not mine or not other:
        return told
    return f"{told} [{_number(other / mine if line.is_low_good else mine / other)} ×]"


def spread(values: Sequence[float]) -> str:
    told = _number(statistics.median(values))
    return told if len(values) < 2 else f"{told} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
