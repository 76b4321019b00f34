"""Behind PgBouncer in transaction mode all goes on, and nothing of a session is left in its backends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from typing_extensions import LiteralString

import perdure
from perdure.cli.root import cli
from support.aio import until
from support.database import Database, eventually
from support.pgbouncer import PgBouncer
from support.scene import Scene

from .conftest import Pool

PATIENCE = timedelta(seconds=60)
PAID = perdure.Signal("paid", int)


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """Worker processes that leave their traces by a connection of their own, beside the pooler."""
    made = Scene(database)
    made.prepare()
    yield made
    made.close()


def behind(bouncer: PgBouncer, scene: Scene, **settings: str) -> Any:
    return scene.worker(dsn=bouncer.dsn(scene.database), trace_dsn=scene.database.dsn(), **settings)


TICKED = "select ticked_at from perdure.timeline"
BEATEN = "select max(b.beat_at) from perdure.worker_beat as b"


async def until_changed(database: Database, what: LiteralString, *, times: int) -> None:
    """Wait until a query has had so many other answers."""
    seen = {database.value(what)}
    await until(lambda: seen.add(database.value(what)) or len(seen) > times, seconds=60, what=what)


async def add(a: int, b: int) -> int:
    return a + b


async def test_all_that_a_worker_and_its_clients_do_works_with_a_single_backend(pool: Pool, database: Database) -> None:
    bouncer = pool(default_pool_size=1, query_wait_timeout=0)
    app = perdure.App(bouncer.dsn(database))

    async def book(conn: psycopg.AsyncConnection[Any], n: int) -> int:
        cursor = await conn.execute("select %s + 1", [n])
        [row] = await cursor.fetchall()
        booked: int = row[0]
        return booked

    @app.workflow()
    async def order(run: perdure.AsyncRun, n: int) -> int:
        booked = await asyncio.gather(*[run.options(key=f"b{i}").transaction(book, n + i) for i in range(3)])
        await run.sleep(timedelta(milliseconds=1))
        total = await run.step(add, sum(booked), await run.wait_signal(PAID))
        return await run.sql("double", "select %(total)s::int * 2", {"total": total})

    await app.register()
    async with app.worker():
        handles = [await app.start(order, n, key=f"order-{n}") for n in range(5)]
        for handle in handles:
            assert await handle.signal(PAID, 1) == "accepted"
        for n, handle in enumerate(handles):
            assert await handle.result(timeout=PATIENCE) == 2 * (3 * n + 6 + 1)
        async with await psycopg.AsyncConnection.connect(bouncer.dsn(database), prepare_threshold=None) as conn:
            mine = await app.using(conn).start(order, 100)
            await conn.rollback()
            async with conn.transaction():
                other = await app.using(conn).start(order, 7)
                await app.using(conn).signal(order, "order-1", PAID, 1)
        with pytest.raises(perdure.RunNotFound):
            await app.handle(order, mine.id).result()
        handle = app.handle(order, other.id)
        await handle.cancel()
        with pytest.raises(perdure.RunCancelled):
            await handle.result(timeout=PATIENCE)
    assert database.value("select count(*) from perdure.worker") == 0, "it signed off"
    assert database.value("select count(*) from perdure.violations") == 0


async def test_a_transaction_step_may_be_idle_for_ten_leases_here_too(pool: Pool, database: Database) -> None:
    app = perdure.App(pool(default_pool_size=1, query_wait_timeout=0).dsn(database))

    @app.workflow()
    async def looking(run: perdure.AsyncRun, _: None) -> str:
        shown: str = await run.sql("look", "select current_setting('idle_in_transaction_session_timeout')")
        return shown

    async with app.worker():
        assert await (await app.start(looking, None)).result(timeout=PATIENCE) == "5min"


@pytest.mark.slow
async def test_nothing_of_a_session_stays_in_the_backends(pool: Pool, database: Database) -> None:
    bouncer = pool(default_pool_size=1, query_wait_timeout=0)
    app = perdure.App(bouncer.dsn(database))
    settings = "select name, setting from pg_settings"

    async def book(conn: psycopg.AsyncConnection[Any]) -> None:
        await conn.execute("select 1")

    @app.workflow()
    async def order(run: perdure.AsyncRun, n: int) -> int:
        for i in range(6):
            await run.step(add, i, n)
            await run.transaction(book)
        return n

    with psycopg.connect(bouncer.dsn(database), autocommit=True, prepare_threshold=None) as conn:
        before = dict(conn.execute(settings).fetchall())
        async with app.worker():
            for n in range(6):
                assert await (await app.start(order, n)).result(timeout=PATIENCE) == n
            # as often as what is done each second would be prepared
            await asyncio.gather(*[until_changed(database, what, times=5) for what in (TICKED, BEATEN)])
            left = conn.execute(
                "select (select count(*) from pg_prepared_statements), (select count(*) from pg_cursors),"
                " (select count(*) from pg_listening_channels()),"
                " (select count(*) from pg_locks as l where l.locktype = 'advisory' and l.pid = pg_backend_pid()),"
                " (select count(*) from pg_class as c where c.relpersistence = 't')"
            ).fetchone()
            assert left == (0, 0, 0, 0, 0)
            after = dict(conn.execute(settings).fetchall())
    after["application_name"] = before["application_name"]  # PgBouncer's own: it tells the server who uses it
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
async def test_a_question_of_a_run_does_not_wait_for_its_transaction_for_ever(pool: Pool, database: Database) -> None:
    bouncer = pool(default_pool_size=1, query_wait_timeout=0)
    app = perdure.App(bouncer.dsn(database))
    tries = 0

    async def book(conn: psycopg.AsyncConnection[Any]) -> str:
        nonlocal tries
        tries += 1
        await conn.execute("select 1")  # the only backend is this transaction's now
        await until(lambda: tries > 1 or waiting() >= 3, seconds=30)  # beat, ticks, and the look at the timer
        return "booked"

    def waiting() -> int:
        return sum(
            row["state"] == "waiting" and row["application_name"].startswith("perdure worker")
            for row in bouncer.tell("show clients")
        )

    @app.workflow()
    async def order(run: perdure.AsyncRun, n: int) -> str:
        first, _ = await run.race(late=run.sleep(timedelta(milliseconds=300)), booked=run.transaction(book))
        return first

    async with app.worker():
        while not tries:  # the timer was first
            assert await (await app.start(order, 1)).result(timeout=PATIENCE) in ("late", "booked")
    assert database.value("select count(*) from perdure.violations") == 0


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_worker_finds_out_that_it_is_behind_a_pooler(pool: Pool, database: Database, mode: str) -> None:
    bouncer = pool(pool_mode=mode)
    app = perdure.App(bouncer.dsn(database))

    @app.workflow()
    async def idle(run: perdure.AsyncRun, n: int) -> int:
        return n

    async with app.worker():
        assert database.value("select bool_or(is_direct) from perdure.worker") is False
        assert await (await app.start(idle, 3)).result(timeout=PATIENCE) == 3


async def test_statement_mode_is_refused_with_what_to_do(pool: Pool, database: Database) -> None:
    bouncer = pool(pool_mode="statement")
    app = perdure.App(bouncer.dsn(database))

    @app.workflow()
    async def idle(run: perdure.AsyncRun, n: int) -> int:
        return n

    with pytest.raises(perdure.Misuse, match="Set pool_mode = transaction"):
        async with app.worker():
            pass
    assert database.value("select count(*) from perdure.worker") == 0


@pytest.mark.slow
def test_a_worker_killed_behind_a_pooler_is_found_dead_by_its_lease(pool: Pool, scene: Scene) -> None:
    bouncer = pool()
    scene.start_many("slow", 20)
    doomed = behind(bouncer, scene, lease="2")
    eventually(lambda: scene.row("select count(*) > 0 from public.trace")[0], seconds=30)
    os.kill(doomed.pid, signal.SIGSTOP)  # first frozen, so that it surely holds runs when it dies
    held = scene.row("select count(*) from perdure.dispatch where worker_id is not null")[0]
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert held > 0
    behind(bouncer, scene)
    scene.wait_completed(20)
    assert scene.row("select count(distinct key) from public.trace")[0] == 40


@pytest.mark.slow
def test_a_pooler_that_breaks_and_pauses_under_load_loses_nothing(pool: Pool, scene: Scene) -> None:
    bouncer = pool(default_pool_size=3)
    for n in range(30):
        scene.start("order", f"order-{n}", paid=True)
    scene.start_many("ledger", 30)
    scene.start_many("slow", 60)
    workers = [behind(bouncer, scene, lease="20") for _ in range(2)]
    scene.wait_registered(2)  # a worker that finds no database at its beginning ends and says so
    for n in range(6):
        before = scene.row("select count(*) from perdure.step")[0]
        scene.database.wait_until(
            "select count(*) > %s or not exists (select from perdure.dispatch) from perdure.step",
            before + 5,
            seconds=60,
        )
        if n % 3 == 2:
            bouncer.tell("pause")
            bouncer.tell("resume")
        elif n % 3 == 1:
            bouncer.tell("reconnect")
        else:
            bouncer.restart()
    scene.wait_completed(120, 120)
    assert all(worker.poll() is None for worker in workers)
    booked = "select count(*), count(distinct key) from public.trace where step = 'book'"
    assert scene.row(booked) == (30 + 90, 30 + 90), "a transaction step takes effect exactly once"


def test_the_command_line_works_through_a_pooler(pool: Pool, database: Database, empty_database: Database) -> None:
    bouncer = pool(default_pool_size=1)

    def typed(*words: str, into: Database = database, code: int = 0) -> str:
        environment = {"PERDURE_DSN": bouncer.dsn(into)}
        said = CliRunner().invoke(cli, list(words), env=environment, catch_exceptions=False)
        assert said.exit_code == code, said.output
        return said.output

    assert "is installed" in typed("install", into=empty_database)
    assert "is gone" in typed("uninstall", "--yes", into=empty_database)
    database.connect().execute("select perdure.put_workflow('order')")
    run = typed("start", "order", "{}", "--key", "k").split()[0]
    for words in (
        ["show", run],
        ["explain", run],
        ["runs"],
        ["signal", run, "paid", "1"],
        ["pause", run],
        ["resume", run],
    ):
        typed(*words)
    typed("cancel", run)
    assert "goes through a pooler" in typed("doctor", code=1).replace("\n" + " " * 21, " ")


def test_the_command_line_says_what_statement_mode_means(pool: Pool, database: Database) -> None:
    bouncer = pool(pool_mode="statement")
    environment = {"PERDURE_DSN": bouncer.dsn(database)}
    said = CliRunner().invoke(cli, ["doctor"], env=environment, catch_exceptions=False)
    assert said.exit_code == 1
    assert "works in statement mode" in said.output
    assert "Set pool_mode = transaction" in said.output
