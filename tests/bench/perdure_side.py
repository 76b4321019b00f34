"""Perdure as a contestant."""

from __future__ import annotations

import asyncio
import time

import psycopg

import perdure
from bench.side import WorkOptions, leave_effect
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
            conn.execute("select perdure.put_workflow(name) from unnest(array['one', 'ten', 'held']) as name")

    def work(self, dsn: str, options: WorkOptions) -> None:
        """Run a worker."""
        app, _ = make_app(dsn, options)
        app.run_worker(max_runs=options.max_runs, max_steps=options.max_runs if options.hangs else 50)

    def round_trips(self, dsn: str, count: int) -> list[float]:
        """Start and wait, in a closed loop."""
        return asyncio.run(self._round_trips(dsn, count))

    async def _round_trips(self, dsn: str, count: int) -> list[float]:
        app, one = make_app(dsn, WorkOptions())
        taken = []
        async with app:
            for n in range(count):
                began = time.perf_counter()
                handle = await app.start(one, n)
                assert await handle.result() == n + 1
                taken.append(time.perf_counter() - began)
        return taken


SIDE = PerdureSide()
