"""The demo: a shop takes a few hundred orders while its workers are killed and Postgres crashes; then the books are compared.

It needs no Postgres of yours: it starts one in a temporary directory and removes it at the end.

    python -m orders [--orders 40] [--kills 2] [--seed 7] [--cheat]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import AsyncConnection
from rich.console import Console

from orders import books, report
from orders.approver import Approver
from orders.flows import app, fulfil
from orders.load import Files, TakenOrder, insert_order, make_shop, read_files
from orders.machinery import Chaos, DemoFailed, Postgres, Processes
from orders.patience import Patient
from orders.payments import Book
from orders.view import View, look
from perdure._postgres import PostgresNotFound, ServerError

WORKERS = 2
PATIENCE = 180  # seconds after the last order: whatever is not done then is lost


def main() -> int:
    """Run the demo; return 0 if the books agree, 1 if they differ."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description="process orders while workers are killed")
    parser.add_argument("--orders", type=int, help="how many of the file's orders; all of them by default")
    parser.add_argument("--kills", type=int, default=6, help="how many times a worker is killed (6)")
    parser.add_argument("--seed", type=int, help="for the same faults, kills and decisions again")
    parser.add_argument("--faults", type=float, default=0.35, help="share of payment requests that go wrong (0.35)")
    parser.add_argument("--cheat", action="store_true", help="falsify a book at the end, to see that it is found")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory: data, both books, logs")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.randrange(1_000_000)

    console = Console(width=None if Console().is_terminal else 100)
    try:
        with scratch_directory(is_kept=arguments.keep) as directory:
            return asyncio.run(Demo(console, arguments, directory).run())
    except (PostgresNotFound, ServerError, DemoFailed) as error:
        console.print(str(error), markup=False)
    except (asyncio.CancelledError, KeyboardInterrupt):
        console.print("Interrupted: everything is stopped and removed.")
        return 130
    return 1


