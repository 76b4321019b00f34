"""A user's program as mypy strict sees it; checked, and run, by test_types.py."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import perdure

if TYPE_CHECKING:
    from typing_extensions import assert_type


@dataclass
class Trip:
    id: int
    user: str


@dataclass
class Booking:
    id: str


@dataclass
class Decision:
    is_approved: bool


class SoldOut(Exception): ...


DECISION = perdure.Signal("decision", Decision)
PROGRESS = perdure.Value("progress", str)


@perdure.step(raises=[SoldOut], retry=perdure.Retry(max_attempts=1))
async def book_hotel(trip: Trip) -> Booking:
    if trip.user == "late":
        raise SoldOut
    return Booking(f"h{trip.id}")


@perdure.step(at_most_once=True, timeout=timedelta(minutes=1))
def charge(trip: Trip, *, cents: int) -> str:
    return f"{perdure.current_step().idempotency_key.partition('/')[2]} {cents}"


async def close_day(conn: perdure.Conn, day: str, files: int) -> int:
    conn.write(f"{day} {files}")
    return files


async def book(run: perdure.AsyncRun, trip: Trip) -> list[Any]:
    await run.set_value(PROGRESS, "begun")
    try:
        hotel = await run.step(book_hotel, trip)
    except SoldOut:
        return ["sold out"]
    receipt = await run.scope("pay").step(charge, trip, cents=5)
    both = await asyncio.gather(run.step(book_hotel, trip), run.options(key="again").step(charge, trip, cents=6))
    task = asyncio.create_task(run.step(book_hotel, trip))
    closed = await run.transaction(close_day, "monday", 3)
    decision = await run.wait_signal(DECISION, timeout=timedelta(days=3), default=None)
    name, value = await run.race(again=run.wait_signal(DECISION), late=run.sleep(timedelta(days=1)))
    if TYPE_CHECKING:
        assert_type(hotel, Booking)
        assert_type(receipt, str)
        assert_type(both, tuple[Booking, str])
        assert_type(closed, int)
        assert_type(decision, Decision | None)
        assert_type(run.wait_signal(DECISION), perdure.Pending[Decision])
        assert_type(name, str)
        run.step(charge, trip)  # type: ignore[call-overload]
        run.step(book_hotel, 5)  # type: ignore[call-overload]
        await run.set_value(PROGRESS, 5)  # type: ignore[misc]
    return [hotel.id, receipt, both[1], (await task).id, closed, decision, name, value]


workflow = perdure.Workflow(book)
app = perdure.App()


@app.workflow
async def bare(run: perdure.AsyncRun, trip: Trip) -> Booking:
    return Booking(f"b{trip.id}")


@app.task
async def bare_task(trip: Trip) -> int:
    return trip.id


if TYPE_CHECKING:
    assert_type(bare, perdure.Workflow[Trip, Booking])
    assert_type(bare_task, perdure.Workflow[Trip, int])
    assert_type(app.workflow()(book), perdure.Workflow[Trip, list[Any]])
