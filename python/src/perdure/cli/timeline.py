"""Draw a run: each step as a bar over time.

Times before a wait's answer are not on record, so a wait's bar begins where the run last got on. Beginnings of steps
are by the worker's clock, all else by the database's: what would lie before the run is drawn at its beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from perdure.cli.output import clock, duration
from perdure.cli.records import Story

# What stands for what: in any encoding, and where it is ASCII alone.
_DRAWN = {"ran": "█", "failed": "▒", "backs_off": "·", "waited": "░", "goes_on": "▶", "point": "•"}
_TYPED = {"ran": "#", "failed": "x", "backs_off": ".", "waited": "-", "goes_on": ">", "point": "*"}
_COLOURS = {
    "ran": "green",
    "failed": "red",
    "backs_off": "yellow",
    "waited": "blue",
    "goes_on": "cyan",
    "point": "magenta",
}
_LEGEND = {
    "ran": "ran",
    "failed": "failed try",
    "backs_off": "until the next try",
    "waited": "waited",
    "goes_on": "still going",
    "point": "noted",
}

_WAITS = ("signal", "sleep", "timer")
_POINTS = ("value", "cancel", "started")


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a bar."""

    kind: str
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """A step or wait with its bar."""

    key: str
    kind: str
    tries: int
    segments: list[Segment]

    @property
    def took(self) -> timedelta:
        """From its first sign to its last."""
        return max(s.end for s in self.segments) - min(s.begin for s in self.segments)


def lines_of(story: Story) -> list[Line]:
    """What is on record in its order, then what is under way."""
    begin, now = story.run.created_at, story.run.seen_at
    tries: dict[str, list[Segment]] = {}
    for entry in story.history:
        if entry.what == "try failed" and entry.key is not None:
            first = min(max(entry.started_at or entry.at, begin), entry.at)
            tries.setdefault(entry.key, []).append(Segment("failed", first, entry.at))
    running = {active.key for active in story.activity}

    lines: list[Line] = []
    got_on = begin
    for step in story.steps:
        kind = step.kind or "step"
        failed = tries.get(step.key, [])
        if step.saved_at is None:
            if step.key not in running:
                lines.append(Line(step.key, kind, step.attempts, _with_pauses(failed, now)))
            continue
        if kind in _WAITS:
            segments = [Segment("waited", min(got_on, step.saved_at), step.saved_at)]
        elif kind in _POINTS:
            segments = [Segment("point", step.saved_at, step.saved_at)]
        elif step.state == "failed" and failed:
            segments = _with_pauses(failed, failed[-1].end)
        else:
            first = min(max(step.started_at or step.saved_at, begin), step.saved_at)
            ended = "failed" if step.state == "failed" else "ran"
            segments = [*_with_pauses(failed, first), Segment(ended, first, step.saved_at)]
        lines.append(Line(step.key, kind, step.attempts, segments))
        got_on = max(got_on, step.saved_at)
    lines += [
        Line(wait.key, wait.kind, 1, [Segment("waited", got_on, now), Segment("goes_on", now, now)])
        for wait in story.waits
        if wait.kind != "retry"
    ]
    return lines + [
        Line(
            active.key,
            "step",
            len(tries.get(active.key, [])) + 1,
            [
                *_with_pauses(tries.get(active.key, []), active.since),
                Segment("ran", min(active.since, now), now),
                Segment("goes_on", now, now),
            ],
        )
        for active in story.activity
    ]


def draw(lines: Sequence[Line], begin: datetime, end: datetime, width: int) -> Iterable[Text]:
    """Draw lines below an axis, within a width."""
    if not lines:
        return
    signs = _DRAWN if _can_print("".join(_DRAWN.values())) else _TYPED
    tooks = [duration(line.took) if line.took or line.kind not in _POINTS else "" for line in lines]
    labels = [line.key if line.tries == 1 else f"{line.key} ({line.tries} tries)" for line in lines]
    kind_width = max(cell_len(line.kind) for line in lines)
    took_width = max(4, *(cell_len(took) for took in tooks))
    label_width = max(4, min(max(cell_len(label) for label in labels), width * 2 // 5))
    bar_width = max(10, width - label_width - kind_width - took_width - 7)

    total = f"+{duration(end - begin)}"
    axis = clock(begin)
    head = Text(style="bold")
    head.append(
        set_cell_size("step", label_width)
        + "  "
        + set_cell_size("kind", kind_width)
        + "  "
        + "took".rjust(took_width)
        + "  "
    )
    head.append(axis + total.rjust(max(bar_width - len(axis), len(total) + 1)))
    yield head
    for line, label, took in zip(lines, labels, tooks, strict=True):
        text = Text(_cut(label, label_width) + "  ")
        text.append(set_cell_size(line.kind, kind_width) + "  ", style="dim")
        text.append(took.rjust(took_width) + "  ")
        for sign, kind in _bar(line.segments, begin, end, bar_width):
            text.append(signs[kind] if sign else " ", style=_COLOURS.get(kind, ""))
        text.rstrip()
        yield text
    used = dict.fromkeys(segment.kind for line in lines for segment in line.segments)
    legend = Text()
    for kind in used:
        legend.append(f"{signs[kind]} ", style=_COLOURS[kind])
        legend.append(f"{_LEGEND[kind]}   ", style="dim")
    legend.rstrip()
    yield legend


def _bar(segments: Sequence[Segment], begin: datetime, end: datetime, width: int) -> list[tuple[bool, str]]:
    """One cell per column; what is short still has one, and what comes later lies above."""
    cells: list[tuple[bool, str]] = [(False, "")] * width
    span = max((end - begin).total_seconds(), 1e-6)

    def column(at: datetime) -> int:
        return min(max(int((at - begin).total_seconds() / span * width), 0), width - 1)

    for segment in segments:
        first, last = column(segment.begin), column(segment.end)
        for n in range(first, last + 1):
            cells[n] = (True, segment.kind)
    return cells


def _with_pauses(failed: Sequence[Segment], until: datetime) -> list[Segment]:
    """Failed tries, with the pauses between them and up to the next one."""
    found: list[Segment] = []
    for n, segment in enumerate(failed):
        follows = failed[n + 1].begin if n + 1 < len(failed) else until
        if follows > segment.end:
            found.append(Segment("backs_off", segment.end, follows))
        found.append(segment)
    return found


def _cut(text: str, width: int) -> str:
    return set_cell_size(text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…", width)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
