"""A database that is away is asked again for as long as somebody waits; one that cannot be used is told with the cure."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import perdure
from support.aio import until
from support.database import Database, PostgresServer

END = timedelta(seconds=60)
TOLD = "results cannot be asked for, it is tried again"


def an_app(dsn: str) -> tuple[perdure.App, perdure.Workflow[int, int]]:
    app = perdure.App(dsn)

    @app.workflow(name="order")
    async def order(run: perdure.AsyncRun, n: int) -> int:
        return n

    return app, order


# A server that is away


async def test_who_waits_for_a_result_outlasts_a_restart_or_waits_no_longer_than_asked(
    own_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_database.server.server
    app, order = an_app(own_database.dsn())
    kept, _ = an_app(own_database.dsn())
    await app.register()
    handle = await app.start(order, 7)
    async with kept:
        waiting = [asyncio.create_task(each.handle(order, handle.id).result(timeout=END)) for each in (app, kept)]
        await asyncio.sleep(0)
        own_database.close()
        await asyncio.to_thread(server.stop, "immediate")
        await until(lambda: TOLD in caplog.text, seconds=60)
        with pytest.raises(perdure.TimedOut) as late:
            await handle.result(timeout=timedelta(seconds=0.5))
        assert isinstance(late.value.__cause__, psycopg.OperationalError)
        fresh, _ = an_app(own_database.dsn())
        waiting.append(asyncio.create_task(fresh.handle(order, handle.id).result(timeout=END)))
        await until(lambda: fresh._database.results._trouble, seconds=60)
        await asyncio.to_thread(server.start)
        async with app.worker():
            assert await asyncio.gather(*waiting) == [7, 7, 7]


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_connection_that_breaks_is_nothing_to_who_waits_for_a_result(database: Database, is_kept: bool) -> None:
    app, order = an_app(database.dsn())
    await app.register()
    asks = "select pid from pg_stat_activity where application_name = 'perdure client' and query like '%run_results%'"
    handle = await app.start(order, 7)
    if is_kept:
        await app.__aenter__()
    waiting = asyncio.create_task(handle.result(timeout=END))
    seen: set[int] = set()
    while len(seen) < 3 and not waiting.done():
        rows = database.admin.execute(asks.encode()).fetchall()
        for (pid,) in rows:
            seen.add(pid)
            database.value("select pg_terminate_backend(%s, 10000)", pid)
        await asyncio.sleep(0.01)
    async with app.worker():
        assert await waiting == 7
    if is_kept:
        await app.__aexit__()


async def test_nobody_is_left_asking_for_a_result_that_nobody_waits_for_any_more(database: Database) -> None:
    app, order = an_app(closed_port(database))
    with pytest.raises(perdure.TimedOut):
        await app.handle(order, uuid4()).result(timeout=timedelta(seconds=0.2))
    await until(lambda: app._database.results._task is None, seconds=60)


# One that cannot be used


def closed_port(database: Database) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return psycopg.conninfo.make_conninfo(database.dsn(), host="127.0.0.1", port=port, password="s3cret")


def no_database(database: Database) -> str:
    return database.server.dsn("no_such_database")


def no_role(database: Database) -> str:
    return psycopg.conninfo.make_conninfo(database.dsn(), user="no_such_role")


def no_connection_string(database: Database) -> str:
    return "host=localhost nonsense=1"


def no_installation(database: Database) -> str:
    database.connect().execute("drop schema perdure cascade")
    return database.dsn()


def another_installation(database: Database) -> str:
    database.connect().execute("drop function perdure.start_run, perdure.register_worker, perdure.run_results")
    return database.dsn()


def no_rights(database: Database) -> str:
    database.server.create_role("perdure_test_stranger")
    return database.dsn("perdure_test_stranger")


def read_only(database: Database) -> str:
    database.connect().execute("select perdure.put_workflow('order')")
    database.connect().execute(f'alter database "{database.name}" set default_transaction_read_only = on'.encode())
    return database.dsn()


async def starts(app: perdure.App, order: perdure.Workflow[int, int]) -> None:
    await app.start(order, 1)


async def starts_by_a_connection_of_its_own(app: perdure.App, order: perdure.Workflow[int, int]) -> None:
    async with await psycopg.AsyncConnection.connect(app._database.dsn) as conn:
        await app.using(conn).start(order, 1)


async def works(app: perdure.App, order: perdure.Workflow[int, int]) -> None:
    async with app.worker():
        pass


async def waits(app: perdure.App, order: perdure.Workflow[int, int]) -> None:
    await app.handle(order, uuid4()).result(timeout=END)


Doing = Callable[[perdure.App, perdure.Workflow[int, int]], Awaitable[None]]


@pytest.mark.parametrize(
    ("broken", "kind", "words", "who"),
    [
        (closed_port, psycopg.OperationalError, "Start the server, or name another", (starts, works)),
        (no_database, psycopg.OperationalError, "Create it (createdb)", (starts, works, waits)),
        (no_role, psycopg.OperationalError, "Name a role that exists", (starts, works, waits)),
        (no_connection_string, psycopg.ProgrammingError, "A DSN looks like postgresql://", (starts, works, waits)),
        (
            no_installation,
            psycopg.errors.InvalidSchemaName,
            "Install it with `perdure install`",
            (starts, starts_by_a_connection_of_its_own, works, waits),
        ),
        (
            another_installation,
            psycopg.errors.UndefinedFunction,
            "`perdure doctor` compares them",
            (starts, works, waits),
        ),
        (
            no_rights,
            psycopg.errors.InsufficientPrivilege,
            "select perdure.grant_role('perdure_test_stranger', '",
            (starts, starts_by_a_connection_of_its_own, works, waits),
        ),
        (
            read_only,
            psycopg.errors.ReadOnlySqlTransaction,
            "all hosts with target_session_attrs=read-write",
            (starts, starts_by_a_connection_of_its_own, works),
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_the_error_stays_psycopgs_and_tells_what_to_do(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    broken: Callable[[Database], str],
    kind: type[Exception],
    words: str,
    who: tuple[Doing, ...],
) -> None:
    app, order = an_app(broken(database))
    caplog.set_level(logging.CRITICAL)
    for doing in who:
        with pytest.raises(kind) as raised:
            await doing(app, order)
        told: Any = raised.value
        assert words in "\n".join(told.__notes__), doing
        assert len(told.__notes__) == 1
        assert "s3cret" not in told.__notes__[0]


async def test_a_wrong_password_is_told_at_once_to_who_waits_too(own_server: PostgresServer) -> None:
    own_server.create_role("perdure_test_locked")
    rules = own_server.server.directory / "data" / "pg_hba.conf"
    rules.write_text(f"local all perdure_test_locked scram-sha-256\n{rules.read_text()}")
    with own_server.admin() as conn:
        conn.execute("select pg_reload_conf()")
    dsn = own_server.dsn("postgres", "perdure_test_locked")
    for doing in (starts, works, waits):
        app, order = an_app(psycopg.conninfo.make_conninfo(dsn, password="s3cret"))
        with pytest.raises(psycopg.OperationalError, match="authentication failed") as raised:
            await doing(app, order)
        told: Any = raised.value
        assert "Put the password into" in told.__notes__[0] and "s3cret" not in told.__notes__[0]
