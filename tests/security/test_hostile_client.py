"""What a lawful client can pass, and stop nobody else by it."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from perdure import App, Signal
from support.database import Database, eventually
from support.engine import call, start
from support.hostile import role_of

UNREADABLE = {
    "a number of 5,000 digits": "1" * 5000,
    "nested 3,000 deep": "[" * 3000 + "]" * 3000,
    "an object nested 3,000 deep": '{"a":' * 3000 + "1" + "}" * 3000,
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_an_input_that_python_cannot_read_holds_up_its_own_run_alone(database: Database, text: str) -> None:
    await neighbours_go_on(database, text, "input")


async def test_a_signal_that_python_cannot_read_holds_up_its_own_run_alone(database: Database) -> None:
    await neighbours_go_on(database, "1" * 5000, "signal")


async def neighbours_go_on(database: Database, text: str, where: str) -> None:
    app = App(database.dsn())
    told = Signal("told", Any)

    @app.workflow()
    async def order(run: Any, input: Any) -> str:
        if where == "signal":
            await run.wait_signal(told)
        return "done"

    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    bad = start(conn) if where == "signal" else conn.execute("select perdure.start('order', %s)", [text]).fetchone()[0]
    others = [start(conn, input=Jsonb(n)) for n in range(5)]
    async with app.worker(max_runs=10):
        if where == "signal":
            await asyncio.to_thread(
                database.wait_until,
                "select count(*) = 6 from perdure.dispatch where waits is not null",
                seconds=60,
            )
            conn.execute("select perdure.signal(%s, 'told', %s)", [bad, text])
            for run_id in others:
                conn.execute("select perdure.signal(%s, 'told')", [run_id])

        def ended() -> bool:
            rows = call(database.admin, "run_results", run_ids=others)
            return all(row["status"] == "completed" for row in rows)

        await asyncio.to_thread(eventually, ended, seconds=60)
        await asyncio.to_thread(
            database.wait_until, "select is_paused from perdure.dispatch where run_id = %s", bad, seconds=60
        )
    assert "cannot be read" in database.value("select pause_reason from perdure.runs where run_id = %s", bad)


@pytest.mark.parametrize("deadline", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC", "9999-12-31 23:59-12"])
def test_a_deadline_that_no_driver_can_read_is_refused_at_the_door(granted: Database, deadline: str) -> None:
    granted.connect().execute("select perdure.put_workflow('order')")
    with pytest.raises(errors.InvalidParameterValue, match="deadline"):
        start(granted.connect(role_of("client")), deadline=deadline)


def test_no_combination_of_extreme_times_stops_the_engine_for_others(granted: Database) -> None:
    """Each that is let in is then met by drains, claims, ticks and every view, beside an ordinary run."""
    owner = granted.connect()
    owner.execute("select perdure.put_workflow('order')")
    client = granted.connect(role_of("client"))
    let_in = 0
    for options in extremes():
        try:
            run_id = start(client, **options)
        except psycopg.Error as error:
            if error.sqlstate not in ("22023", "22008", "22007", "22003"):
                raise
            continue
        let_in += 1
        if "grace" not in options:
            call(client, "cancel", run_id=run_id, grace="100 years")
    assert let_in > 10
    ordinary = start(client)
    worker = granted.connect(role_of("worker"))
    worker_id = call(worker, "register_worker", queues=["default"], workflows=["order"])[0]["register_worker"]
    taken = set()
    for _ in range(3):
        call(worker, "tick")
        taken |= {row["run_id"] for row in call(worker, "claim_runs", worker_id=worker_id, max_runs=1000)}
    assert ordinary in taken
    for (name,) in granted.admin.execute(
        "select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'"
    ).fetchall():
        granted.admin.execute(f"select t::text from perdure.{name} as t")
    for (run_id,) in granted.admin.execute("select run_id from perdure.run").fetchall():
        call(owner, "explain", run_id=run_id)


def extremes() -> list[dict[str, Any]]:
    times = [
        "infinity",
        "-infinity",
        "294276-12-31 23:59:59+00",
        "4713-01-01 BC",
        "9998-12-31",
        "0001-01-02",
        "2000-01-01",
    ]
    spans = ["0", "100 years", "-1 microsecond", "178000000 years", "1200 months -36500 days", "0.000001 seconds"]
    return [
        *({"start_at": at} for at in times),
        *({"deadline": at} for at in times),
        *({"delay": span} for span in spans),
        *({"timeout": span} for span in spans),
        *({"start_at": at, "timeout": span} for at in times for span in spans),
        *({"delay": span, "deadline": at} for at in times for span in spans),
    ]


def test_a_worker_cannot_make_explain_fail_for_others_by_what_it_beats(granted: Database) -> None:
    worker = granted.connect(role_of("worker"))
    worker_id = call(worker, "register_worker", queues=["default"], workflows=["order"])[0]["register_worker"]
    for activity in ("[1]", '[{"run_id": "x"}]', '[{"since": "then"}]', '["a"]', "[[]]", '{"a": 1}', "null"):
        with pytest.raises(psycopg.DataError):
            worker.execute("select perdure.beat(%s, 1, %s)", [worker_id, activity])
