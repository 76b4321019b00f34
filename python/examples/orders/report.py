"""What the demo says at its end: both books side by side, one run's life, and how long recovery took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orders.approver import Approver
from orders.books import Totals
from orders.load import Files
from orders.machinery import Chaos
from orders.payments import Request

CALM = 5  # seconds

SURVIVOR = """
select r.key, r.run_id
from perdure.runs as r
where r.run_id = any(%s) and r.state = 'completed'
order by r.result = '"shipped"' desc, (select count(*) from perdure.history as h where h.run_id = r.run_id) desc
limit 1
"""
UNFINISHED = """
select r.key, (select string_agg(line, e'\\n') from perdure.explain(r.run_id) as e (line))
from perdure.runs as r
where r.finished_at is null
order by r.run_id
limit 5
"""
HISTORY = "select h.at, h.what, h.key, h.detail from perdure.history as h where h.run_id = %s order by h.at"


def print_timeline(console: Console, conn: psycopg.Connection[Any], chaos: Chaos, requests: Sequence[Request]) -> None:
    """Print the life of an order whose worker was killed under it, as the database and the payment server tell it."""
    held = [run_id for kill in chaos.kills for run_id in kill.held]
    survivor = conn.execute(SURVIVOR, [held]).fetchone()
    if survivor is None:
        return
    number, run_id = survivor
    lines = [(at, what, key, _detail(detail)) for at, what, key, detail in conn.execute(HISTORY, [run_id]).fetchall()]
    for kill in chaos.kills:
        if run_id in kill.held:
            lines.append((kill.killed_at, "worker killed", "", f"kill -9 {kill.pid}"))
        if run_id in kill.claims:
            at, worker = kill.claims[run_id]
            lines.append((at, "run claimed again", "", f"by {worker}"))
    lines += [_request_line(request) for request in requests if request.order_no == number]
    lines.sort(key=lambda line: line[0])

    _heading(console, f"One run: order {number}, whose worker was killed under it")
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    for at, what, key, detail in lines:
        style = "red" if what.startswith("worker") else "dim" if what.startswith("payment") else ""
        seconds = (at - lines[0][0]).total_seconds()
        table.add_row(f"{seconds:.2f} s", what, (key or "").lstrip("~"), escape(detail), style=style)
    console.print(table)


def print_unfinished(console: Console, conn: psycopg.Connection[Any]) -> None:
    """Print why runs do not go on, if there are any such: the database knows."""
    for number, explanation in conn.execute(UNFINISHED).fetchall():
        _heading(console, f"Order {number} is not done")
        console.print(explanation, highlight=False, markup=False)


def print_recoveries(console: Console, chaos: Chaos) -> None:
    """Print how long each recovery took."""
    _heading(console, "Recovery: from the kill until other hands have the runs")
    rows = []
    for kill in chaos.kills:
        told = f"{_runs(kill.held)} on after {kill.first_after or 0:.1f} to {kill.recovered_after or 0:.1f} s"
        is_calm = any(kill.at < restart.at + CALM and restart.at < kill.at + 2 for restart in chaos.restarts)
        marks = f"{' *' * is_calm}{' +' * bool(kill.suspects)}"
        rows.append((kill.at, f"kill -9 of worker {kill.worker}", told + marks if kill.held else "it held nothing"))
    for restart in chaos.restarts:
        told = f"back after {restart.down:.1f} s, next step saved after {restart.next_step_after or 0:.1f} s"
        rows.append((restart.at, "Postgres stopped hard", told))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for at, what, told in sorted(rows):
        table.add_row(f"{at:.1f} s", what, told)
    console.print(table)
    notes = {
        " *": f"for {CALM} s after a restart of Postgres nobody is declared dead: all may reconnect first",
        " +": "runs that lost two workers in a row without progress are suspects: a worker claims one of them at a time, "
        "so that a run which kills its workers takes no others with it",
    }
    for mark, note in notes.items():
        if any(mark in told for _, _, told in rows):
            console.print(f"{mark} {note}", style="dim", highlight=False)


def print_troubles(
    console: Console, files: Files, requests: Sequence[Request], approver: Approver, workers_killed: int
) -> None:
    """Print what was wrong with the files, the payment server, the people and the workers."""
    _heading(console, "What went wrong meanwhile")
    reasons = Counter(_kind(row.reason) for row in files.faulty)
    faults = Counter(request.fault for request in requests if request.fault is not None)
    lines = (
        f"{reasons.total()} faulty rows of the files, listed in shop.faulty_row: {_listed(reasons)}.",
        f"{faults.total()} of {len(requests)} requests to the payment server failed: {_listed(faults)}.",
        f"{approver.habits.total()} large orders to approve, decided: {_listed(approver.habits)}. "
        f"The database answered to the signals: {_listed(approver.answers)}.",
        f"{workers_killed} workers were killed, and Postgres crashed.",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def print_books(console: Console, totals: Totals, differences: Sequence[str]) -> None:
    """Print the proof, or what speaks against it."""
    _heading(console, "Both books")
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("orders shipped", str(totals.shipped))
    for reason, count in totals.rejected.items():
        table.add_row(f"orders rejected: {reason}", str(count))
    table.add_row("what the shipped orders cost, by the files", _money(totals.expected))
    table.add_row("paid, by the shop's ledger", _money(totals.in_ledger))
    table.add_row(f"charged, by the payment server's book ({totals.charges} charges)", _money(totals.at_payments))
    table.add_row("pieces in stock, by the shop", str(totals.in_stock))
    table.add_row("pieces in stock, by what was delivered and shipped", str(totals.stock_expected))
    console.print(table)
    console.print()
    if differences:
        console.print(f"The books differ, in {len(differences)} places:", style="bold red")
        for difference in differences:
            console.print(f"  {difference}", style="red", highlight=False, markup=False)
    else:
        console.print("The books agree: no order was lost, none was charged or shipped twice.", style="bold green")


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold", highlight=False)


def _detail(detail: dict[str, Any]) -> str:
    if "message" in detail:
        return f"{detail.get('type')}: {detail['message']}"
    return f"try {detail['attempt']}" if "attempt" in detail else ""


def _request_line(request: Request) -> tuple[datetime, str, str, str]:
    at = datetime.fromtimestamp(request.at, timezone.utc)
    return at, "payment server asked", "", request.fault or "answered"


def _runs(held: Sequence[UUID]) -> str:
    return "1 run goes" if len(held) == 1 else f"{len(held)} runs go"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def _kind(reason: str) -> str:
    return "order with a faulty line" if reason.startswith("line ") else reason


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"
