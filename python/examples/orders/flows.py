"""How the shop fulfils an order: reserve, get approval if it is a large one, charge, pack, ship.

`fulfil` reads like a program that is never interrupted. Each step's result is saved in Postgres, so whatever is killed,
the run goes on from its last step in any worker. Start workers with `perdure worker orders.flows:app`.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import timedelta

import perdure

# What a shop would count in days and hours is seconds here: nobody wants to watch a demo for a week.
LARGE = 200_00  # cents; from here on a person has to agree
APPROVAL_TIME = timedelta(seconds=10)
PACKING_TIME = timedelta(seconds=1)

app = perdure.App()  # the database: PERDURE_DSN, or what psql would take


@dataclass
class Order:
    number: str
    total: int
    card: str


@dataclass
class Payment:
    id: str
    amount: int


@dataclass
class Approval:
    is_approved: bool
    by: str


class CardDeclined(Exception):
    """The bank said no, and it will say no again."""


APPROVAL = perdure.Signal("approval", Approval)


@app.workflow(timeout=timedelta(days=7))
async def fulfil(run: perdure.AsyncRun, order: Order) -> str:
    """Bring an order to its end; return shipped, or why it was rejected."""
    missing = await run.transaction(reserve, order.number)
    if missing:
        return await run.transaction(reject, order.number, f"out of stock: {missing}")

    if order.total >= LARGE:
        # The run now lies in the database and no worker holds it, for seconds or for months. That nobody answered
        # is saved like an answer, so a decision that comes too late does not change what the run has seen.
        approval = await run.wait_signal(APPROVAL, timeout=APPROVAL_TIME, default=None)
        if approval is None:
            return await run.transaction(reject, order.number, "nobody approved it in time")
        if not approval.is_approved:
            return await run.transaction(reject, order.number, f"refused by {approval.by}")

    try:
        payment = await run.step(charge, order)
    except CardDeclined:
        return await run.transaction(reject, order.number, "card declined")
    await run.transaction(book, order.number, payment)

    await run.sleep(PACKING_TIME)
    return await run.transaction(ship, order.number)


# A transaction step gets the connection on which its checkpoint is saved too: its writes and the fact that it is done
# are one commit. It takes effect exactly once, without any thought of repetition in its code.


async def reserve(conn: perdure.Conn, number: str) -> str | None:
    """Take an order's goods out of the stock, or none of them; return what is missing."""
    rows = await conn.execute(
        """
        select p.name, l.product_id, l.quantity, p.stock
        from shop.order_line as l join shop.product as p using (product_id)
        where l.order_no = %s
        order by l.product_id for update of p  -- in order: two runs that want the same goods never deadlock
        """,
        [number],
    )
    lines = await rows.fetchall()
    for name, _, quantity, stock in lines:
        if quantity > stock:
            return str(name)
    for _, product_id, quantity, _ in lines:
        await conn.execute("update shop.product set stock = stock - %s where product_id = %s", [quantity, product_id])
        await conn.execute("insert into shop.reservation values (%s, %s, %s)", [number, product_id, quantity])
    await conn.execute("update shop.orders set status = 'reserved' where order_no = %s", [number])
    return None


async def reject(conn: perdure.Conn, number: str, reason: str) -> str:
    """Put back what was reserved and close the order."""
    freed = await conn.execute(
        "delete from shop.reservation where order_no = %s returning product_id, quantity", [number]
    )
    for product_id, quantity in sorted(await freed.fetchall()):
        await conn.execute("update shop.product set stock = stock + %s where product_id = %s", [quantity, product_id])
    await conn.execute("update shop.orders set status = 'rejected', reason = %s where order_no = %s", [reason, number])
    return reason


async def book(conn: perdure.Conn, number: str, payment: Payment) -> None:
    """Enter a payment into the shop's ledger."""
    await conn.execute(
        "insert into shop.ledger (order_no, payment_id, amount) values (%s, %s, %s)",
        [number, payment.id, payment.amount],
    )
    await conn.execute("update shop.orders set status = 'paid' where order_no = %s", [number])


async def ship(conn: perdure.Conn, number: str) -> str:
    """Hand the parcel over."""
    await conn.execute("insert into shop.shipment (order_no) values (%s)", [number])
    await conn.execute("update shop.orders set status = 'shipped' where order_no = %s", [number])
    return "shipped"


# Any other step may run more than once: its worker can die after the money has moved and before that is known. So the
# payment server gets the step's idempotency key, equal for all tries, and charges once per key. And as long as there is
# no answer we ask again: to give up after a time-out would be to guess whether the customer has paid.


@perdure.step(
    retry=perdure.Retry(
        max_attempts=None,
        delay=timedelta(milliseconds=300),
        factor=2,
        max_delay=timedelta(seconds=3),
        stop_on=(CardDeclined,),
    ),
    raises=[CardDeclined],
)
def charge(order: Order) -> Payment:
    """Charge the customer's card. (A plain function: Perdure runs it in a thread.)"""
    request = urllib.request.Request(
        os.environ["PAYMENTS_URL"] + "/charges",
        data=json.dumps({"order": order.number, "card": order.card, "amount": order.total}).encode(),
        headers={"Idempotency-Key": perdure.current_step().idempotency_key},
    )
    try:
        with urllib.request.urlopen(request, timeout=1.5) as answer:
            return Payment(**json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code == 402:
            raise CardDeclined(order.card) from None
        raise
