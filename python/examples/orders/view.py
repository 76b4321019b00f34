"""What one sees while it runs: a live picture in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from psycopg import AsyncConnection
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

ORDER_STATES = ("new", "reserved", "paid", "shipped", "rejected")
RUN_STATES = ("ready", "running", "waiting", "sleeping", "backing_off", "completed")


@dataclass
class Picture:
    """One look at the database."""

    orders: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> int:
        """Orders that have come to their end."""
        return self.orders["shipped"] + self.orders["rejected"]

    @property
    def unfinished_runs(self) -> int:
        """Runs that have not."""
        return self.runs.total() - self.runs["completed"]


async def look(conn: AsyncConnection) -> Picture:
    """Count orders, runs and steps."""
    orders = await conn.execute("select o.status, count(*) from shop.orders as o group by o.status")
    runs = await conn.execute("select r.state, count(*) from perdure.runs as r group by r.state")
    steps = await conn.execute("select count(*) from perdure.steps as s where s.saved_at is not null")
    ((saved,),) = await steps.fetchall()
    return Picture(Counter(dict(await orders.fetchall())), Counter(dict(await runs.fetchall())), saved)


class View:
    """Shows pictures and events; `with view:` around the time in which something goes on."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.kills = 0
        self._started = time.monotonic()
        self._pictures: deque[Picture] = deque([Picture()], maxlen=5)
        self._events: deque[tuple[float, str]] = deque(maxlen=8)
        self._printed_at = 0.0
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=5, transient=True)

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def tell(self, event: str) -> None:
        """Show something that happened."""
        self._events.append((self.seconds, event))
        if self._live is None:
            self._print(f"{self.seconds:5.1f} s  {event}")

    def show(self, picture: Picture) -> None:
        """Show how far it has come; in plain lines every other second."""
        self._pictures.append(picture)
        if self._live is None and self.seconds - self._printed_at > 2:
            self._printed_at = self.seconds
            states = "".join(f"{state} {picture.runs[state]}, " for state in RUN_STATES if picture.runs[state])
            self._print(
                f"{self.seconds:5.1f} s  {picture.finished}/{self.total} done, {states}{self._rate:.0f} steps/s"
            )

    @property
    def _rate(self) -> float:
        first, last = self._pictures[0], self._pictures[-1]
        return (last.steps - first.steps) / max(last.at - first.at, 0.1)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> Group:
        now = self._pictures[-1]
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(
            Text(f"{now.finished} of {self.total} orders done", style="bold"),
            f"{now.steps:,} steps saved, {self._rate:.0f} per second   {self.seconds:.0f} s",
        )
        rows = Table.grid(padding=(0, 2))
        rows.add_row("orders", _counts(now.orders, ORDER_STATES))
        rows.add_row("runs", _counts(now.runs, RUN_STATES))
        rows.add_row("kills", Text(f"{self.kills} so far", style="red" if self.kills else ""))
        events = [
            Text(f"{at:5.1f} s  {event}", style="dim", no_wrap=True, overflow="ellipsis") for at, event in self._events
        ]
        bar = Padding(ProgressBar(total=self.total, completed=now.finished), (0, 0, 1, 0))
        return Group(head, bar, rows, Text(), *events)


def _counts(counts: Counter[str], states: tuple[str, ...]) -> Text:
    shown = Text()
    for state in states:
        shown.append(f"{state.replace('_', ' ')} ", style="dim")
        shown.append(f"{counts[state]}  ", style="bold" if counts[state] else "dim")
    return shown
