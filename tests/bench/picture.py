"""Draw what was measured: `python -m bench.picture results.json results.svg`, in the environment that has matplotlib."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.lines import lines
from bench.report import Results, read
from bench.scale import SCALES

_PANELS = {
    ("one_step", "rate"): "1-step runs, runs/s",
    ("ten_steps", "steps"): "10-step runs, steps/s",
    ("start", "one_rate"): "starts, one by one, runs/s",
    ("one_step", "python_ms"): "CPU of the workers, ms/run",
    ("latency", "p50_ms"): "start to result, p50, ms",
    ("recovery", "seconds"): "500 runs after a kill, s",
}
_COLOURS = {"perdure": "#2f6db5", "absurd": "#b0b4ba", "dbos": "#b0b4ba"}


def draw(results: Results, path: Path) -> None:
    """Draw a panel for each figure, its direction said, on scales that begin at zero."""
    known = {(line.scenario, line.figure): line for line in lines(SCALES[results.scale])}
    panels = [key for key in _PANELS if all(results.values(known[key], name) for name in results.sides)]
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"})
    figure = Figure(figsize=(10, 1.0 + 1.55 * -(-max(1, len(panels)) // 3)), layout="constrained")
    for place, key in enumerate(panels, 1):
        line = known[key]
        axes = figure.add_subplot(-(-len(panels) // 3), 3, place)
        titles = [results.titles[name] for name in results.sides]
        values = [statistics.median(results.values(line, name)) for name in results.sides]
        bars = axes.barh(titles, values, color=[_COLOURS[name] for name in results.sides])
        axes.bar_label(bars, [_label(value) for value in values], padding=3)
        axes.set_xlim(0, max(values) * 1.25)
        axes.set_title(f"{_PANELS[key]} ({'less' if line.is_low_good else 'more'} is better)", fontsize=9, loc="left")
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.supxlabel(f"{results.date} · {results.machine} · {results.command}", fontsize=7, color="#666666")
    figure.savefig(path, facecolor="white", metadata={"Date": None})


def _label(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
