"""A hundred claimers on ten thousand runs: each run once, and an empty answer means that there is nothing."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Connection, Worker, a_run, act, call, declare_dead, drain, signal, start, wait

CLAIMERS, RUNS = 100, 10_000


@pytest.mark.slow
def test_a_hundred_claimers_take_ten_thousand_runs_once_each(database: Database) -> None:
    """All queues and priorities, workflows that half of them do not know, suspects; one claim in ten is rolled back."""
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order'), perdure.put_workflow('rare'), perdure.put_queue('slow')")
    started: set[UUID] = set()
    for n in range(20):
        rows = call(
            conn, "start_many", workflow="rare" if n % 5 == 0 else "order", queue="slow" if n % 2 else "default",
            priority=n % 5 + 1, inputs=[Jsonb(n)] * (RUNS // 20),
        )  # fmt: skip
        started |= {row["run_id"] for row in rows}
    database.admin.execute(
        "update perdure.dispatch set recoveries = 2 where run_id in (select run_id from perdure.dispatch limit 50)"
    )
    at_once = threading.Barrier(CLAIMERS)
    taken: list[UUID] = []
    empty: list[int] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        session = database.connect(autocommit=False)
        workflows = ["order", "rare"] if number % 2 else ["order"]
        worker = Worker(database, conn=session, queues=["default", "slow"], workflows=workflows, lease="1 day")
        session.commit()
        at_once.wait(120)
        while True:
            held = worker.claim(chance.choice((5, 40, 60)))
            if chance.random() < 0.1:
                session.rollback()
                continue
            session.commit()
            if not held:
                break
            taken.extend(each.run_id for each in held)
            while held:  # a rival's claim, which saw the row before this one's did, may hold it for a moment
                answers = {row["run_id"]: row["answer"] for row in worker.call(
                    "complete_runs", ends=[each.named() for each in held])}  # fmt: skip
                session.commit()
                assert set(answers.values()) <= {"done", "busy"}
                held = [each for each in held if answers[each.run_id] == "busy"]
        empty.append(number)
        session.close()

    with ThreadPoolExecutor(CLAIMERS) as pool:
        for future in [pool.submit(work, number) for number in range(CLAIMERS)]:
            future.result()
    counted = Counter(taken)
    assert set(counted.values()) == {1}
    assert set(counted) == started, "whoever got an empty answer was the last, or somebody else went on"
    assert len(empty) == CLAIMERS
    assert database.value("select count(*) from perdure.dispatch") == 0
    assert database.value("select count(*) from perdure.violations") == 0


def holding(database: Database, count: int) -> Connection:
    """A session that has locked the first runs of the lane, as a claim under way does."""
    session = database.connect(autocommit=False)
    session.execute(
        "select from perdure.dispatch where worker_id is null order by priority, ready_at, run_id limit %s for update",
        [count],
    )
    return session


def test_what_others_hold_at_the_head_hides_nothing_behind_it(database: Database, conn: Connection) -> None:
    rows = call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(50)])
    holding(database, 49)
    assert [held.run_id for held in Worker(database).claim(10)] == [rows[-1]["run_id"]]


def test_a_queue_headed_by_what_a_worker_does_not_know_hides_nothing(database: Database, conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('rare')")
    call(conn, "start_many", workflow="rare", inputs=[Jsonb(n) for n in range(2000)], priority=1)
    known = start(conn, priority=5)
    assert [held.run_id for held in Worker(database).claim(10)] == [known]


def test_a_claim_whose_transaction_fails_leaves_its_runs_to_the_next(database: Database, conn: Connection) -> None:
    run_ids = {
        row["run_id"] for row in call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(30)])
    }
    broken = database.connect(autocommit=False)
    worker = Worker(database, conn=broken)
    broken.commit()
    assert len(worker.claim(30)) == 30
    other = Worker(database)
    assert other.claim(30) == [], "they are in somebody's hands"
    pid = broken.info.backend_pid
    broken.close()
    database.wait_until("select not exists (select from pg_stat_activity where pid = %s)", pid)
    assert {held.run_id for held in other.claim(30)} == run_ids


def test_every_way_into_ready_is_seen_by_the_next_claim(database: Database, conn: Connection) -> None:
    """Started, released, told, resumed, retried, recovered, due: one claim, no sweep in between."""
    worker = Worker(database)

    def held_again() -> UUID:
        [held] = worker.claim(10)
        worker.complete(held)
        return held.run_id

    run_id = start(conn)
    assert held_again() == run_id
    run_id = start(conn)
    worker.release(worker.claim_one())
    assert held_again() == run_id
    run_id = start(conn)
    worker.suspend(worker.claim_one(), wait("w"))
    signal(conn, run_id, "w")
    assert held_again() == run_id
    run_id = start(conn)
    act(conn, "pause", run_id)
    assert worker.claim() == []
    act(conn, "resume", run_id)
    assert held_again() == run_id
    run_id = start(conn)
    worker.fail(worker.claim_one())
    act(conn, "retry", run_id)
    assert held_again() == run_id
    mortal, held = a_run(database)
    declare_dead(database, mortal)
    assert held_again() == held.run_id
    run_id = start(conn)
    database.clock.stop()
    held = worker.claim_one()
    assert worker.suspend(held, wait("t", "timer", until=database.clock.now() + timedelta(hours=1))) == "suspended"
    assert worker.claim() == []
    database.clock.advance(hours=1)
    assert held_again() == run_id


def test_a_sweep_finds_what_a_claim_could_not_see(database: Database, conn: Connection) -> None:
    """A successor whose predecessor's end told nobody: one tick makes it claimable."""
    worker = Worker(database)
    start(conn, key="k")
    held = worker.claim_one()
    ender = database.connect(autocommit=False)
    worker.on(ender).complete(held)
    heir = start(conn, key="k", on_duplicate="replace")
    ender.commit()
    drain(conn)
    assert in_background(conn.execute, "select perdure.tick()").result(timeout=30)
    assert worker.claim_one().run_id == heir
