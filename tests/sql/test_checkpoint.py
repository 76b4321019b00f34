"""save_steps: once per key, by the holder of the claim alone; JSON null is a result."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import Connection, Worker, a_run, keys, start, steps, unknown_run


def test_many_saves_of_many_runs_are_one_call(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for _ in range(20):
        start(conn)
    batch = worker.claim(20)
    rows = worker.call("save_steps", saves=[held.named(**held.save(key)) for key in ("a", "b") for held in batch])
    assert [row["answer"] for row in rows] == ["saved"] * 40
    assert all(keys(database, held.run_id) == ["a", "b"] for held in batch)


def test_nothing_to_save_is_no_error(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for function, argument in (
        ("save_steps", "saves"),
        ("fail_steps", "tries"),
        ("suspend_runs", "suspensions"),
        ("complete_runs", "ends"),
        ("fail_runs", "ends"),
        ("release_runs", "releases"),
    ):
        assert worker.call(function, **{argument: Jsonb([])}) == []


def test_every_json_value_is_a_result_and_comes_back(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    values: list[Any] = [None, False, 0, "", [], {}, 1.5, {"a": [None]}]
    for n, value in enumerate(values):
        worker.save(held, f"s{n}", value)
    worker.release(held)
    read = worker.claim_one().steps
    assert [step["result"] for step in read] == values
    assert not any("error" in step for step in read)


def test_an_absent_result_is_json_null(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.call("save_steps", saves=[held.named(key="a", kind="step", ordinal=1)])
    assert steps(database, held.run_id)[0]["result"] is None
    assert database.value("select result = 'null' from perdure.step") is True


def test_an_error_is_a_checkpoint_too(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.call("save_steps", saves=[held.named(key="a", kind="step", ordinal=1, error={"type": "E"}, result=7)])
    [step] = steps(database, held.run_id)
    assert (step["result"], step["error"]) == (None, {"type": "E"})


def test_unknown_fields_are_ignored(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    assert worker.save(held, "a", colour="green") == "saved"


def test_a_save_for_an_unknown_run_is_lost(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    held.run_id = unknown_run()
    assert worker.save(held, "a") == "lost"


def test_a_save_without_a_claim_is_lost(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    save = held.named(**held.save("a"))
    del save["claim"]
    assert worker.call("save_steps", saves=[save])[0]["answer"] == "lost"
    assert keys(database, held.run_id) == []


def test_a_worker_saves_nothing_of_anothers_run(database: Database, conn: Connection) -> None:
    _, held = a_run(database)
    other = Worker(database)
    assert other.save(held, "a") == "lost"
    assert other.complete(held) == "lost"
    assert keys(database, held.run_id) == []


def test_progress_forgives_the_deaths_before_it_and_of_that_run_alone(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn), start(conn)
    one, two = worker.claim(2)
    worker.save(two, "a")
    database.admin.execute("update perdure.dispatch set recoveries = 2")
    again = two.named(key="a", kind="step", ordinal=1, result=None)  # on record: no progress
    worker.call("save_steps", saves=[one.named(**one.save("a")), again])
    found = dict(database.admin.execute("select run_id, recoveries from perdure.dispatch").fetchall())
    assert found == {one.run_id: 0, two.run_id: 2}


def test_a_failed_try_is_progress_too(database: Database, conn: Connection) -> None:
    """Whoever recorded it lived to tell."""
    worker, held = a_run(database)
    database.admin.execute("update perdure.dispatch set recoveries = 2")
    worker.fail_step(held, "a", 1, policy={})
    assert database.value("select recoveries from perdure.dispatch") == 0


def test_a_result_past_the_limit_is_refused_and_leaves_the_rest_to_be_sent_again(
    database: Database, conn: Connection
) -> None:
    conn.execute("select perdure.put_setting('payload_hard_limit', '1000')")
    worker, held = a_run(database)
    with pytest.raises(psycopg.Error) as refused:
        worker.save(held, "a", "x" * 2000)
    assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("PD010", True)
    with pytest.raises(psycopg.Error) as refused:
        worker.complete(held, "x" * 2000)
    assert refused.value.sqlstate == "PD010"
    assert worker.save(held, "a", "too large") == "saved"


def test_a_value_that_was_published_can_be_read_while_the_run_goes_on(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    read = "select perdure.get_value(%s, 'progress')"
    assert conn.execute(read, [held.run_id]).fetchone() == (None,)
    for n in (1, 2):
        worker.save(held, f"progress#{n}", {"n": n}, kind="value", name="progress")
    assert conn.execute(read, [held.run_id]).fetchone() == ({"n": 2},)


def test_what_is_no_array_is_refused(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for function, argument in (("save_steps", "saves"), ("complete_runs", "ends"), ("suspend_runs", "suspensions")):
        for value in ({"a": 1}, None, 7):
            with pytest.raises(psycopg.Error) as refused:
                worker.call(function, **{argument: Jsonb(value)})
            assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("22023", True)


def test_a_save_says_its_time_and_none_that_a_client_could_not_read(database: Database, conn: Connection) -> None:
    """A run with such a time on record could not be executed any more, nor its steps be listed."""
    worker, held = a_run(database)
    for said in ("infinity", "-infinity", "20000-01-01", "4700-01-01 BC"):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
            worker.call("save_steps", saves=[held.named(**held.save("a"), saved_at=said)])
        assert "saved_at" in str(refused.value.diag.message_detail)
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            worker.call("complete_runs", ends=[held.named(result=1, saves=[{**held.save("a"), "saved_at": said}])])
    for key, said in (("b", "9999-12-01T00:00:00+00:00"), ("c", "0001-02-01T00:00:00+00:00"), ("d", None)):
        [row] = worker.call("save_steps", saves=[held.named(**held.save(key), saved_at=said)])
        assert row["answer"] == "saved" and (said is None or row["saved_at"].year == int(said[:4]))
    assert {step["key"] for step in steps(database, held.run_id)} == {"b", "c", "d"}
