"""What once stopped the engine or lost something, each as small as it can be shown."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    declare_dead,
    dispatch,
    drain,
    outcome,
    signal,
    start,
    wait,
)

CANCELLING_OUT = "-1000000 mons 30000000 days"  # less than a century when compared, out of range when added


def test_an_interval_that_only_an_addition_shows_is_refused_at_the_door(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for attempt in (
        lambda: act(conn, "cancel", held.run_id, grace=CANCELLING_OUT),
        lambda: start(conn, timeout=CANCELLING_OUT),
        lambda: start(conn, delay=CANCELLING_OUT),
    ):
        with pytest.raises(psycopg.DataError):
            attempt()
    start(conn)
    assert len(worker.claim(10)) == 1


def test_a_time_is_read_once_with_the_settings_of_whoever_wrote_it(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until="12/31/2030"))
    stored = dispatch(database, held.run_id)["waits"][0]["until"]
    assert stored.startswith("2030-12-31T00:00:00")


@pytest.mark.parametrize("ordinal", [0, 2147483647])
def test_an_ordinal_that_the_engine_could_not_count_on_from_is_refused(
    database: Database, conn: Connection, ordinal: int
) -> None:
    worker, held = a_run(database)
    with pytest.raises(psycopg.DataError):
        worker.save(held, "s", ordinal=ordinal)


def test_a_wait_whose_key_no_index_could_hold_is_refused(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    with pytest.raises(psycopg.DataError):
        worker.suspend(held, wait("\U00010400" * 1000))


def test_the_limit_counts_what_a_table_keeps_compressed(conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('order')")
    conn.execute("create temp table t as select jsonb_build_object('a', repeat('x', 20000000)) as j")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select perdure.start('order', t.j) from t")
    assert caught.value.sqlstate == "PD010"


def test_an_error_has_the_limit_of_a_result(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    with pytest.raises(psycopg.Error) as caught:
        worker.fail(held, type="Huge", message="x" * 20_000_000)
    assert caught.value.sqlstate == "PD010"


@pytest.mark.parametrize("function", ["save_steps", "fail_steps", "complete_runs", "fail_runs"])
def test_an_error_beside_a_result_has_the_limit_too(database: Database, conn: Connection, function: str) -> None:
    conn.execute("select perdure.put_setting('payload_hard_limit', '1000')")
    worker, held = a_run(database)
    both = held.named(**held.save("a", 1), attempt=1, error={"type": "Huge", "message": "x" * 2000})
    argument = {"save_steps": "saves", "fail_steps": "tries"}.get(function, "ends")
    with pytest.raises(psycopg.Error) as caught:
        worker.call(function, **{argument: [both]})
    assert caught.value.sqlstate == "PD010"


def test_what_somebody_holds_at_the_head_hides_nobody_behind_it(database: Database, conn: Connection) -> None:
    worker, first = a_run(database)
    start(conn)
    second = worker.claim_one()
    worker.suspend(second, wait("w"))
    holder = database.connect(autocommit=False)
    holder.execute("select 1")
    worker.on(holder).transaction_step(first, "t")  # left open
    conn.execute("select count(perdure.signal(%s, 'x')) from generate_series(1, 1000)", [first.run_id])
    signal(conn, second.run_id, "w")
    drain(conn)
    assert [held.run_id for held in worker.claim(10)] == [second.run_id]
    holder.rollback()


def test_an_answer_that_was_lost_before_a_pause_is_given_again(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "w")
    assert worker.suspend(held, wait("w")) == "answered"  # and imagine that nobody heard it
    act(conn, "pause", held.run_id)
    assert worker.suspend(held, wait("w")) == "answered"


def test_beside_a_known_suspect_nobody_dies_of_the_workers_death_but_all_are_counted(
    database: Database, conn: Connection
) -> None:
    suspect, neighbour = start(conn), start(conn, max_recoveries=1)
    database.admin.execute("update perdure.dispatch set recoveries = 2 where run_id = %s", [suspect])
    for _ in range(2):
        worker = Worker(database)
        assert {held.run_id for held in worker.claim(10)} == {suspect, neighbour}
        declare_dead(database, worker)
        database.admin.execute("update perdure.dispatch set ready_at = '2000-01-01'")
    assert outcome(database, neighbour) is None
    assert (dispatch(database, neighbour)["recoveries"], dispatch(database, suspect)["recoveries"]) == (1, 4)


@pytest.mark.parametrize("how", ["replace", "restart_if_finished", "retry"])
def test_a_successor_looks_through_one_that_never_began(database: Database, conn: Connection, how: str) -> None:
    worker = Worker(database)
    first = start(conn, key="k")
    worker.claim_one()
    second = start(conn, key="k", on_duplicate="replace")
    act(conn, "terminate", second)
    drain(conn)
    third = second if how == "retry" else None
    if third is None:
        third = start(conn, key="k", on_duplicate=how)
    else:
        act(conn, "retry", second)
    assert worker.claim(10) == []
    assert dispatch(database, third)["predecessor_id"] == str(first)


def test_a_run_whose_key_names_another_at_work_is_not_brought_back(conn: Connection) -> None:
    first = start(conn, key="k")
    start(conn, key="k", on_duplicate="replace")
    act(conn, "terminate", first)
    drain(conn)
    with pytest.raises(psycopg.Error) as caught:
        act(conn, "retry", first)
    assert caught.value.sqlstate == "PD005"
    assert [row["answer"] for row in call(conn, "retry_many", run_ids=[first])] == ["illegal"]


def test_a_lost_claim_does_not_pass_beside_a_valid_one(database: Database, conn: Connection) -> None:
    worker, old = a_run(database)
    worker.release(old)
    new = worker.claim_one()
    other = old.named(run_id="00000000-0000-7000-8000-000000000000")
    saves = [old.save("by the lost claim"), new.save("by the valid one"), {**other, "key": "k", "kind": "step"}]
    with pytest.raises(psycopg.DataError):
        worker.call("save_steps", saves=Jsonb([{**save, "ordinal": 1} for save in saves]))


def test_names_are_judged_whatever_the_sessions_string_syntax(conn: Connection) -> None:
    conn.execute("set standard_conforming_strings = off")
    conn.execute("set escape_string_warning = off")
    start(conn)
