"""complete_runs, fail_runs, release_runs, result, run_results, await: one end per run, told to whoever asks."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    dispatch,
    drain,
    keys,
    outcome,
    scalar,
    signal,
    start,
    state,
    unknown_run,
)
from support.walk import bring

# How each way to end badly is told, the code of the error that result() raises.
ENDS = {"failed": "PD008", "cancelled": "PD012", "timed_out": "PD013", "terminated": "PD014", "dead": "PD015"}


def test_a_completed_run_has_its_result_and_no_dispatch_row(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    assert worker.complete(held, {"n": 1}) == "done"
    assert scalar(conn, "result", run_id=held.run_id) == {"n": 1}
    assert dispatch(database, held.run_id) == {}
    assert worker.runs() == set()


def test_every_json_value_is_a_result_of_a_run(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for value in (None, False, 0, "", [], {}, "x", [None]):
        start(conn)
        held = worker.claim_one()
        worker.complete(held, value)
        assert scalar(conn, "result", run_id=held.run_id) == value
    assert database.value("select count(*) from perdure.outcome where result is null") == 0


def test_an_end_carries_the_last_saves(database: Database, conn: Connection) -> None:
    for end in ("complete", "fail", "release"):
        worker, held = a_run(database)
        getattr(worker, end)(held, saves=[held.save("a"), held.save("b")])
        assert keys(database, held.run_id) == ["a", "b"], end
        if end == "release":
            assert [step["key"] for step in worker.claim_one().steps] == ["a", "b"]


def test_each_way_to_end_badly_is_an_error_of_its_own(database: Database, conn: Connection) -> None:
    for status, code in ENDS.items():
        run_id = bring(database, conn, status)
        with pytest.raises(psycopg.Error) as told:
            scalar(conn, "result", run_id=run_id)
        assert (told.value.sqlstate, bool(told.value.diag.message_hint)) == (code, True), status
        assert str(told.value.diag.message_detail).startswith("{"), status


def test_the_error_of_a_failed_run_is_told_as_json(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.fail(held, type="CardDeclined", message="no funds", details={"code": 7}, step="charge")
    with pytest.raises(psycopg.Error) as told:
        scalar(conn, "result", run_id=held.run_id)
    assert str(told.value).startswith(f'run "{held.run_id}" failed: no funds')
    [row] = call(conn, "run_results", run_ids=[held.run_id])
    assert row["error"] == {"type": "CardDeclined", "message": "no funds", "details": {"code": 7}, "step": "charge"}


def test_the_result_of_a_run_that_goes_on_is_an_error_not_a_wait(conn: Connection) -> None:
    with pytest.raises(psycopg.Error) as told:
        scalar(conn, "result", run_id=start(conn))
    assert (told.value.sqlstate, bool(told.value.diag.message_hint)) == ("PD007", True)
    with pytest.raises(psycopg.Error) as told:
        scalar(conn, "result", run_id=unknown_run())
    assert (told.value.sqlstate, bool(told.value.diag.message_hint)) == ("PD001", True)


def test_many_results_are_read_at_once(database: Database, conn: Connection) -> None:
    worker, done = a_run(database)
    worker.complete(done, {"n": 1})
    waiting = start(conn)
    rows = call(conn, "run_results", run_ids=[done.run_id, waiting, unknown_run()])
    found = {row["run_id"]: (row["status"], row["result"]) for row in rows}
    assert found == {done.run_id: ("completed", {"n": 1}), waiting: (None, None)}


def test_await_returns_when_the_run_ends(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    waiting = in_background(conn.execute, "call perdure.await(%s)", [held.run_id])
    database.wait_until("select wait_event = 'PgSleep' from pg_stat_activity where pid = %s", conn.info.backend_pid)
    worker.complete(held, {"n": 1})
    assert waiting.result(timeout=10).fetchone() == ({"n": 1},)


def test_await_within_a_transaction_sees_the_end_too(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    client = database.connect(autocommit=False)
    client.execute("select 1")
    waiting = in_background(client.execute, "call perdure.await(%s)", [held.run_id])
    database.wait_until("select wait_event = 'PgSleep' from pg_stat_activity where pid = %s", client.info.backend_pid)
    worker.complete(held, {"n": 1})
    assert waiting.result(timeout=10).fetchone() == ({"n": 1},)


def test_await_gives_up_when_its_time_is_over(conn: Connection) -> None:
    run_id = start(conn)
    with pytest.raises(psycopg.Error) as told:
        conn.execute("call perdure.await(%s, '50 milliseconds')", [run_id])
    assert told.value.sqlstate == "PD007"


def test_await_tells_how_a_run_ended_badly(database: Database, conn: Connection) -> None:
    run_id = bring(database, conn, "failed")
    with pytest.raises(psycopg.Error) as told:
        conn.execute("call perdure.await(%s)", [run_id])
    assert told.value.sqlstate == "PD008"


def test_many_runs_end_in_one_call_each_answered(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for _ in range(30):
        start(conn)
    batch = worker.claim(30)
    act(conn, "cancel", batch[3].run_id)
    rows = worker.call("complete_runs", ends=[held.named(result=n) for n, held in enumerate(batch)])
    answers = {row["run_id"]: row["answer"] for row in rows}
    assert answers == {held.run_id: "cancelled" if held is batch[3] else "done" for held in batch}
    assert scalar(conn, "result", run_id=batch[7].run_id) == 7


@pytest.mark.parametrize("function", ["complete_runs", "fail_runs"])
def test_a_run_does_not_end_by_a_save_of_which_another_is_on_record(database: Database, function: str) -> None:
    """Its end was made of another result than the one that counts; the others of the batch end."""
    worker = Worker(database)
    for _ in range(3):
        start(worker.conn)
    batch = worker.claim(3)
    worker.save(batch[1], "a", {"n": 1})
    ends = [held.named(result=2, error={"type": "E"}, saves=[held.save("a", {"n": 2})]) for held in batch]
    answers = {row["run_id"]: row["answer"] for row in worker.call(function, ends=ends)}
    assert answers == {held.run_id: "on_record" if held is batch[1] else "done" for held in batch}
    assert dispatch(database, batch[1].run_id)["worker_id"] == str(worker.worker_id)
    assert database.value("select result from perdure.step where run_id = %s", batch[1].run_id) == {"n": 1}
    again = worker.call(function, ends=[batch[1].named(result=1, error={"type": "E"})])
    assert again[0]["answer"] == "done"


def test_a_save_that_comes_twice_with_an_end_is_not_taken_for_one_on_record(database: Database) -> None:
    """Nor do the other runs of the batch lose their answers by it."""
    worker, other = Worker(database), database.connect()
    for _ in range(2):
        start(worker.conn)
    batch = worker.claim(2)
    other.autocommit = False
    other.execute("select from perdure.dispatch where run_id = %s for update", [batch[1].run_id])
    ends = [batch[0].named(result=1, saves=[batch[0].save("a"), batch[0].save("a")]), batch[1].named(result=1)]
    answers = {row["run_id"]: row["answer"] for row in worker.call("complete_runs", ends=ends)}
    other.rollback()
    assert answers == {batch[0].run_id: "done", batch[1].run_id: "busy"}


def test_an_end_sent_again_with_its_saves_gets_the_same_answer(database: Database) -> None:
    worker, held = a_run(database)
    end = held.named(result=1, saves=[held.save("a", {"n": 1})])
    assert [worker.call("complete_runs", ends=[end])[0]["answer"] for _ in range(2)] == ["done", "done"]


def test_an_ended_run_never_changes(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.complete(held, {"n": 1})
    before = database.value("select to_jsonb(o) from perdure.outcome as o")
    assert worker.fail(held) == "completed"
    for what in ("cancel", "terminate"):
        assert act(conn, what, held.run_id) == "finished"
    assert signal(conn, held.run_id) == "finished"
    conn.execute("select perdure.tick()")
    assert database.value("select to_jsonb(o) from perdure.outcome as o") == before
    assert worker.claim() == []


def test_a_released_run_burns_nothing_and_is_ready_at_once(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    assert worker.release(held) == "done"
    assert state(database, held.run_id) == "ready"
    again = Worker(database).claim_one()
    assert (again.run_id, again.row["recoveries"]) == (held.run_id, 0)


def test_a_stopping_worker_gives_back_what_it_holds_and_burns_nothing(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_ids = {start(conn) for _ in range(3)}
    worker.claim(3)
    assert worker.stop() == 3
    assert {held.run_id for held in Worker(database).claim(9) if held.row["recoveries"] == 0} == run_ids
    assert database.value("select count(*) from perdure.worker_beat") == 1


def test_a_run_that_fails_without_an_error_has_one_all_the_same(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.call("fail_runs", ends=Jsonb([held.named()]))
    error: Any = database.value("select error from perdure.outcome")
    assert error["type"]


def test_what_the_code_raised_is_kept_in_the_error_of_a_cancelled_run(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "cancel", held.run_id, reason="customer left")
    drain(conn)
    worker.fail(held, type="Cancelled", message="at refund")
    assert outcome(database, held.run_id) == "cancelled"
    error = database.value("select error from perdure.outcome")
    assert (error["message"], error["raised"]["message"]) == ("customer left", "at refund")
