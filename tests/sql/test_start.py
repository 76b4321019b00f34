"""start and start_many: identity by key, times, priorities; what a start in a transaction leaves behind."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, eventually
from support.engine import Connection, Worker, act, call, declare_dead, dispatch, drain, outcome, scalar, start, state

ONE, OTHER = {"n": 1}, {"n": 2}


def end(worker: Worker, how: str) -> None:
    held = worker.claim_one()
    if how == "completed":
        assert worker.complete(held) == "done"
    else:
        assert worker.fail(held) == "done"


def test_a_start_leaves_a_run_that_is_ready(database: Database, conn: Connection) -> None:
    run_id = start(conn, input=ONE, tags={"customer": "7"}, headers={"trace": "x"})
    assert state(database, run_id) == "ready"
    held = Worker(database).claim_one()
    assert (held.row["input"], held.row["tags"], held.row["headers"]) == (ONE, {"customer": "7"}, {"trace": "x"})
    assert (held.row["workflow"], held.row["key"], held.steps, held.row["has_more"]) == ("order", None, [], False)


def test_a_start_that_is_rolled_back_leaves_no_trace(database: Database, conn: Connection) -> None:
    with conn.transaction(force_rollback=True):
        run_id = start(conn, key="k")
    assert state(database, run_id) is None
    assert scalar(conn, "find_run", workflow="order", key="k") is None


def test_nobody_sees_a_start_before_its_commit(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    with conn.transaction():
        run_id = start(conn)
        assert worker.claim() == []
    assert worker.claim_one().run_id == run_id


def test_the_same_key_names_the_same_run_finished_or_not(database: Database, conn: Connection) -> None:
    run_id = start(conn, key="k", input=ONE)
    assert start(conn, key="k", input=ONE) == run_id
    end(Worker(database), "completed")
    assert start(conn, key="k", input=ONE) == run_id
    assert scalar(conn, "find_run", workflow="order", key="k") == run_id
    assert database.value("select count(*) from perdure.run") == 1


def test_the_same_key_of_another_workflow_is_another_run(conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('other')")
    assert start(conn, key="k") != start(conn, workflow="other", key="k")


def test_the_same_key_with_another_input_is_refused_with_both_fingerprints(conn: Connection) -> None:
    start(conn, key="k", input=ONE)
    with pytest.raises(psycopg.Error) as refused:
        start(conn, key="k", input=OTHER)
    assert refused.value.sqlstate == "PD005"
    detail = str(refused.value.diag.message_detail)
    for value in (ONE, OTHER):
        print_of = conn.execute("select encode(perdure._fingerprint(%s), 'hex')", [Jsonb(value)]).fetchone()
        assert print_of is not None and print_of[0] in detail


def test_the_same_input_in_other_words_is_the_same_input(conn: Connection) -> None:
    first = conn.execute("""select perdure.start('order', '{"a": 1, "b": 2}', 'k')""").fetchone()
    assert conn.execute("""select perdure.start('order', '{ "b":2,"a":1 }', 'k')""").fetchone() == first


@pytest.mark.parametrize(
    ("rule", "old", "is_new"),
    [
        ("attach", None, False),
        ("attach", "completed", False),
        ("attach", "failed", False),
        ("restart_if_failed", None, False),
        ("restart_if_failed", "completed", False),
        ("restart_if_failed", "failed", True),
        ("restart_if_finished", None, False),
        ("restart_if_finished", "completed", True),
        ("restart_if_finished", "failed", True),
        ("replace", None, True),
        ("replace", "completed", True),
        ("replace", "failed", True),
    ],
)
def test_on_duplicate_decides_whether_a_key_gets_a_new_run(
    database: Database, conn: Connection, rule: str, old: str | None, is_new: bool
) -> None:
    first = start(conn, key="k", input=ONE)
    if old:
        end(Worker(database), old)
    again = start(conn, key="k", input=ONE, on_duplicate=rule)
    assert (again != first) is is_new
    assert scalar(conn, "find_run", workflow="order", key="k") == again
    assert outcome(database, first) == old or rule == "replace"


@pytest.mark.parametrize("rule", ["restart_if_failed", "restart_if_finished", "replace"])
def test_a_new_run_under_an_old_key_may_have_another_input(database: Database, conn: Connection, rule: str) -> None:
    first = start(conn, key="k", input=ONE)
    end(Worker(database), "failed")
    assert start(conn, key="k", input=OTHER, on_duplicate=rule) != first
    with pytest.raises(psycopg.Error) as refused:
        start(conn, key="k", input=ONE)
    assert refused.value.sqlstate == "PD005"


@pytest.mark.parametrize(("how", "restarts"), [("cancel", False), ("terminate", False), ("dead", True)])
def test_only_failed_and_dead_count_as_failed(database: Database, conn: Connection, how: str, restarts: bool) -> None:
    first = start(conn, key="k", max_recoveries=0)
    if how == "dead":
        worker = Worker(database)
        worker.claim_one()
        declare_dead(database, worker)
    else:
        act(conn, how, first)
        drain(conn)
    assert outcome(database, first) is not None
    assert (start(conn, key="k", on_duplicate="restart_if_failed") != first) is restarts
    assert start(conn, key="k", on_duplicate="restart_if_finished") != first


def test_error_refuses_a_taken_key_and_tells_who_holds_it(conn: Connection) -> None:
    run_id = start(conn, key="k")
    with pytest.raises(psycopg.Error) as refused:
        start(conn, key="k", on_duplicate="error")
    assert refused.value.sqlstate == "PD005"
    assert str(run_id) in str(refused.value.diag.message_detail)
    assert "unfinished" in str(refused.value.diag.message_detail)
    assert refused.value.diag.message_hint


def test_replace_cancels_the_old_run_and_starts_when_it_has_ended(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    old = start(conn, key="k")
    held = worker.claim_one()
    new = start(conn, key="k", on_duplicate="replace")
    assert worker.claim() == [], "the old run is still at work"
    assert state(database, new) == "scheduled"
    assert worker.suspend_row(held, {"key": "w", "kind": "sleep"})["checkpoint"]["result"]["status"] == "cancelled"
    assert worker.complete(held) == "cancelled"
    assert worker.claim_one().run_id == new
    assert outcome(database, old) == "cancelled"


def test_replacing_a_run_that_never_began_starts_at_once(database: Database, conn: Connection) -> None:
    old = start(conn, key="k")
    new = start(conn, key="k", on_duplicate="replace")
    worker = Worker(database)
    assert [held.run_id for held in worker.claim() + worker.claim()] == [new]
    assert outcome(database, old) == "cancelled"


@pytest.mark.parametrize("how", ["replaced", "terminated"])
def test_the_last_of_several_replacements_waits_for_the_run_that_is_at_work(
    database: Database, conn: Connection, how: str
) -> None:
    worker = Worker(database)
    start(conn, key="k")
    held = worker.claim_one()
    middle = start(conn, key="k", on_duplicate="replace")
    last = start(conn, key="k", on_duplicate="replace")
    if how == "terminated":
        act(conn, "terminate", middle)
    for _ in range(3):
        drain(conn)
    conn.execute("select perdure.tick()")
    assert outcome(database, middle) == ("cancelled" if how == "replaced" else outcome(database, middle))
    assert outcome(database, middle) is not None
    assert worker.claim() == [], "the first run is still at work"
    assert worker.complete(held) == "cancelled"
    assert worker.claim_one().run_id == last


def test_a_replacement_keeps_its_own_start_time(database: Database, conn: Connection) -> None:
    database.clock.stop()
    start(conn, key="k")
    new = start(conn, key="k", on_duplicate="replace", delay="1 hour")
    drain(conn)
    drain(conn)
    worker = Worker(database)
    assert worker.claim() == []
    database.clock.advance(hours=1)
    assert worker.claim_one().run_id == new


def test_a_delay_and_a_start_time_hold_the_run_back_until_then(database: Database, conn: Connection) -> None:
    now = database.clock.stop("2030-01-01 12:00+00")
    delayed = start(conn, delay="90 minutes")
    timed = start(conn, start_at="2030-01-01 14:00+00")
    worker = Worker(database)
    assert worker.claim(10) == []
    assert state(database, delayed) == state(database, timed) == "scheduled"
    database.clock.advance(minutes=90)
    assert [held.run_id for held in worker.claim(10)] == [delayed]
    database.clock.advance(minutes=30)
    assert [held.run_id for held in worker.claim(10)] == [timed]
    assert now < database.clock.now()


@pytest.mark.parametrize("moment", ["-infinity", "1999-12-31 23:59+00"])
def test_a_start_time_in_the_past_means_now(database: Database, conn: Connection, moment: str) -> None:
    run_id = start(conn, start_at=moment)
    assert Worker(database).claim_one().run_id == run_id


def test_a_start_time_in_the_past_is_no_place_before_others(database: Database, conn: Connection) -> None:
    first, second = start(conn), start(conn, start_at="-infinity")
    [(third,)] = conn.execute(
        "select run_id from perdure.start_many('order', '{1}', start_at => '1999-01-01')"
    ).fetchall()
    assert [held.run_id for held in Worker(database).claim(10)] == [first, second, third]


@pytest.mark.parametrize(
    "deadline", ["infinity", "-infinity", "0001-01-01 00:00+00", "9999-12-31 23:59+00", "4000-01-01 BC"]
)
def test_a_deadline_that_not_every_worker_could_read_is_refused(conn: Connection, deadline: str) -> None:
    with pytest.raises(psycopg.Error, match="deadline must lie between the years 1900 and 9999") as refused:
        start(conn, deadline=deadline)
    assert refused.value.sqlstate == "22023"


def test_a_run_that_starts_at_infinity_waits_and_can_be_cancelled(database: Database, conn: Connection) -> None:
    run_id = start(conn, start_at="infinity")
    assert Worker(database).claim() == []
    assert state(database, run_id) == "scheduled"
    act(conn, "cancel", run_id)
    drain(conn)
    assert outcome(database, run_id) == "cancelled"


@pytest.mark.parametrize(
    "options",
    [
        {"start_at": "2030-01-01", "delay": "1 second"},
        {"deadline": "2030-01-01", "timeout": "1 second"},
    ],
)
def test_options_that_exclude_each_other_are_refused(conn: Connection, options: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error) as refused:
        start(conn, **options)
    assert refused.value.sqlstate == "22023"


def test_a_run_takes_the_defaults_of_its_workflow(database: Database, conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('order', 'fast', timeout => '1 hour', max_recoveries => 3)")
    database.clock.stop()
    start(conn)
    held = Worker(database, queues=["fast"]).claim_one()
    row = dispatch(database, held.run_id)
    assert (row["queue"], row["max_recoveries"]) == ("fast", 3)
    assert (held.row["deadline"] - database.clock.now()).total_seconds() == 3600


def test_a_deadline_takes_the_place_of_the_workflows_timeout(database: Database, conn: Connection) -> None:
    conn.execute("select perdure.put_workflow('order', timeout => '1 hour')")
    now = database.clock.stop()
    start(conn, deadline="2099-01-01 00:00+00")
    held = Worker(database).claim_one()
    assert held.row["deadline"].year == 2099 and now.year < 2099


def test_start_many_answers_each_input_in_order(database: Database, conn: Connection) -> None:
    rows = call(conn, "start_many", workflow="order", inputs=[Jsonb({"n": n}) for n in range(50)])
    assert [row["ordinal"] for row in rows] == list(range(1, 51))
    assert all(row["is_new"] for row in rows)
    claimed = {held.run_id: held.row["input"]["n"] for held in Worker(database).claim(50)}
    assert [claimed[row["run_id"]] for row in rows] == list(range(50))


def test_start_many_spreads_its_runs_so_that_no_two_are_ready_at_the_same_time(
    database: Database, conn: Connection
) -> None:
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(100)])
    assert database.value("select count(distinct ready_at) from perdure.dispatch") == 100


def test_start_many_attaches_by_key_and_leaves_null_keys_alone(conn: Connection) -> None:
    old = start(conn, key="b", input=ONE)
    rows = call(
        conn,
        "start_many",
        workflow="order",
        inputs=[Jsonb(ONE)] * 5,
        keys=["a", "b", None, None, "a"],
    )
    assert [row["is_new"] for row in rows] == [True, False, True, True, False]
    assert rows[1]["run_id"] == old and rows[4]["run_id"] == rows[0]["run_id"]


def test_start_many_of_nothing_is_nothing(conn: Connection) -> None:
    assert call(conn, "start_many", workflow="order", inputs=[]) == []


def test_start_many_starts_all_or_none(database: Database, conn: Connection) -> None:
    start(conn, key="b", input=ONE)
    with pytest.raises(psycopg.Error) as refused:
        call(conn, "start_many", workflow="order", inputs=[Jsonb(OTHER)] * 2, keys=["a", "b"])
    assert refused.value.sqlstate == "PD005"
    assert database.value("select count(*) from perdure.run") == 1


def test_the_ids_of_runs_are_ordered_by_time(conn: Connection) -> None:
    ids = [start(conn) for _ in range(20)]
    assert ids == sorted(ids)
    assert {run_id.version for run_id in ids} == {7}


def test_a_virtual_clock_rules_ids_too(database: Database, conn: Connection) -> None:
    database.clock.stop("2001-02-03 04:05:06+00")
    millis = start(conn).int >> 80
    assert millis == database.clock.now().timestamp() * 1000


def test_unknown_names_can_be_allowed(database: Database, conn: Connection) -> None:
    call(conn, "put_setting", name="allow_unknown_names", value=Jsonb(True))
    start(conn, workflow="not yet", queue="neither")
    assert eventually(lambda: Worker(database, workflows=["not yet"], queues=["neither"]).claim())
