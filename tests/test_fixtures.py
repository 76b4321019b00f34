"""What the other tests stand on keeps its word."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from support.database import OWNER, Database, PostgresServer, in_background


def test_the_owner_is_a_plain_role(database: Database) -> None:
    row = database.connect().execute(
        "select current_user, rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user"
    )
    assert row.fetchone() == (OWNER, False, False, False)


def test_each_test_has_a_database_of_its_own(server: PostgresServer, database: Database) -> None:
    other = server.installed_database()
    try:
        database.connect().execute("create table public.mine ()")
        assert other.value("select to_regclass('public.mine')") is None
        assert other.value("select to_regprocedure('perdure._now()')") is not None
    finally:
        other.drop()


async def test_async_connections_are_closed_with_the_database(empty_database: Database) -> None:
    conn = await empty_database.aconnect()
    row = await (await conn.execute("select current_user")).fetchone()
    assert row == (OWNER,)


def test_the_clock_stops_moves_and_goes_on(database: Database) -> None:
    clock = database.clock
    noon = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    assert clock.stop(noon) == noon == clock.now()
    assert clock.advance(hours=2) == noon + timedelta(hours=2)
    assert database.connect().execute("select perdure._now()").fetchone() == (noon + timedelta(hours=2),)
    clock.go()
    assert clock.now() > noon + timedelta(hours=2)
    assert clock.now() < noon + timedelta(hours=3)


def test_a_waiter_is_seen_waiting_and_for_whom(empty_database: Database) -> None:
    holder, waiter = empty_database.connect(autocommit=False), empty_database.connect()
    holder.execute("select pg_advisory_xact_lock(1)")
    waiting = in_background(waiter.execute, "select pg_advisory_xact_lock(1)")
    assert empty_database.wait_blocked(waiter, by=holder.info.backend_pid) == [holder.info.backend_pid]
    assert not waiting.done()
    holder.commit()
    waiting.result(timeout=10)


def test_what_was_acknowledged_outlives_a_killed_server(own_server: PostgresServer) -> None:
    database = own_server.create_database()
    database.connect().execute("create table kept as select 42 as answer")
    own_server.server.kill()
    with pytest.raises(psycopg.OperationalError):
        database.connect()
    own_server.server.start()
    database.close()
    assert database.value("select answer from kept") == 42


@pytest.mark.cron
def test_the_cron_server_runs_jobs_in_its_database(cron_database: Database) -> None:
    conn = cron_database.connect()
    conn.execute("select cron.schedule('hello', '* * * * *', 'select 1')")
    assert conn.execute("select database from cron.job").fetchone() == (cron_database.name,)
