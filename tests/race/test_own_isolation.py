"""What the driver does on connections of its own holds under any default isolation: nobody but it could try again."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.types.json import Jsonb

import perdure
from perdure.cli.root import cli
from support import isolation
from support.aio import until
from support.database import Database, in_background
from support.engine import Connection, act, start
from support.suite import run_suite

ROOT = Path(__file__).parents[2]
LEVELS = ("repeatable read", "serializable")
SHARE = [
    "tests/race/test_clients.py",
    "tests/driver/test_client.py",
    "tests/sql/test_psql_worker.py",
    "-k",
    "second or two or opposite or older or psql",
]


@pytest.fixture(params=LEVELS)
def strict(request: pytest.FixtureRequest, database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database in which every session begins its transactions so, and no test is helped."""
    monkeypatch.setattr(isolation, "LEVEL", "")
    database.admin.execute(
        f"alter database {database.name} set default_transaction_isolation = '{request.param}'".encode()
    )
    database.close()
    database.connect().execute("select perdure.put_workflow('order')")
    return database


@pytest.fixture
def rival(strict: Database) -> Iterator[Connection]:
    """Somebody in READ COMMITTED, whose open transaction others meet."""
    made = strict.connect(strict.superuser, autocommit=False)
    made.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    yield made
    made.close()


def backend(database: Database, name: str, event: str) -> int:
    """Wait until a session of this name is seen waiting so; return its pid."""
    pid: int = database.wait_until(
        "select max(pid) from pg_stat_activity where datname = current_database() and application_name like %s"
        " and wait_event_type = %s", name, event, seconds=60,
    )  # fmt: skip
    return pid


async def test_a_worker_starts_beside_an_open_change_of_its_workflow(strict: Database, rival: Connection) -> None:
    app = perdure.App(strict.dsn())

    @app.workflow()
    async def double(run: perdure.AsyncRun, n: int) -> int:
        return 2 * n

    rival.execute("select perdure.put_workflow('double', timeout => '1 hour')")

    async def work() -> int:
        async with app.worker():
            return await (await app.start(double, 21)).result(timeout=timedelta(seconds=60))

    working = asyncio.create_task(work())
    await asyncio.to_thread(backend, strict, "perdure worker%", "Lock")
    rival.commit()
    assert await working == 42


async def test_a_worker_signs_off_beside_an_open_look_at_its_run(
    strict: Database, rival: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The run that it could not finish goes back to ready, which counts as no death."""
    app = perdure.App(strict.dsn())
    begun = asyncio.Event()

    @perdure.step
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    @app.workflow()
    async def order(run: perdure.AsyncRun, n: int) -> None:
        await run.step(endless)

    run_id = (await app.start(order, 1)).id
    ready, stop = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        async with app.worker(stop_timeout=timedelta(0)):
            ready.set()
            await stop.wait()

    with caplog.at_level(logging.WARNING, logger="perdure"):
        working = asyncio.create_task(work())
        await begun.wait()
        act(strict.connect(), "pause", run_id)
        rival.execute("select from perdure.worker for key share")  # as the fence of one of its own transactions does
        stop.set()
        await asyncio.to_thread(backend, strict, "perdure worker%", "Lock")
        rival.execute("select perdure.drain()")
        rival.commit()
        await working
    assert not [record for record in caplog.records if "sign off" in record.message]
    assert strict.value("select count(*) from perdure.worker") == 0
    row = strict.value("select to_jsonb(d) from perdure.dispatch as d where run_id = %s", run_id)
    assert (row["worker_id"], row["recoveries"]) == (None, 0)


async def test_beats_take_no_part_in_what_serializable_clients_are_judged_by(strict: Database) -> None:
    """No predicate lock of theirs outlives them while a client's transaction is open."""
    app = perdure.App(strict.dsn())

    @app.workflow()
    async def double(run: perdure.AsyncRun, n: int) -> int:
        return 2 * n

    beats = "select count(*) > 0 from perdure.worker_beat where beat_at > %s"
    async with app.worker():
        client = strict.connect(autocommit=False)
        client.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        start(client, workflow="double", input=Jsonb(1))
        for _ in range(2):
            now = strict.value("select clock_timestamp()")
            await until(lambda: strict.value(beats, now), seconds=60, what="a beat")  # noqa: B023
        assert strict.value(
            "select array_agg(distinct l.pid) from pg_locks as l where l.mode = 'SIReadLock' and l.pid <> all (%s)",
            [client.info.backend_pid, strict.admin.info.backend_pid],
        ) is None  # fmt: skip
        client.commit()


async def test_a_start_of_the_apps_own_attaches_to_a_rivals_run(strict: Database, rival: Connection) -> None:
    app = perdure.App(strict.dsn())

    @app.workflow()
    async def double(run: perdure.AsyncRun, n: int) -> int:
        return 2 * n

    await app.register()
    for kept in (False, True):
        key = f"kept {kept}"
        run_id = start(rival, workflow="double", input=Jsonb(1), key=key)
        if kept:
            await app.__aenter__()
        starting = asyncio.create_task(app.start(double, 1, key=key))
        await asyncio.to_thread(backend, strict, "perdure client%", "Lock")
        rival.commit()
        handle = await starting
        assert (handle.id, handle.is_new) == (run_id, False)
    await app.__aexit__()


@pytest.mark.parametrize("command", ["start", "signal"])
def test_a_command_that_meets_another_client_says_what_became_of_it(
    strict: Database, rival: Connection, command: str
) -> None:
    run_id = start(rival, key="k", input={})
    rival.commit()
    if command == "start":
        words = ["start", "order", "{}", "--key", "new"]
        expected = start(rival, key="new", input={})
    else:
        words = ["signal", str(run_id), "paid", "1", "--id", "7"]
        rival.execute("select perdure.signal(%s, 'paid', '1', '7')", [run_id])
        expected = run_id

    def say() -> Result:
        return CliRunner().invoke(cli, words, env={"PERDURE_DSN": strict.dsn()}, catch_exceptions=False)

    saying = in_background(say)
    backend(strict, "perdure", "Lock")
    rival.commit()
    said = saying.result(timeout=60)
    assert said.exit_code == 0, said.output
    assert (str(expected) if command == "start" else "duplicate") in said.output, said.output
    assert strict.value("select count(*) from perdure.violations") == 0


def test_the_list_of_what_cannot_hold_names_tests_that_exist() -> None:
    for name, (level, _, reason) in isolation.EXCLUDED.items():
        file, _, function = name.partition("[")[0].partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"^(async )?def {re.escape(function)}\(", text, re.MULTILINE), name
        assert level in ("", *LEVELS)
        assert len(reason.split()) > 5, f"{name} needs a reason"


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_the_suite_holds_under_another_default(level: str) -> None:
    """A share of it: what clients, an app and a worker do where they meet. The rest is asked for by hand."""
    if isolation.LEVEL:
        pytest.skip("this is the mode")
    run_suite(*SHARE, **{isolation.VARIABLE: level})
