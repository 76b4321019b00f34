"""A worker with more transaction steps than connections for them: they wait for their turn, and nothing else does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg

import perdure
from support.aio import until
from support.database import Database

RUNS = 30
MAX_CONNECTIONS = 10
END = timedelta(seconds=60)


async def test_transaction_steps_beyond_the_connections_hold_up_no_beat_no_tick_and_no_other_save(
    database: Database,
) -> None:
    app = perdure.App(database.dsn())
    let_go = asyncio.Event()
    inside: set[int] = set()

    async def hold(conn: psycopg.AsyncConnection[Any]) -> int:
        inside.add(conn.info.backend_pid)
        await let_go.wait()
        await conn.execute("select 1")
        return 1

    @app.workflow()
    async def holding(run: perdure.AsyncRun, n: int) -> int:
        return await run.transaction(hold)

    async def work(n: int) -> int:
        return n

    @app.workflow()
    async def working(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work, n)

    await app.register()
    held = await app.start_many(holding, list(range(RUNS)))
    async with app.worker(max_runs=2 * RUNS, max_steps=2 * RUNS):
        await until(lambda: len(inside) == MAX_CONNECTIONS, seconds=60)
        beats, ticks = "select beat_at from perdure.worker_beat", "select max(ticked_at) from perdure.timeline"
        for what in (beats, ticks):
            seen = {database.value(what.encode())}
            await until(
                lambda what=what, seen=seen: seen.add(database.value(what.encode())) or len(seen) > 2, seconds=60
            )  # type: ignore[misc]
        assert await (await app.start(working, 5)).result(timeout=END) == 5
        assert len(inside) == MAX_CONNECTIONS, "the others still wait for a connection"
        let_go.set()
        assert await asyncio.gather(*(app.handle(holding, run).result(timeout=END) for run in held)) == [1] * RUNS
    assert database.value("select count(*) from perdure.step_attempt") == 0
    assert database.value("select count(*) from perdure.step where attempt = 1") == RUNS + 1
