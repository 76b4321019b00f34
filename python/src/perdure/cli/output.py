"""What is printed: tables, times, durations, JSON. Colour and boxes on a terminal only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from perdure._unreadable import Unreadable
from perdure._visible import visible, visible_json

_STYLES = {
    "running": "cyan",
    "ready": "cyan",
    "completed": "green",
    "failed": "red",
    "dead": "red",
    "timed_out": "red",
    "terminated": "yellow",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "paused": "yellow",
    "backing_off": "yellow",
    "ok": "green",
    "skipped": "cyan",
    "warning": "yellow",
    "wrong": "red",
}


# An id is there to be copied: everything else gives way first.
_WHOLE = {"run": 36, "state": 9, "age": 4}


def is_terminal() -> bool:
    """Whether a person looks on."""
    return sys.stdout.isatty()


def console() -> Console:
    """A console for stdout as it is now."""
    return Console(highlight=False)


def style(word: str) -> str:
    """The colour of a state."""
    return _STYLES.get(word, "")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(visible_json(json.dumps(value, default=plain, ensure_ascii=False, indent=2)))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows: as a table on a terminal, else as aligned columns that nothing cuts off."""
    texts = [[cell(value) for value in row] for row in rows]
    if not is_terminal():
        _print_plain(columns, texts)
    elif not texts:
        click.echo(empty)
    else:
        _print_rich(columns, texts)


def print_records(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as a JSON array of objects."""
    print_json([dict(zip(columns, row, strict=True)) for row in rows])


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return ago(value) if is_terminal() else stamp(value)
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def stamp(at: datetime) -> str:
    """A time in full: UTC for machines and logs."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: datetime) -> str:
    """A time as the reader's clock shows it."""
    local = at.astimezone()
    now = datetime.now(timezone.utc).astimezone()
    return local.strftime("%H:%M:%S" if local.date() == now.date() else "%Y-%m-%d %H:%M:%S")


def ago(at: datetime) -> str:
    """How long ago, or how far ahead, a time is."""
    span = datetime.now(timezone.utc) - at
    if abs(span) < timedelta(seconds=1):
        return "now"
    return f"{duration(span, parts=1)} ago" if span > timedelta(0) else f"in {duration(-span, parts=1)}"


def age(at: datetime) -> str:
    """How old something is, as short as can be."""
    seconds = max(int((datetime.now(timezone.utc) - at).total_seconds()), 0)
    return duration(timedelta(seconds=seconds), parts=1) if seconds else "now"


def duration(span: timedelta, *, parts: int = 2) -> str:
    """A span in its one or two largest units: 250 ms, 1.5 s, 2 m 3 s, 3 d 4 h."""
    seconds = span.total_seconds()
    if seconds < 0:
        return f"-{duration(-span, parts=parts)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    found: list[tuple[int, str]] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count or found:
            found.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in found[:parts] if count)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [[name.upper() for name in columns], *([_one_line(text) or "-" for text in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=_WHOLE.get(name))
    for row in rows:
        table.add_row(*(Text(_one_line(text), style=style(text)) for text in row))
    console().print(table)


def shown(text: Text) -> Text:
    """A text of others as a terminal only shows it; its colours go with what was in it."""
    clean = visible(text.plain)
    return text if clean == text.plain else Text(clean, style=text.style)


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def plain(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Unreadable):
        return str(value.refusal())
    raise TypeError(f"no JSON for {type(value).__name__}")
