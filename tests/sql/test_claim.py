"""claim_runs and read_steps: who gets what, in which order, with what they need to go on."""

from __future__ import annotations

from collections import Counter
from random import Random

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import Connection, Worker, a_run, act, call, declare_dead, dispatch, signal, start, wait


def make_suspect(database: Database, run_id: object, recoveries: int = 2) -> None:
    database.admin.execute("update perdure.dispatch set recoveries = %s where run_id = %s", [recoveries, run_id])


def test_runs_are_claimed_in_the_order_of_their_start(database: Database, conn: Connection) -> None:
    run_ids = [start(conn) for _ in range(5)]
    worker = Worker(database)
    assert [worker.claim_one().run_id for _ in range(5)] == run_ids


def test_a_smaller_priority_comes_first_whatever_came_first(database: Database, conn: Connection) -> None:
    """One claim in eight takes the first of each lower lane before it, so the order is counted, not exact."""
    worker = Worker(database)
    first: Counter[int] = Counter()
    for _ in range(25):
        for priority in (5, 4, 3, 2, 1):
            start(conn, priority=priority)
        order = [worker.claim_one().run_id for _ in range(5)]
        first[database.value("select priority from perdure.run where run_id = %s", order[0])] += 1
    assert first.most_common(1)[0][0] == 1
    assert first[1] >= 6, "0.875 to the power of 4 is 59 %"


def test_a_lower_priority_is_not_starved(database: Database, conn: Connection) -> None:
    low = start(conn, priority=5)
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(200)], priority=1)
    worker = Worker(database)
    assert any(held.run_id == low for _ in range(150) for held in worker.claim())


def test_a_suspect_is_not_starved_by_a_queue_that_is_never_empty(database: Database, conn: Connection) -> None:
    suspect = start(conn)
    make_suspect(database, suspect)
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(300)])
    worker = Worker(database)
    assert any(held.run_id == suspect for _ in range(100) for held in worker.claim(2))


def test_a_worker_is_given_only_what_it_knows(database: Database, conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('refund', 'fast')")
    order, refund, fast = start(conn), start(conn, workflow="refund"), start(conn, queue="fast")
    assert [held.run_id for held in Worker(database).claim(9)] == [order]
    assert [held.run_id for held in Worker(database, queues=["fast"]).claim(9)] == [fast]
    assert [held.run_id for held in Worker(database, queues=["fast"], workflows=["refund"]).claim(9)] == [refund]


def test_a_claim_takes_no_more_than_asked_for(database: Database, conn: Connection) -> None:
    for priority in (1, 2, 3, 4, 5):
        for _ in range(3):
            start(conn, priority=priority)
    worker = Worker(database)
    assert [len(worker.claim(n)) for n in (4, 1, 9, 9)] == [4, 1, 9, 1]
    assert len(worker.runs()) == 15


def test_each_claim_has_a_token_of_its_own(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    worker = Worker(database)
    tokens = set()
    for _ in range(5):
        held = worker.claim_one()
        assert held.run_id == run_id
        tokens.add(held.claim)
        worker.release(held)
    assert len(tokens) == 5


def test_a_claim_brings_the_checkpoints_in_their_order(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.save(held, "b", {"n": 1}, fingerprint="0f" * 16)
    worker.save(held, "a", name="total", kind="value")
    worker.call("save_steps", saves=[held.named(key="c", kind="step", ordinal=3, error={"type": "E", "message": "m"})])
    worker.release(held)
    b, a, c = worker.claim_one().steps
    assert (b["ordinal"], b["key"], b["kind"], b["result"], b["fingerprint"]) == (1, "b", "step", {"n": 1}, "0f" * 16)
    assert (a["key"], a["name"], "result" in a, a["result"], "fingerprint" in a) == ("a", "total", True, None, False)
    assert (c["error"], "result" in c) == ({"type": "E", "message": "m"}, False)
    assert all(step["saved_at"] for step in (a, b, c))


def test_failed_tries_of_an_unfinished_step_come_first(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.save(held, "a")
    for attempt in (1, 2):
        worker.fail_step(held, "b", attempt, policy={})
    worker.release(held)
    tried, saved = worker.claim_one().steps
    assert (tried["ordinal"], tried["key"], tried["kind"], tried["attempt"]) == (0, "b", "attempt", 2)
    assert tried["retry_at"] and saved["key"] == "a"


def test_a_long_history_is_read_in_pages_without_a_gap(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    chance = Random(1)  # what is stored compressed counts less
    saves = [held.named(**held.save(f"s{n}", chance.randbytes(10000).hex())) for n in range(40)]
    worker.call("save_steps", saves=saves)
    worker.release(held)
    again = worker.claim_one()
    assert again.row["has_more"] is True
    read = list(again.steps)
    assert 10 < len(read) < 40
    while page := call(conn, "read_steps", run_id=held.run_id, after=read[-1]["ordinal"])[0]["read_steps"]:
        read += page
    assert [step["key"] for step in read] == [f"s{n}" for n in range(40)]


def test_a_page_has_one_step_at_least_however_large(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.save(held, "big", "x" * 500_000)
    worker.save(held, "small")
    [page] = call(conn, "read_steps", run_id=held.run_id, max_bytes=1)
    assert [step["key"] for step in page["read_steps"]] == ["big"]


def test_a_run_woken_by_a_message_is_claimed_in_the_same_call(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("w"))
    signal(conn, held.run_id, "w")
    assert database.value("select count(*) from perdure.wake") == 1
    assert worker.claim_one().run_id == held.run_id


def test_a_claim_tells_how_often_workers_died(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    declare_dead(database, worker)
    assert Worker(database).claim_one().row["recoveries"] == 1
    assert held.row["recoveries"] == 0


def test_a_timeout_runs_from_the_first_claim_and_no_recovery_changes_it(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    start(conn, timeout="1 hour")
    database.clock.advance(hours=5)
    worker = Worker(database)
    held = worker.claim_one()
    assert held.row["deadline"].hour == 18
    database.clock.advance(minutes=10)
    worker.release(held)
    assert worker.claim_one().row["deadline"] == held.row["deadline"]
    declare_dead(database, worker)
    assert Worker(database).claim_one().row["deadline"] == held.row["deadline"]


def test_the_answer_of_a_claim_is_what_was_started(database: Database, conn: Connection) -> None:
    run_id = start(conn, key="k", input=Jsonb([1, None, "x"]), deadline="2099-01-01 00:00+00")
    row = Worker(database).claim_one().row
    assert (row["run_id"], row["key"], row["input"], row["deadline"].year) == (run_id, "k", [1, None, "x"], 2099)
    assert (row["cancel"], row["scheduled_at"]) == (None, None)
    assert dispatch(database, run_id)["claim"] == str(row["claim"])


@pytest.mark.parametrize("max_runs", [None, 0, -1, 10001])
def test_a_claim_of_no_number_is_refused(database: Database, conn: Connection, max_runs: int | None) -> None:
    worker = Worker(database)
    with pytest.raises(psycopg.Error) as refused:
        worker.call("claim_runs", max_runs=max_runs)
    assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("22023", True)


def test_a_cancelled_run_tells_so_when_it_is_claimed(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.release(held)
    act(conn, "cancel", held.run_id)
    assert worker.claim_one().cancel == "cancelled"
