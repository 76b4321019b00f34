"""A worker with nothing to do is told of work: here it never asks by itself, so nothing but being told helps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import perdure
from perdure._client import AsyncHandle
from support.aio import until
from support.database import Database

PAID = perdure.Signal("paid", int)
LISTENERS = """
select l.pid from pg_locks as l
where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted
  and l.classid::bigint << 32 | l.objid::bigint = perdure._queue_key('default')
"""


class Endless:
    """Pauses that never end."""

    def __init__(self, *_: float) -> None: ...

    def reset(self) -> None: ...

    def pause(self) -> float:
        return 3600.0


@pytest.fixture(autouse=True)
def never_asks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure._asking.BackOff", Endless)
    monkeypatch.setattr("perdure._asking._LONGEST_UNTOLD", 3600.0)
    monkeypatch.setattr("perdure._worker._FromThread.made_ready", lambda _: None)  # nor is it told by its own ticks


class Flows:
    """An app with what is to be run."""

    def __init__(self, dsn: str) -> None:
        self.app = app = perdure.App(dsn)

        @app.workflow()
        async def double(run: perdure.AsyncRun, n: int) -> int:
            return 2 * n

        @app.workflow()
        async def pay(run: perdure.AsyncRun, n: int) -> int:
            return n + await run.wait_signal(PAID)

        @app.workflow()
        async def nap(run: perdure.AsyncRun, n: int) -> int:
            await run.sleep(timedelta(milliseconds=n))
            return n

        self.double, self.pay, self.nap = double, pay, nap

    async def doubled(self, n: int, **options: Any) -> int:
        """Start a run that doubles, and return its result."""
        return await result(await self.app.start(self.double, n, **options))


@pytest.fixture
def flows(database: Database) -> Flows:
    return Flows(database.dsn())


async def listener(database: Database, *, other_than: int | None = None) -> int:
    """Wait until a session is told of work, and return its process."""

    def look() -> int | None:
        found: int | None = database.value(LISTENERS)
        return None if found == other_than else found

    pid = await until(look)
    assert pid is not None
    return pid


async def result(handle: AsyncHandle[int]) -> int:
    return await handle.result(timeout=timedelta(seconds=20))


async def test_an_idle_worker_is_told_of_a_start(flows: Flows, database: Database) -> None:
    async with flows.app.worker():
        for n in range(3):
            await listener(database)
            assert await flows.doubled(n) == 2 * n


async def test_an_idle_worker_is_told_of_a_signal(flows: Flows, database: Database) -> None:
    async with flows.app.worker():
        handle = await flows.app.start(flows.pay, 1)
        await until(lambda: database.value("select count(*) from perdure.dispatch where waits is not null") == 1)
        await listener(database)
        await handle.signal(PAID, 7)
        assert await result(handle) == 8


async def test_an_idle_worker_knows_when_a_sleep_is_over(flows: Flows, database: Database) -> None:
    async with flows.app.worker():
        assert await result(await flows.app.start(flows.nap, 700)) == 700


async def test_an_idle_worker_knows_when_a_delay_is_over(flows: Flows, database: Database) -> None:
    async with flows.app.worker():
        await listener(database)
        assert await flows.doubled(4, delay=timedelta(milliseconds=600)) == 8


async def test_a_worker_that_is_full_leaves_its_place_to_another(flows: Flows, database: Database) -> None:
    is_over = asyncio.Event()

    @flows.app.workflow()
    async def long(run: perdure.AsyncRun, n: int) -> int:
        await run.step(is_over.wait)
        return n

    async with flows.app.worker(max_runs=1):
        first = await listener(database)
        handle = await flows.app.start(long, 1)
        await until(lambda: database.value(LISTENERS) is None)
        async with flows.app.worker():
            assert await listener(database) != first
            assert await flows.doubled(1) == 2
            is_over.set()
            assert await result(handle) == 1


async def test_a_worker_that_was_told_in_vain_leaves_its_place_to_another(flows: Flows, database: Database) -> None:
    """In a rolling deploy it does not know the workflow, and each start would tell it again."""
    newer = Flows(database.dsn())

    @newer.app.workflow()
    async def novel(run: perdure.AsyncRun, n: int) -> int:
        return 3 * n

    database.connect().execute("select perdure.put_workflow('novel')")
    async with flows.app.worker():
        first = await listener(database)
        handle = await newer.app.start(novel, 1)
        await until(lambda: database.value(LISTENERS) is None)
        await asyncio.sleep(0.1)  # by now it would have listened again
        async with newer.app.worker():
            assert await result(handle) == 3
            assert await listener(database) != first
            assert await result(await newer.app.start(novel, 2)) == 6


async def test_a_worker_whose_connection_is_gone_listens_on_a_new_one(flows: Flows, database: Database) -> None:
    async with flows.app.worker():
        pid = await listener(database)
        database.admin.execute("select pg_terminate_backend(%s)", [pid])
        await listener(database, other_than=pid)
        assert await flows.doubled(1) == 2


async def test_a_worker_that_nobody_knows_any_more_is_told_no_more_under_its_old_name(
    flows: Flows, database: Database
) -> None:
    """What can be read there would wake it for ever, and it could ask for nothing."""
    async with flows.app.worker():
        pid = await listener(database)
        database.admin.execute("delete from perdure.worker")
        handle = await flows.app.start(flows.double, 1)
        assert await listener(database, other_than=pid) is not None
        assert await result(handle) == 2


async def test_what_is_told_while_a_question_is_under_way_is_heard(flows: Flows, database: Database) -> None:
    """The answer and the notification come together, and the answer is older."""
    database.admin.execute(
        "create or replace function perdure.next_due(worker_id uuid) returns interval language plpgsql volatile"
        " security definer set search_path = pg_catalog, pg_temp as $$ begin"
        " if exists (select from pg_listening_channels()) then perform pg_advisory_xact_lock_shared(42); end if;"
        " return null; end $$"
    )
    with psycopg.connect(database.dsn(), autocommit=True) as gate:
        gate.execute("select pg_advisory_lock(42)")
        async with flows.app.worker():
            waiting = "select pid from pg_locks where locktype = 'advisory' and objid = 42 and not granted"
            await until(lambda: database.value(waiting))
            handle = await flows.app.start(flows.double, 21)
            gate.execute("select pg_advisory_unlock(42)")
            assert await result(handle) == 42


async def test_a_session_that_may_not_be_ours_alone_is_never_told(
    flows: Flows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def behind_a_pooler(conn: psycopg.AsyncConnection[object]) -> None: ...

    database.admin.execute(
        "create sequence public.listened; grant usage on sequence public.listened to public;"
        "create or replace function perdure.listen(worker_id uuid, queues text[] default null) returns text[]"
        " language sql volatile security definer set search_path = pg_catalog, pg_temp"
        " as $$ select array[nextval('public.listened')::text] $$"
    )
    monkeypatch.setattr("perdure._worker.prepare_if_direct", behind_a_pooler)
    monkeypatch.setattr("perdure._asking._LONGEST_UNTOLD", 0.05)
    async with flows.app.worker():
        for n in range(3):
            assert await flows.doubled(n) == 2 * n
            await asyncio.sleep(0.1)  # longer than it asks often
    assert not database.value("select is_called from public.listened")
