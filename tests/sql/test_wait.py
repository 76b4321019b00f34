"""suspend_runs: sets of waits, one answer per call, sleeps of any length, time-outs that stay."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import Connection, Worker, a_run, act, dispatch, drain, keys, signal, start, state, steps, wait

NOON = "2030-01-01 12:00+00"


def test_a_run_sleeps_until_its_time_and_no_longer(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until="2030-01-01 13:00+00"))
    assert state(database, held.run_id) == "sleeping"
    database.clock.advance("59 minutes 59.999999 seconds")
    assert worker.claim() == []
    database.clock.advance("1 microsecond")
    [step] = worker.claim_one().steps
    assert (step["key"], step["kind"], "result" in step, "error" in step) == ("nap", "sleep", False, False)


def test_a_sleep_that_is_over_is_answered_at_once(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    for until in ("-infinity", "1970-01-01T00:00:00Z", NOON):
        assert worker.suspend(held, wait(until, "sleep", until=until)) == "answered"
    assert held.run_id in worker.runs()


@pytest.mark.parametrize("until", ["infinity", None])
def test_a_sleep_without_end_lasts_until_somebody_acts(database: Database, conn: Connection, until: str | None) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until=until))
    database.clock.advance("900 years")
    worker.beat()
    assert worker.claim() == []
    act(conn, "cancel", held.run_id)
    assert worker.claim_one().cancel == "cancelled"


def test_a_sleep_of_a_century_costs_nothing_and_ends(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until="2130-01-01 12:00+00"))
    database.clock.advance("100 years")
    assert [step["key"] for step in worker.claim_one().steps] == ["nap"]


def test_a_clock_set_back_only_delays(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until="2030-01-01 12:10+00"))
    database.clock.advance("-1 hour")
    assert worker.claim() == []
    database.clock.advance("70 minutes")
    assert worker.claim_one().run_id == held.run_id


def test_a_wait_that_times_out_says_so_and_keeps_saying_it(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(held, wait("w", until="2030-01-01 12:10+00"))
    database.clock.advance(minutes=10)
    again = worker.claim_one()
    assert [(step["kind"], "result" in step) for step in again.steps] == [("signal", False)]
    signal(conn, held.run_id, "w")
    worker.release(again)
    assert "result" not in worker.claim_one().steps[0]
    assert database.value("select signal_id from perdure.step") is None


def test_of_a_set_of_waits_one_is_answered_the_first_asked_for(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for name in ("c", "b"):
        signal(conn, held.run_id, name, {"name": name})
    waits = [wait("a"), wait("b"), wait("c"), wait("t", "timer", until="-infinity")]
    got = []
    while (row := worker.suspend_row(held, *waits))["answer"] == "answered":
        got.append(row["checkpoint"]["key"])
        waits = [each for each in waits if each["key"] != got[-1]]
    assert got == ["b", "c", "t"]
    assert [step["ordinal"] for step in steps(database, held.run_id)] == [1, 2, 3]
    assert dispatch(database, held.run_id)["waits"] == [wait("a")]


def test_the_loser_of_a_race_keeps_its_message(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("a"), wait("b"))
    signal(conn, held.run_id, "a")
    signal(conn, held.run_id, "b", {"n": 2})
    again = worker.claim_one()
    assert [step["key"] for step in again.steps] == ["a"]
    assert worker.suspend_row(again, wait("later", name="b"))["checkpoint"]["result"] == {"n": 2}


def test_the_first_of_several_times_wakes_the_run(database: Database, conn: Connection) -> None:
    database.clock.stop(NOON)
    worker, held = a_run(database)
    worker.suspend(
        held,
        wait("late", "timer", until="2030-01-01 14:00+00"),
        wait("early", "timer", until="2030-01-01 13:00+00"),
        wait("never"),
    )
    database.clock.advance(hours=1)
    assert [step["key"] for step in worker.claim_one().steps] == ["early"]


def test_a_suspension_carries_the_last_saves(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("w"), saves=[held.save("a"), held.save("b")])
    signal(conn, held.run_id, "w")
    assert [step["key"] for step in worker.claim_one().steps] == ["a", "b", "w"]
    assert [step["ordinal"] for step in steps(database, held.run_id)] == [1, 2, 3]


def test_a_look_keeps_the_claim(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    assert worker.suspend(held, wait("w"), keep=True) == "waiting"
    assert worker.suspend(held, keep=True) == "waiting"
    assert dispatch(database, held.run_id)["waits"] is None
    signal(conn, held.run_id, "w")
    drain(conn)
    assert worker.beat(1)["runs"][0]["is_told"] is True
    assert worker.suspend(held, wait("w"), keep=True) == "answered"
    assert worker.beat(1)["runs"] == [], "it has looked"
    assert worker.save(held, "a") == "saved"


def test_a_look_brings_a_cancel_once(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "cancel", held.run_id)
    assert worker.suspend_row(held, keep=True)["checkpoint"]["kind"] == "cancel"
    assert worker.suspend(held, keep=True) == "waiting"
    assert keys(database, held.run_id) == ["~cancel"]


def test_many_runs_suspend_in_one_call_each_answered(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    for _ in range(3):
        start(conn)
    asleep, told, ended = worker.claim(3)
    signal(conn, told.run_id, "w")
    act(conn, "terminate", ended.run_id)
    rows = worker.call("suspend_runs", suspensions=[held.named(waits=[wait("w")]) for held in (asleep, told, ended)])
    assert {row["run_id"]: row["answer"] for row in rows} == {
        asleep.run_id: "suspended",
        told.run_id: "answered",
        ended.run_id: "ended",
    }


BAD_WAITS: list[Any] = [
    None,
    [],
    {},
    [{"kind": "sleep"}],
    [{"key": "", "kind": "sleep"}],
    [{"key": "x" * 1001, "kind": "sleep"}],
    [{"key": "w"}],
    [{"key": "w", "kind": "dream"}],
    [{"key": "w", "kind": "signal"}],
    [{"key": "ok", "kind": "sleep"}, {"key": "w", "kind": "signal"}],
]


def test_a_wait_that_nothing_could_end_is_refused(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    for waits in BAD_WAITS:
        with pytest.raises(psycopg.Error) as refused:
            worker.call("suspend_runs", suspensions=Jsonb([held.named(waits=waits)]))
        assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("22023", True), waits
    assert held.run_id in worker.runs()


def test_a_wait_whose_key_is_on_record_is_answered_from_it(database: Database, conn: Connection) -> None:
    """It would otherwise fail in every claim that answers it, and stop the whole queue."""
    worker, held = a_run(database)
    worker.save(held, "w", {"n": 1})
    row = worker.suspend_row(held, wait("w"))
    assert (row["answer"], row["checkpoint"]["result"], row["checkpoint"]["kind"]) == ("answered", {"n": 1}, "step")
