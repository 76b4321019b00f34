"""Compare the shop's book, the payment server's book and the files: was every order carried out once, and none twice?

Each side is read as it stands; the comparison itself is plain code on plain data. Money is in cents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from orders.load import Files, TakenOrder
from orders.payments import Charge


@dataclass(frozen=True)
class ShopOrder:
    """An order as the shop's tables and its run tell of it."""

    number: str
    status: str
    reason: str | None
    total: int
    run_status: str | None
    run_result: str | None


@dataclass(frozen=True)
class Entry:
    """One entry of the shop's ledger."""

    order_no: str
    payment_id: str
    amount: int


@dataclass
class ShopBook:
    """What the shop has in its tables."""

    orders: list[ShopOrder]
    ledger: list[Entry]
    reserved: list[tuple[str, str, int]]
    """Order, product, quantity; what was put back is not in it."""
    shipped: list[str]
    stock: dict[str, int]
    faulty_rows: int


@dataclass(frozen=True)
class Totals:
    """The sums of both books."""

    shipped: int
    rejected: dict[str, int]
    """Orders by reason."""
    expected: int
    """What the files say that the shipped orders cost."""
    in_ledger: int
    at_payments: int
    charges: int
    in_stock: int
    stock_expected: int


def read_shop(conn: psycopg.Connection[Any]) -> ShopBook:
    """Read the shop's tables, and how its runs ended."""
    with conn.transaction():
        orders = conn.execute(
            """
            select o.order_no, o.status, o.reason, o.total, r.status, r.result #>> '{}'
            from shop.orders as o
            left join lateral perdure.run_results(array[perdure.find_run('fulfil', o.order_no)]) as r on true
            order by o.order_no
            """
        ).fetchall()
        ledger = conn.execute("select order_no, payment_id, amount from shop.ledger order by entry_id").fetchall()
        reserved = conn.execute("select order_no, product_id, quantity from shop.reservation").fetchall()
        shipped = conn.execute("select order_no from shop.shipment order by shipment_id").fetchall()
        stock = conn.execute("select product_id, stock from shop.product").fetchall()
        faulty = conn.execute("select from shop.faulty_row").rowcount
    return ShopBook(
        [ShopOrder(*row) for row in orders],
        [Entry(*row) for row in ledger],
        [(number, product, quantity) for number, product, quantity in reserved],
        [number for (number,) in shipped],
        dict(stock),
        faulty,
    )


def compare(files: Files, placed: Sequence[TakenOrder], shop: ShopBook, charges: Sequence[Charge]) -> list[str]:
    """Return every difference between the books, as sentences; an empty list is the proof.

    `placed` are the orders of the files that were given to the shop.
    """
    found = []
    known = {order.number: order for order in shop.orders}
    for order in placed:
        if order.number not in known:
            found.append(f"order {order.number} is lost: the shop does not have it")
        else:
            found += _differences(order, known[order.number], shop, charges)
    ours = {order.number for order in placed}
    found += [f"order {number} is in the shop, but nobody placed it" for number in known if number not in ours]
    found += [
        f"payment {charge.payment_id} is for order {charge.order_no}, which the shop does not have"
        for charge in charges
        if charge.order_no not in ours and not charge.is_declined
    ]
    for product, stock in sorted(_expected_stock(files, placed, known).items()):
        if shop.stock[product] != stock:
            found.append(f"{product}: {shop.stock[product]} in stock, should be {stock}")
    if shop.faulty_rows != len(files.faulty):
        found.append(f"{shop.faulty_rows} faulty rows are listed, there are {len(files.faulty)}")
    return found


def totals(files: Files, placed: Sequence[TakenOrder], shop: ShopBook, charges: Sequence[Charge]) -> Totals:
    """Add up both books."""
    known = {order.number: order for order in shop.orders}
    paid = [charge for charge in charges if not charge.is_declined]
    reasons = (order.reason or "for no reason" for order in shop.orders if order.status == "rejected")
    return Totals(
        shipped=sum(order.status == "shipped" for order in shop.orders),
        rejected=dict(Counter(reason.partition(":")[0] for reason in reasons).most_common()),
        expected=sum(order.total for order in placed if order.number in known and _is_shipped(known[order.number])),
        in_ledger=sum(entry.amount for entry in shop.ledger),
        at_payments=sum(charge.amount for charge in paid),
        charges=len(paid),
        in_stock=sum(shop.stock.values()),
        stock_expected=sum(_expected_stock(files, placed, known).values()),
    )


def _differences(order: TakenOrder, found: ShopOrder, shop: ShopBook, charges: Sequence[Charge]) -> list[str]:
    """Compare one order with what became of it."""
    number = order.number
    differences = []

    def expect(what: str, is_: object, should_be: object) -> None:
        if is_ != should_be:
            differences.append(f"order {number} ({found.status}): {what} {is_}, should be {should_be}")

    if found.status not in ("shipped", "rejected"):
        differences.append(f"order {number} is neither shipped nor rejected, but {found.status}")
    is_shipped = _is_shipped(found)
    expect("its run", found.run_status, "completed")
    expect("its run returned", found.run_result, "shipped" if is_shipped else found.reason)
    expect("total", found.total, order.total)

    charged = [(charge.payment_id, charge.amount) for charge in charges if _took_money(charge, number)]
    booked = [(entry.payment_id, entry.amount) for entry in shop.ledger if entry.order_no == number]
    expect("charges at the payment server", [amount for _, amount in charged], [order.total] * is_shipped)
    expect("amounts in the shop's ledger", [amount for _, amount in booked], [order.total] * is_shipped)
    expect("payments in the shop's ledger", [key for key, _ in booked], [key for key, _ in charged])
    expect("shipments", shop.shipped.count(number), int(is_shipped))

    reserved = sorted((product, quantity) for of, product, quantity in shop.reserved if of == number)
    expect("reserved goods", reserved, sorted(order.lines.items()) if is_shipped else [])
    declined = any(charge.is_declined for charge in charges if charge.order_no == number)
    expect("declined card", declined, found.reason == "card declined")
    return differences


def _took_money(charge: Charge, number: str) -> bool:
    return charge.order_no == number and not charge.is_declined


def _is_shipped(order: ShopOrder) -> bool:
    return order.status == "shipped"


def _expected_stock(files: Files, placed: Sequence[TakenOrder], known: dict[str, ShopOrder]) -> dict[str, int]:
    """What was delivered, less what was shipped, by product."""
    stock = {product: int(row["stock"]) for product, row in files.products.items()}
    for order in placed:
        if order.number in known and _is_shipped(known[order.number]):
            for product, quantity in order.lines.items():
                stock[product] -= quantity
    return stock
