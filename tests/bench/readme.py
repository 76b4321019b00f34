"""README's part: the few figures that say most, the picture, and where the rest is. Written by the bench, never by hand.

`python -m bench.readme results.json README.md` writes it anew from what was kept.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from bench.lines import lines
from bench.report import Results, cell, read, spread
from bench.scale import SCALES

_BEGIN, _END = "<!-- written by make bench -->", "<!-- up to here -->"
_HEADING = "## How fast"
_BEFORE = "## Backups, copies and failover"


def write(results: Results, path: Path, into: Path) -> None:
    """Put the section in its place: between its marks, or, where there are none yet, under a heading of its own."""
    text = path.read_text()
    section = f"{_BEGIN}\n\n{_section(results, Path(os.path.relpath(into.resolve(), path.resolve().parent)))}\n{_END}"
    marked = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if marked.search(text):
        text = marked.sub(lambda _: section, text, count=1)
    elif f"\n{_BEFORE}\n" in text:
        text = text.replace(f"\n{_BEFORE}\n", f"\n{_HEADING}\n\n{section}\n\n{_BEFORE}\n", 1)
    else:
        text = f"{text.rstrip()}\n\n{_HEADING}\n\n{section}\n"
    path.write_text(text)


def _section(results: Results, folder: Path) -> str:
    rows = [["", *(results.titles[name] for name in results.sides), "per row of the yardstick"]]
    rows.append(["---", *("---:" for _ in results.sides), "---:"])
    for line in lines(SCALES[results.scale]):
        if line.short and results.values(line, "perdure"):
            ratios = results.ratios(line, "perdure") if line.yardstick else []
            cells = [cell(results, line, name) for name in results.sides]
            unit = f", {line.unit}" if line.unit else ""
            rows.append([f"{line.short}{unit}", *cells, f"{spread(ratios)} × {line.yardstick}" if ratios else ""])
    yardsticks = sorted({name for record in results.records for name in record.yardsticks})
    told = "; ".join(
        f"{name} {spread([r.yardsticks[name] for r in results.records if name in r.yardsticks])}" for name in yardsticks
    )
    picture = folder / "results.svg"
    return "\n".join(
        [
            f"Measured on {results.date} by `{results.command}`: {results.machine}. {results.server}.",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Medians and ranges; in brackets how many times better Perdure is. The yardstick, taken in the same minute: rows/s"
            f" of pgbench, ins1(c) one row in each commit of c clients, ins100(c) a hundred: {told}. All of it, the targets and"
            f" how each was tuned: [results.md]({(folder / 'results.md').as_posix()}),"
            f" [results.json]({(folder / 'results.json').as_posix()}).",
            "",
            f"![Perdure beside its peers]({picture.as_posix()})",
            "",
        ]
    )


if __name__ == "__main__":
    kept, target = Path(sys.argv[1]), Path(sys.argv[2])
    write(read(kept), target, kept.parent)
