"""Read the shop's files and put them into its tables; a faulty row goes into a table with its reason and stops nobody.

An order is taken whole or not at all: one faulty line and the customer would get half of what was ordered.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from orders.flows import Order

DATA = Path(__file__).parent / "data"
SCHEMA = Path(__file__).parent / "shop.sql"

_AMOUNT = re.compile(r"\d{1,7}\.\d{2}")
_QUANTITY = re.compile(r"-?\d{1,6}")


@dataclass(frozen=True)
class FaultyRow:
    """A row that was not taken; `line` counts as editors do, from 1 and with the heading."""

    file: str
    line: int
    reason: str
    content: str


@dataclass(frozen=True)
class TakenOrder:
    """An order that can be carried out."""

    number: str
    customer: str
    card: str
    ordered_at: datetime
    total: int
    lines: dict[str, int]
    """Quantity by product."""

    @property
    def input(self) -> Order:
        """What its run is started with."""
        return Order(self.number, self.total, self.card)


@dataclass
class Files:
    """What the four files say."""

    customers: dict[str, dict[str, str]] = field(default_factory=dict)
    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: list[TakenOrder] = field(default_factory=list)
    faulty: list[FaultyRow] = field(default_factory=list)
    order_rows: int = 0


class Fault(Exception):
    """Why a row is not taken."""


def read_files(directory: Path = DATA) -> Files:
    """Read and check the files."""
    files = Files()
    for _, row in _rows(directory / "customers.csv"):
        files.customers[row["customer_id"]] = row
    for _, row in _rows(directory / "products.csv"):
        files.products[row["product_id"]] = {**row, "price": _cents(row["price"]), "stock": _whole(row["stock"])}

    numbers = {row["order_no"] for _, row in _rows(directory / "orders.csv")}
    lines: dict[str, dict[str, int]] = {}
    spoilt: dict[str, int] = {}
    for number, row in _rows(directory / "order_lines.csv"):
        try:
            _take_line(row, numbers, files, lines)
        except Fault as fault:
            files.faulty.append(FaultyRow("order_lines.csv", number, str(fault), ",".join(row.values())))
            spoilt.setdefault(row["order_no"], number)

    seen: set[str] = set()
    for number, row in _rows(directory / "orders.csv"):
        files.order_rows += 1
        try:
            if row["order_no"] in seen:
                raise Fault("duplicate order number")
            seen.add(row["order_no"])
            files.orders.append(_check_order(row, files, lines, spoilt))
        except Fault as fault:
            files.faulty.append(FaultyRow("orders.csv", number, str(fault), ",".join(row.values())))
    return files


def make_shop(conn: psycopg.Connection[Any], files: Files) -> None:
    """Make the shop's tables with customers and products, and list the faulty rows."""
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute(SCHEMA.read_bytes())
        cursor.executemany(
            "insert into shop.customer values (%(customer_id)s, %(name)s, %(email)s, %(country)s, %(card)s)",
            files.customers.values(),
        )
        cursor.executemany(
            "insert into shop.product values (%(product_id)s, %(name)s, %(price)s, %(stock)s, %(stock)s)",
            files.products.values(),
        )
        cursor.executemany(
            "insert into shop.faulty_row values (%s, %s, %s, %s)",
            [(row.file, row.line, row.reason, row.content) for row in files.faulty],
        )


async def insert_order(conn: psycopg.AsyncConnection[Any], order: TakenOrder) -> None:
    """Insert an order and its lines in the caller's transaction; nothing happens if it is there."""
    inserted = await conn.execute(
        "insert into shop.orders (order_no, customer_id, ordered_at, total) values (%s, %s, %s, %s) "
        "on conflict do nothing",
        [order.number, order.customer, order.ordered_at, order.total],
    )
    if inserted.rowcount == 1:
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "insert into shop.order_line values (%s, %s, %s)",
                [(order.number, product, quantity) for product, quantity in order.lines.items()],
            )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        for row in reader:
            yield reader.line_num, {name: value for name, value in row.items() if name is not None}


def _take_line(row: dict[str, str], numbers: set[str], files: Files, lines: dict[str, dict[str, int]]) -> None:
    if row["order_no"] not in numbers:
        raise Fault("unknown order")
    if row["product_id"] not in files.products:
        raise Fault("unknown product")
    quantity = _whole(row["quantity"])
    if quantity <= 0:
        raise Fault("quantity is not positive")
    of_order = lines.setdefault(row["order_no"], {})
    of_order[row["product_id"]] = of_order.get(row["product_id"], 0) + quantity


def _check_order(
    row: dict[str, str], files: Files, lines: dict[str, dict[str, int]], spoilt: dict[str, int]
) -> TakenOrder:
    number = row["order_no"]
    if not number:
        raise Fault("no order number")
    if not row["customer_id"]:
        raise Fault("no customer")
    customer = files.customers.get(row["customer_id"])
    if customer is None:
        raise Fault("unknown customer")
    try:
        ordered_at = datetime.fromisoformat(row["ordered_at"])
    except ValueError:
        raise Fault("malformed date") from None
    total = _cents(row["total"])
    if number in spoilt:
        raise Fault(f"line {spoilt[number]} of order_lines.csv is faulty")
    if number not in lines:
        raise Fault("no lines")
    if total != sum(files.products[product]["price"] * quantity for product, quantity in lines[number].items()):
        raise Fault("total differs from the lines' sum")
    return TakenOrder(number, row["customer_id"], customer["card"], ordered_at, total, lines[number])


def _cents(text: str) -> int:
    if not _AMOUNT.fullmatch(text):
        raise Fault("malformed amount")
    return int(Decimal(text) * 100)


def _whole(text: str) -> int:
    if not _QUANTITY.fullmatch(text):
        raise Fault("malformed quantity")
    return int(text)
