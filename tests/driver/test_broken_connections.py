"""A connection that breaks under a transaction step: it decides nothing, unless the step does it again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import perdure
from perdure._transactions import _MAX_BREAKS
from support.aio import until
from support.database import Database
from support.proxy import Proxy

Conn = psycopg.AsyncConnection[Any]
END = timedelta(seconds=60)


@pytest.fixture
def app(database: Database) -> perdure.App:
    return perdure.App(database.dsn())


@pytest.fixture(autouse=True)
def ledger(request: pytest.FixtureRequest) -> None:
    name = "own_database" if "own_database" in request.fixturenames else "database"
    conn = request.getfixturevalue(name).connect()
    conn.execute("create table public.ledger (n int); create sequence public.times")
    conn.execute("""
        create function public.end_my_session() returns trigger language plpgsql as $$
        begin
          if nextval('public.times') <= tg_argv[0]::int then
            perform pg_terminate_backend(pg_backend_pid());
            perform pg_sleep(10);
          end if;
          return null;
        end $$
    """)


def end_session_at_commit(database: Database, times: int) -> None:
    database.connect().execute(
        "create constraint trigger ending after insert on public.ledger deferrable initially deferred"
        f" for each row execute function public.end_my_session({times})".encode()
    )


def terminate(database: Database, conn: Conn) -> None:
    assert database.value("select pg_terminate_backend(%s, 10000)", conn.info.backend_pid)


def check(database: Database, rows: int) -> None:
    assert database.value("select count(*) from public.ledger") == rows
    assert database.value("select count(*) from perdure.step where key = 'write'") == 1
    assert database.admin.execute("select * from perdure.violations").fetchall() == []


async def between_statements(database: Database, conn: Conn) -> None:
    terminate(database, conn)
    await conn.execute("select 1")


async def during_a_statement(database: Database, conn: Conn) -> None:
    sleeping = asyncio.create_task(conn.execute("select pg_sleep(60)"))
    await asyncio.sleep(0)
    await asyncio.to_thread(
        database.wait_until,
        "select state = 'active' and query like '%%pg_sleep(60)%%' from pg_stat_activity where pid = %s",
        conn.info.backend_pid,
    )
    terminate(database, conn)
    await sleeping


async def unnoticed_by_the_step(database: Database, conn: Conn) -> None:
    terminate(database, conn)


async def swallowed_by_the_step(database: Database, conn: Conn) -> None:
    terminate(database, conn)
    with pytest.raises(psycopg.OperationalError):
        await conn.execute("select 1")


async def told_as_an_error_of_its_own(database: Database, conn: Conn) -> None:
    terminate(database, conn)
    try:
        await conn.execute("select 1")
    except psycopg.Error as error:
        raise perdure.DoNotRetry("the ledger cannot be written") from error


@pytest.mark.parametrize(
    "breaks",
    [
        between_statements,
        during_a_statement,
        unnoticed_by_the_step,
        swallowed_by_the_step,
        told_as_an_error_of_its_own,
    ],
)
async def test_a_connection_that_breaks_before_the_save_costs_no_try(
    app: perdure.App, database: Database, breaks: Callable[[Database, Conn], Any]
) -> None:
    tries: list[int] = []

    async def write(conn: Conn) -> int:
        tries.append(perdure.current_step().attempt)
        await conn.execute("insert into public.ledger values (1)")
        if len(tries) == 1:
            await breaks(database, conn)
        return len(tries)

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> int:
        return await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)

    async with app.worker():
        handle = await app.start(writing, None)
        assert await handle.result(timeout=END) == 2
    assert tries == [1, 1]
    check(database, 1)


async def test_a_connection_that_breaks_in_the_commit_costs_no_try(app: perdure.App, database: Database) -> None:
    end_session_at_commit(database, 1)
    tries: list[int] = []

    async def write(conn: Conn) -> int:
        tries.append(perdure.current_step().attempt)
        await conn.execute("insert into public.ledger values (1)")
        return len(tries)

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> int:
        return await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)

    async with app.worker():
        handle = await app.start(writing, None)
        assert await handle.result(timeout=END) == 2
    assert tries == [1, 1]
    check(database, 1)


@pytest.mark.parametrize("where", ["in its code", "in its commit"])
async def test_a_step_that_ends_its_own_connection_again_and_again_fails_by_its_policy(
    app: perdure.App, database: Database, where: str
) -> None:
    if where == "in its commit":
        end_session_at_commit(database, 1_000)
    tries: list[int] = []

    async def write(conn: Conn) -> None:
        tries.append(perdure.current_step().attempt)
        await conn.execute("insert into public.ledger values (1)")
        if where == "in its code":
            await conn.execute("select pg_terminate_backend(pg_backend_pid()), pg_sleep(10)")

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> list[Any]:
        try:
            await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)
        except perdure.StepFailed as failed:
            return [failed.type, failed.attempts]
        return []

    async with app.worker():
        handle = await app.start(writing, None)
        assert await handle.result(timeout=END) == ["AdminShutdown", 1]
    assert tries == [1] * _MAX_BREAKS
    check(database, 0)


async def test_a_step_at_most_once_is_not_run_again_for_a_broken_connection(
    app: perdure.App, database: Database
) -> None:
    calls: list[int] = []

    @perdure.step(at_most_once=True)
    async def write(conn: Conn) -> None:
        calls.append(1)
        await conn.execute("select pg_terminate_backend(pg_backend_pid()), pg_sleep(10)")

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> str:
        try:
            await run.transaction(write)
        except perdure.StepFailed as failed:
            return failed.type
        return ""

    async with app.worker():
        handle = await app.start(writing, None)
        assert await handle.result(timeout=END) == "AdminShutdown"
    assert calls == [1]


async def test_a_step_whose_run_was_lost_with_its_connection_tells_of_no_try(
    app: perdure.App, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    async def write(conn: Conn) -> int:
        tries.append(perdure.current_step().attempt)
        await conn.execute("insert into public.ledger values (1)")
        if len(tries) == 1:
            database.admin.execute("select perdure.stop_worker(worker_id) from perdure.worker")
            await between_statements(database, conn)
        return len(tries)

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> int:
        return await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)

    with caplog.at_level(logging.WARNING, "perdure"):
        async with app.worker():
            handle = await app.start(writing, None)
            assert await handle.result(timeout=END) == 2
    assert tries == [1, 1]
    assert "runs again from its beginning" not in caplog.text, "it was told of the loss instead"
    check(database, 1)


async def test_a_limit_of_the_server_on_idle_transactions_is_a_failed_try(app: perdure.App, database: Database) -> None:
    database.connect().execute(
        f'alter database "{database.name}" set idle_in_transaction_session_timeout = 100'.encode()
    )
    tries: list[int] = []

    async def write(conn: Conn) -> None:
        tries.append(perdure.current_step().attempt)
        await asyncio.to_thread(
            database.wait_until,
            "select not exists (select from pg_stat_activity where pid = %s)",
            conn.info.backend_pid,
        )
        await conn.execute("insert into public.ledger values (1)")

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> str:
        try:
            await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)
        except perdure.StepFailed as failed:
            return failed.type
        return ""

    async with app.worker():
        handle = await app.start(writing, None)
        assert await handle.result(timeout=END) == "IdleInTransactionSessionTimeout"
    assert tries == [1]


async def test_a_restart_of_the_server_costs_no_try(own_database: Database) -> None:
    database, server = own_database, own_database.server.server
    app = perdure.App(database.dsn())
    tries: list[int] = []

    async def write(conn: Conn) -> int:
        tries.append(perdure.current_step().attempt)
        await conn.execute("insert into public.ledger values (1)")
        if len(tries) == 1:
            database.close()
            await asyncio.to_thread(server.restart, "fast")
            await conn.execute("select 1")
        return len(tries)

    @app.workflow()
    async def writing(run: perdure.AsyncRun, _: None) -> int:
        return await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)

    async with app.worker():
        await app.start(writing, None)
        await until(lambda: len(tries) == 2, seconds=60)
        await asyncio.to_thread(database.wait_until, "select exists (select from perdure.outcome)", seconds=60)
    assert tries == [1, 1]
    check(database, 1)


async def test_a_pooler_that_hangs_up_costs_no_try(database: Database) -> None:
    tries: list[int] = []
    with Proxy(database.dsn()) as proxy:
        app = perdure.App(proxy.dsn)

        async def write(conn: Conn) -> int:
            tries.append(perdure.current_step().attempt)
            await conn.execute("insert into public.ledger values (1)")
            while len(tries) == 1:  # what it cuts may be another connection of the worker
                proxy.cut_next("unsent")
                await conn.execute("select 1")
            return len(tries)

        @app.workflow()
        async def writing(run: perdure.AsyncRun, _: None) -> int:
            return await run.options(retry=perdure.Retry(max_attempts=1)).transaction(write)

        async with app.worker():
            handle = await perdure.App(database.dsn()).start(writing, None)
            assert await handle.result(timeout=END) == 2
    assert tries == [1, 1]
    check(database, 1)


@pytest.mark.parametrize(("own", "limit"), [("0", "5min"), ("1h", "5min"), ("7s", "7s")])
async def test_a_transaction_step_may_be_idle_for_ten_leases_and_for_no_longer_than_it_may_be_anyway(
    app: perdure.App, database: Database, own: str, limit: str
) -> None:
    database.connect().execute(
        f"alter database \"{database.name}\" set idle_in_transaction_session_timeout = '{own}'".encode()
    )

    @app.workflow()
    async def looking(run: perdure.AsyncRun, _: None) -> str:
        shown: str = await run.sql("look", "select current_setting('idle_in_transaction_session_timeout')")
        return shown

    async with app.worker():
        assert await (await app.start(looking, None)).result(timeout=END) == limit