@contextmanager
def scratch_directory(*, is_kept: bool) -> Iterator[Path]:
    """Make a temporary directory that the account which runs Postgres can enter, and remove it."""
    directory = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        if is_kept:
            print(f"Kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


class Demo:
    """One demo, from an empty directory to the proof."""

    def __init__(self, console: Console, arguments: argparse.Namespace, directory: Path) -> None:
        self.console = console
        self.kills: int = arguments.kills
        self.seed: int = arguments.seed
        self.is_cheating: bool = arguments.cheat
        self.files: Files = read_files()
        self.orders: list[TakenOrder] = self.files.orders[: arguments.orders]
        self.postgres = Postgres(directory / "postgres")
        self.processes = Processes(directory, self.postgres.dsn, faults=arguments.faults, seed=self.seed)
        self.approver = Approver(self.postgres.dsn, self.seed)
        self.view = View(console, len(self.orders))

    async def run(self) -> int:
        """Make everything, let it run, compare the books; whatever happens, leave nothing behind."""
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await self._set_up()
            chaos = Chaos(self.postgres, self.processes, self.view, seed=self.seed)
            with self.view:
                await self._live(chaos)
            self.processes.stop()
            return self._prove(chaos)
        finally:
            self.processes.kill()
            self.postgres.stop()

    async def _set_up(self) -> None:
        started = time.monotonic()
        version = self.postgres.server.binaries.version
        self._say(f"Perdure's demo, seed {self.seed}: PostgreSQL {version} starts in a temporary directory …")
        await asyncio.to_thread(self.postgres.start)
        with psycopg.connect(self.postgres.dsn) as conn:
            make_shop(conn, self.files)
        self._say(
            f"Perdure is installed; {self.files.order_rows} rows of orders are read, "
            f"{len(self.files.faulty)} faulty rows set aside."
        )
        await self.processes.start_payments()
        for number in range(1, WORKERS + 1):
            self.processes.start_worker(number)
        async with Patient(self.postgres.dsn) as shop:
            while not await shop.do(_knows_workflow):
                await asyncio.sleep(0.05)
                self.processes.check()
        self._say(f"Ready after {time.monotonic() - started:.1f} s: a payment server that fails, {WORKERS} workers.\n")

    async def _live(self, chaos: Chaos) -> None:
        seconds = min(max(len(self.orders) / 10, 8), 35)
        tasks = [
            asyncio.create_task(work)
            for work in (self._take_orders(seconds), chaos.reign(self.kills, seconds + 3), self.approver.work())
        ]
        try:
            await asyncio.wait_for(self._watch(tasks), seconds + PATIENCE)
        except asyncio.TimeoutError:
            self.view.tell(f"not everything is done {PATIENCE} s after the last order")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_orders(self, seconds: float) -> None:
        """Take a third of the orders at once, as after a night, and the others one by one."""
        night = self.orders[: len(self.orders) // 3]
        day = self.orders[len(night) :]

        async def take_night(conn: AsyncConnection) -> None:
            for order in night:
                await insert_order(conn, order)
            await app.using(conn).start_many(
                fulfil, [order.input for order in night], keys=[order.number for order in night]
            )

        async with Patient(self.postgres.dsn) as shop:
            await shop.do(take_night)
            self.view.tell(f"{len(night)} orders of the night are started in one transaction")
            for order in day:

                async def take(conn: AsyncConnection, order: TakenOrder = order) -> None:
                    # The order's row and its run: both or neither. The key makes it safe to repeat.
                    await insert_order(conn, order)
                    await app.using(conn).start(fulfil, order.input, key=order.number)

                await shop.do(take)
                await asyncio.sleep(seconds / len(day) * random.uniform(0.2, 1.6))
        self.view.tell(f"{len(day)} orders came one by one, each with its run in one transaction")

    async def _watch(self, tasks: list[asyncio.Task[None]]) -> None:
        """Show how it goes until all is done; raise what goes wrong in a task, or in a process."""
        *passing, _approver = tasks
        async with Patient(self.postgres.dsn) as shop:
            while True:
                is_settled = all(task.done() for task in passing)
                picture = await shop.do(look)
                self.view.show(picture)
                if is_settled and picture.finished >= len(self.orders) and not picture.unfinished_runs:
                    return
                for task in tasks:
                    if task.done():
                        task.result()
                self.processes.check()
                await asyncio.sleep(0.25)

    def _prove(self, chaos: Chaos) -> int:
        book = Book(self.processes.book)
        with psycopg.connect(self.postgres.dsn, autocommit=True) as conn:
            if self.is_cheating:
                self._say(
                    f"\nCheating: order {cheat(self.processes.book)} is charged once more, behind everybody's back."
                )
            shop, charges, requests = books.read_shop(conn), book.charges(), book.requests()
            steps = conn.execute("select count(*) from perdure.steps as s where s.saved_at is not null").fetchone()
            broken = conn.execute("select t.invariant, t.violations from perdure.selftest() as t").fetchall()
            report.print_unfinished(self.console, conn)
            report.print_timeline(self.console, conn, chaos, requests)
        report.print_recoveries(self.console, chaos)
        report.print_troubles(self.console, self.files, requests, self.approver, len(chaos.kills))
        differences = books.compare(self.files, self.orders, shop, charges)
        differences += [f"{count} violations of Perdure's invariant {name}" for name, count in broken if count]
        report.print_books(self.console, books.totals(self.files, self.orders, shop, charges), differences)
        book.close()
        self._say(f"{steps[0] if steps else 0:,} steps were saved; {self.view.seconds:.0f} s in all.")
        return 1 if differences else 0

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)


def cheat(path: Path) -> str:
    """Charge an order a second time under another key; return its number."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        (number, amount) = db.execute("select order_no, amount from charge where not is_declined limit 1").fetchone()
        db.execute("insert into charge values ('pay_twice', 'another key', ?, ?, 0)", [number, amount])
    return str(number)


async def _knows_workflow(conn: AsyncConnection) -> bool:
    found = await conn.execute("select from perdure.workers as w having count(*) >= %s", [WORKERS])
    return found.rowcount == 1
