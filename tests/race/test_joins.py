"""A run that waits for a set of things, all of which come at once while it suspends: one answer to each call, the first
in the order asked, nothing of a loser consumed, nothing lost. A hundred times."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from support.database import Database, eventually
from support.engine import Connection, Held, Row, Worker, signal, start

ROUNDS, LANES = 100, 4
NAMES = ("a", "b", "c")


@dataclass
class Sent:
    """When the answer to each COMMIT of a message was there."""

    at: dict[str, float] = field(default_factory=dict)


class Lane:
    """One worker and three senders, round after round."""

    def __init__(self, database: Database, number: int) -> None:
        self.database = database
        self.random = random.Random(number)
        self.worker = Worker(database, queues=[f"lane{number}"], lease="1 day")
        self.queue = f"lane{number}"
        self.senders = {name: database.connect() for name in NAMES}
        self.pool = ThreadPoolExecutor(len(NAMES))

    def send(self, name: str, run_id: UUID, gate: threading.Barrier, pause: float, sent: Sent) -> None:
        gate.wait(60)
        time.sleep(pause)  # nothing depends on it: it only varies who comes first
        assert signal(self.senders[name], run_id, name, {"from": name}) == "accepted"
        sent.at[name] = time.monotonic()

    def play(self) -> str:
        """One run: suspended on the set until each of its waits is answered; return who came first."""
        run_id = start(self.worker.conn, queue=self.queue)
        held = self.worker.claim_one()
        order = self.random.sample([*NAMES, "timer", "sleep"], 5)
        sent, gate = Sent(), threading.Barrier(len(NAMES) + 1)
        coming = [self.pool.submit(self.send, name, run_id, gate, self.random.random() * 0.02, sent) for name in NAMES]
        gate.wait(60)
        answered: list[str] = []
        while len(answered) < len(order):
            waits = [self.wait(name) for name in order if name not in answered]
            held, key = self.next_answer(held, waits, sent)
            answered.append(key)
        for future in coming:
            future.result(timeout=60)
        # another's claim may hold its row for a moment without taking it
        eventually(lambda: self.worker.complete(held) == "done")
        self.check(run_id, answered)
        return answered[0]

    def wait(self, name: str) -> Row:
        if name in NAMES:
            return {"key": name, "kind": "signal", "name": name}
        return {"key": name, "kind": name, "until": "-infinity" if self.random.random() < 0.1 else self.soon()}

    def soon(self) -> str:
        row = self.worker.conn.execute(
            "select perdure._now() + make_interval(secs => %s)", [self.random.random() * 0.02]
        ).fetchone()
        assert row is not None
        return str(row[0].isoformat())

    def next_answer(self, held: Held, waits: list[Row], sent: Sent) -> tuple[Held, str]:
        """Suspend until one of the waits is answered, here or by a later claim; return the run and the key."""
        known = {step["key"] for step in held.steps}
        keys = [wait["key"] for wait in waits]
        asked_at = time.monotonic()
        row = self.worker.suspend_row(held, *waits)
        while row["answer"] == "busy":
            asked_at = time.monotonic()
            row = self.worker.suspend_row(held, *waits)
        if row["answer"] == "answered":
            new = row["checkpoint"]
            held.steps.append(new)
        else:
            assert row["answer"] == "suspended"
            give_up = time.monotonic() + 60
            while not (claimed := self.worker.claim(1)):
                assert time.monotonic() < give_up, "it was never woken"
            asked_at = 0.0  # whoever was there when it was claimed
            [held] = claimed
            added = [step for step in held.steps if step["key"] not in known]
            assert len(added) == 1, "one answer to each claim"
            [new] = added
        assert new["key"] in keys
        for name in keys[: keys.index(new["key"])]:
            assert sent.at.get(name, float("inf")) > asked_at, f"{name} was there and asked for before {new['key']}"
        return held, new["key"]

    def check(self, run_id: UUID, answered: list[str]) -> None:
        """Each wait once, in the order in which they were answered; each message consumed once."""
        rows: list[tuple[Any, ...]] = self.database.admin.execute(
            "select s.key, s.result ->> 'from', g.name from perdure.step as s left join perdure.signal as g "
            "on g.run_id = s.run_id and g.id = s.signal_id where s.run_id = %s order by s.ordinal", [run_id],
        ).fetchall()  # fmt: skip
        assert [row[0] for row in rows] == answered
        for key, sender, message in rows:
            assert (sender, message) == ((key, key) if key in NAMES else (None, None))


@pytest.fixture
def played(database: Database, conn: Connection) -> list[str]:
    """Who came first, of a hundred runs."""
    conn.execute("select perdure.put_queue('lane' || n) from generate_series(0, %s) as n", [LANES - 1])
    lanes = [Lane(database, number) for number in range(LANES)]

    def live(lane: Lane) -> list[str]:
        return [lane.play() for _ in range(ROUNDS // LANES)]

    with ThreadPoolExecutor(LANES) as pool:
        return [first for firsts in pool.map(live, lanes) for first in firsts]


@pytest.mark.slow
def test_of_waits_answered_at_once_each_call_gets_the_first_and_none_is_lost(
    database: Database, played: list[str]
) -> None:
    assert len(played) == ROUNDS
    assert len(set(played)) > 1, "it was always the same one"
    assert database.value("select count(*) from perdure.violations") == 0
    assert database.value("select count(*) from perdure.dispatch") == 0


def test_a_race_consumes_the_winners_message_only(database: Database, conn: Connection) -> None:
    """The loser's stays in the mailbox, whoever came first, and the next wait for it gets it."""
    worker = Worker(database)
    for order in (("a", "b"), ("b", "a")):
        run_id = start(conn)
        held = worker.claim_one()
        for name in order:
            signal(conn, run_id, name, {"from": name})
        row = worker.suspend_row(held, *({"key": name, "kind": "signal", "name": name} for name in NAMES[:2]))
        assert row["checkpoint"]["key"] == "a", "the first asked for, not the first that came"
        assert database.value("select count(*) from perdure.step where run_id = %s", run_id) == 1
        row = worker.suspend_row(held, {"key": "again", "kind": "signal", "name": "b"})
        assert row["checkpoint"]["result"] == {"from": "b"}
        assert worker.complete(held) == "done"
