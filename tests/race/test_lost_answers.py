"""After a COMMIT of unknown fate a worker sends the same call again: it gets the same answer, and nothing happens twice."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from support.database import Database
from support.engine import (
    Connection,
    Held,
    Row,
    Worker,
    a_run,
    act,
    declare_dead,
    dispatch,
    drain,
    keys,
    outcome,
    signal,
    start,
    state,
    steps,
    wait,
)


def twice(worker: Worker, function: str, **arguments: Any) -> Row:
    """Make the same call twice; both answers are equal."""
    first, second = (worker.call(function, **arguments) for _ in range(2))
    assert first == second
    [row] = first
    return row


def test_a_save_is_on_record_the_second_time_as_it_was_saved(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    save = held.named(**held.save("a", {"n": 1}, fingerprint="00" * 16))
    [first], [second] = (worker.call("save_steps", saves=[save]) for _ in range(2))
    assert (first.pop("answer"), second.pop("answer")) == ("saved", "on_record")
    # the first time nothing comes back of what was sent
    assert second == {**first, "result": {"n": 1}, "kind": "step", "fingerprint": "00" * 16}
    assert first["saved_at"] is not None and first["ordinal"] == 1


def test_the_first_save_wins(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.save(held, "a", 1)
    again = worker.save_row(held, "a", 2)
    assert (again["answer"], again["result"], again["ordinal"]) == ("on_record", 1, 1)


def test_a_failed_try_gets_the_same_next_try(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    tried = held.named(key="a", kind="step", ordinal=1, attempt=1, error={"type": "E", "message": ""}, policy={})
    row = twice(worker, "fail_steps", tries=[tried])
    assert row["answer"] == "retry"
    tried |= {"attempt": 4}
    row = twice(worker, "fail_steps", tries=[tried])
    assert (row["answer"], row["checkpoint"]["error"]["type"]) == ("exhausted", "E")
    assert keys(database, held.run_id) == ["a"]


def test_a_suspension_is_done_the_second_time(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    saves = [held.save("a")]
    assert worker.suspend(held, wait("w"), saves=saves) == "suspended"
    assert worker.suspend(held, wait("w"), saves=saves) == "done"
    signal(conn, held.run_id, "w")
    again = worker.claim_one()
    assert worker.suspend(held, wait("w"), saves=saves) == "lost", "somebody goes on with it: nothing to be done"
    assert [step["key"] for step in again.steps] == ["a", "w"]


@pytest.mark.parametrize("keep", [False, True])
def test_an_answered_wait_is_answered_again_and_consumes_one_message(
    database: Database, conn: Connection, keep: bool
) -> None:
    worker, held = a_run(database)
    for n in (1, 2):
        signal(conn, held.run_id, "paid", {"n": n})
    suspension = held.named(
        waits=[wait("w", name="paid"), wait("x", name="paid"), wait("t", "sleep", until="-infinity")]
    )
    row = twice(worker, "suspend_runs", suspensions=[suspension], keep=keep)
    assert (row["answer"], row["checkpoint"]["key"], row["checkpoint"]["result"]) == ("answered", "w", {"n": 1})
    assert keys(database, held.run_id) == ["w"]
    assert worker.suspend_row(held, wait("x", name="paid"))["checkpoint"]["result"] == {"n": 2}


def test_a_time_out_is_answered_again_although_the_message_came_since(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    past = wait("w", until="-infinity")
    first = worker.suspend_row(held, past)
    signal(conn, held.run_id, "w")
    assert worker.suspend_row(held, past) == first
    assert "result" not in first["checkpoint"]


def test_a_delivered_cancel_is_answered_again_to_whoever_does_not_know_of_it(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    worker.save(held, "a")
    act(conn, "cancel", held.run_id)
    suspension = held.named(waits=[wait("w")], after=held.ordinal)
    row = twice(worker, "suspend_runs", suspensions=[suspension])
    assert row["checkpoint"]["kind"] == "cancel"
    assert worker.suspend_row(held, wait("w"), after=row["checkpoint"]["ordinal"])["answer"] == "suspended"


@pytest.mark.parametrize("first", ["completed", "failed", "cancelled", "terminated"])
def test_an_end_is_told_again_as_it_was(database: Database, conn: Connection, first: str) -> None:
    worker, held = a_run(database)
    if first in ("cancelled", "terminated"):
        act(conn, "cancel" if first == "cancelled" else "terminate", held.run_id)
    function = "fail_runs" if first == "failed" else "complete_runs"
    end = held.named(result={"n": 1}, error={"type": "E"}, saves=[held.save("last")])
    row = twice(worker, function, ends=[end])
    assert row["answer"] == (first if first in ("cancelled", "terminated") else "done")
    assert (outcome(database, held.run_id), keys(database, held.run_id)) == (first, ["last"])


def test_an_end_by_one_call_is_told_to_the_other(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.complete(held)
    assert worker.fail(held) == "completed"
    assert worker.suspend(held, wait("w")) == "ended"
    assert worker.release(held) == "done"
    assert outcome(database, held.run_id) == "completed"


def test_a_release_is_done_the_second_time(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    release = held.named(saves=[held.save("a")], pause_reason="conflict")
    assert twice(worker, "release_runs", releases=[release])["answer"] == "done"
    assert (state(database, held.run_id), keys(database, held.run_id)) == ("paused", ["a"])
    assert database.value("select count(*) from perdure.act") == 1


def test_a_claim_whose_answer_was_lost_is_found_and_given_back(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = start(conn)
    worker.claim_one()  # nobody reads the answer
    [row] = worker.call("worker_runs")
    assert row["run_id"] == run_id
    assert worker.release(Held(run_id, row["claim"], {})) == "done"
    assert worker.claim_one().run_id == run_id
    assert dispatch(database, run_id)["recoveries"] == 0


def test_two_beats_that_disagree_ask_to_reconcile(database: Database, conn: Connection) -> None:
    worker, _ = a_run(database)
    assert [worker.beat(0)["reconcile"] for _ in range(3)] == [False, True, True]
    assert worker.beat(1)["reconcile"] is False
    assert [worker.beat(n)["reconcile"] for n in (0, 1, 0)] == [False, False, False]


def test_a_transaction_step_that_took_effect_is_refused_the_second_time(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.transaction_step(held, "charge")
    with pytest.raises(psycopg.Error) as lost:
        worker.transaction_step(held, "charge")
    assert lost.value.sqlstate == "PD002"
    assert held.run_id in worker.runs()


def test_a_worker_that_stopped_has_stopped(database: Database, conn: Connection) -> None:
    worker, _ = a_run(database)
    assert [worker.stop(), worker.stop()] == [1, 0]


def test_a_client_that_starts_signals_or_cancels_again_changes_nothing(conn: Connection) -> None:
    run_id = start(conn, key="k")
    assert start(conn, key="k") == run_id
    assert [signal(conn, run_id, id="1"), signal(conn, run_id, id="1")] == ["accepted", "duplicate"]
    assert [act(conn, "cancel", run_id), act(conn, "cancel", run_id)] == ["accepted", "duplicate"]
    drain(conn)
    assert act(conn, "cancel", run_id) == "finished"


def test_an_answered_wait_survives_the_death_of_who_was_answered(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "w", {"n": 1})
    worker.suspend(held, wait("w"))
    declare_dead(database, worker)
    again = Worker(database).claim_one()
    assert [step["result"] for step in again.steps] == [{"n": 1}]
    assert len(steps(database, held.run_id)) == 1
