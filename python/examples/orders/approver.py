"""The people who approve large orders: most in time, some twice, some too late, some never.

They know nothing of Python workflows. A decision is one line of SQL, which any program with a connection can send, in
its own transaction if it likes. Its id makes it safe to repeat: after a lost connection they simply send it again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from orders.flows import APPROVAL_TIME, LARGE
from orders.patience import Patient

SIGNAL = """
select perdure.signal_key(workflow => 'fulfil', key => %s, name => 'approval', payload => %s, id => %s)
"""


@dataclass(frozen=True)
class Habit:
    """How somebody treats an order that lies on the desk."""

    name: str
    weight: float
    after: tuple[float, float]
    """Seconds until the decision, from and to."""
    times: int = 1
    is_approved: bool = True


_LATE = APPROVAL_TIME.total_seconds()
HABITS = (
    Habit("in time", 50, (0.2, 5.0)),
    Habit("twice", 15, (0.2, 5.0), times=2),
    Habit("refused", 12, (0.2, 5.0), is_approved=False),
    Habit("too late", 12, (_LATE + 1, _LATE + 3)),
    Habit("never", 11, (0.0, 0.0), times=0),
)


class Approver:
    """Looks for large orders and decides on each; counts what the database answers."""

    def __init__(self, dsn: str, seed: int) -> None:
        self.answers: Counter[str] = Counter()
        self.habits: Counter[str] = Counter()
        self._dsn = dsn
        self._seed = seed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def work(self) -> None:
        """Look at the orders until cancelled."""
        try:
            async with Patient(self._dsn) as shop:
                while True:
                    for number in await shop.do(_large_orders):
                        if number not in self._tasks:
                            self._tasks[number] = asyncio.create_task(self._decide(shop, number))
                    await asyncio.sleep(0.3)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _decide(self, shop: Patient, number: str) -> None:
        chance = random.Random(f"{self._seed} {number}")
        (habit,) = chance.choices(HABITS, [habit.weight for habit in HABITS])
        self.habits[habit.name] += 1
        decision = Jsonb({"is_approved": habit.is_approved, "by": chance.choice(["Ines", "Hugo", "Kaya"])})
        await asyncio.sleep(chance.uniform(*habit.after))
        for _ in range(habit.times):

            async def send(conn: AsyncConnection) -> str:
                answer = await conn.execute(SIGNAL, [number, decision, f"decision on {number}"])
                ((word,),) = await answer.fetchall()
                return str(word)

            self.answers[await shop.do(send)] += 1


async def _large_orders(conn: AsyncConnection) -> list[str]:
    rows = await conn.execute("select order_no from shop.orders where total >= %s", [LARGE])
    return [number for (number,) in await rows.fetchall()]
