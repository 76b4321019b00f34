"""Perdure as a contestant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg

import perdure
from bench.side import WorkOptions, leave_effect, pauses
from perdure._install import install


async def add(n: int) -> int:
    """Do the work of one step."""
    return n + 1


def make_app(dsn: str, options: WorkOptions) -> tuple[perdure.App, perdure.Workflow[int, int]]:
    """Make the app and give its workflow `one` with it."""
    app = perdure.App(dsn)

    @app.workflow()
    async def one(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(add, n)

    @app.workflow()
    async def ten(run: perdure.AsyncRun, n: int) -> int:
        for _ in range(10):
            n = await run.step(add, n)
        return n

    async def leave(n: int) -> int:
        leave_effect(options)
        return n

    async def hang(n: int) -> int:
        if options.hangs:
            await asyncio.Event().wait()
        return n

    @app.workflow()
    async def held(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(hang, await run.step(leave, n))

    return app, one


GO = perdure.Signal("go", int)


async def moment() -> float:
    """Tell the time of a clock that all processes of a machine share."""
    return time.monotonic()


def make_told(dsn: str) -> tuple[perdure.App, perdure.Workflow[int, float]]:
    """Make an app whose workflow waits for a signal, and tells when it went on."""
    app = perdure.App(dsn)

    @app.workflow()
    async def told(run: perdure.AsyncRun, n: int) -> float:
        await run.wait_signal(GO)
        return await run.step(moment)

    return app, told


class PerdureSide:
    """Perdure."""

    name = "perdure"
    title = "Perdure"
    is_peer = False
    tuning = "as it comes: 100 runs and 50 steps at a time in each worker"
    recovery = "by a worker that stands by, as it comes"
    start_one = "select perdure.start('one', to_jsonb(:n::int))"
    start_hundred = (
        "select count(*) from perdure.start_many('one', array(select to_jsonb(g) from generate_series(1, 100) as g))"
    )
    fill = (
        "select count(*) from perdure.start_many(%(workflow)s, "
        "array(select to_jsonb(g) from generate_series(1, %(count)s) as g))"
    )
    finished = "select count(*) from perdure.outcome where status = 'completed'"
    saved = "select count(*) from perdure.step"
    package = "perdure"
    after_copy = "select perdure.adopt()"
    is_standing_by = True

    def install(self, dsn: str) -> None:
        """Install it and make its workflows known."""
        with psycopg.connect(dsn) as conn:
            install(conn)
            conn.execute("select perdure.put_workflow(name) from unnest(array['one', 'ten', 'held', 'told']) as name")

    def work(self, dsn: str, options: WorkOptions) -> None:
        """Run a worker."""
        app, _ = make_app(dsn, options)
        app.include(make_told(dsn)[0])
        app.run_worker(max_runs=options.max_runs, max_steps=options.max_runs if options.hangs else 50)

    def round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        """Start and wait, in a closed loop."""
        return asyncio.run(self._round_trips(dsn, count, pause))

    async def _round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        app, one = make_app(dsn, WorkOptions())
        taken = []
        async with app:
            for n in range(count):
                await asyncio.sleep(pauses(pause))
                began = time.perf_counter()
                handle = await app.start(one, n)
                assert await handle.result() == n + 1
                taken.append(time.perf_counter() - began)
        return taken

    def signals(self, dsn: str, count: int, pause: float) -> list[float]:
        """Send a signal to a run that waits for it, one after the other; return how many seconds later each went on."""
        return asyncio.run(self._signals(dsn, count, pause))

    async def _signals(self, dsn: str, count: int, pause: float) -> list[float]:
        app, told = make_told(dsn)
        taken = []
        async with app, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            for n in range(count):
                handle = await app.start(told, n)
                query = "select count(*) from perdure.waits where run_id = %s"
                while await (await conn.execute(query, [handle.id])).fetchone() != (1,):  # noqa: ASYNC110 - another process suspends it
                    await asyncio.sleep(0.02)
                await asyncio.sleep(pauses(pause))
                began = time.monotonic()
                await handle.signal(GO, n)
                taken.append(await handle.result() - began)
        return taken

    def wait_for_many(self, dsn: str, count: int, until_told: Callable[[], None]) -> None:
        """Start so many runs that nobody executes, and wait for the results of all until told to end."""
        asyncio.run(self._wait_for_many(dsn, count, until_told))

    async def _wait_for_many(self, dsn: str, count: int, until_told: Callable[[], None]) -> None:
        app, one = make_app(dsn, WorkOptions())
        async with app:
            some = [await app.start_many(one, [*range(n, min(count, n + 1000))]) for n in range(0, count, 1000)]
            tasks = [asyncio.create_task(app.handle(one, run_id).result()) for run_ids in some for run_id in run_ids]
            await asyncio.to_thread(until_told)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


SIDE = PerdureSide()
