"""Absurd as a contestant: https://pypi.org/project/absurd-sdk."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from bench.side import LEASE_SECONDS, QUEUE, WorkOptions, leave_effect, pauses

_CLIENTS, _BATCH = 16, 10
_POLL, _QUICK_POLL = 0.01, 0.005


class AbsurdSide:
    """Absurd."""

    name = "absurd"
    title = "Absurd"
    is_peer = True
    tuning = (
        f"asyncio workers, {_CLIENTS} in each process with a connection of its own, {_BATCH} tasks claimed at a time, polling every"
        f" {_POLL * 1000:.0f} ms (default 250 ms), {_QUICK_POLL * 1000:.0f} ms for latency; results polled every 2 ms"
    )
    recovery = f"by a worker that stands by, with a lease of {LEASE_SECONDS} s (default 120 s)"
    start_one = f"select absurd.spawn_task('{QUEUE}', 'one', to_jsonb(:n::int))"
    start_hundred = (
        f"select count(*) from generate_series(1, 100) as g, absurd.spawn_task('{QUEUE}', 'one', to_jsonb(g))"
    )
    fill = (
        "select count(*) from generate_series(1, %(count)s) as g,"
        f" absurd.spawn_task('{QUEUE}', %(workflow)s, to_jsonb(g))"
    )
    finished = f"select count(*) from absurd.r_{QUEUE} where state = 'completed'"
    saved = f"select count(*) from absurd.c_{QUEUE}"
    package = "absurd_sdk"
    after_copy = "select 1"
    is_standing_by = True

    def install(self, dsn: str) -> None:
        """Install it with its own tool, and make the queue."""
        import psycopg
        from absurdctl import BUNDLED_SCHEMA_SQL

        with psycopg.connect(dsn) as conn:
            conn.execute(BUNDLED_SCHEMA_SQL)
            conn.execute("select absurd.create_queue(%s)", [QUEUE])

    def work(self, dsn: str, options: WorkOptions) -> None:
        """Run a worker."""
        asyncio.run(self._work(dsn, options))

    async def _work(self, dsn: str, options: WorkOptions) -> None:
        clients = 1 if options.is_quick or options.hangs else _CLIENTS
        batch = options.max_runs if options.hangs else _BATCH
        await asyncio.gather(
            *(
                self._client(dsn, options).start_worker(
                    worker_id=f"{os.getpid()}-{n}",
                    concurrency=batch,
                    batch_size=batch,
                    claim_timeout=LEASE_SECONDS if options.effects else 120,
                    poll_interval=_QUICK_POLL if options.is_quick else _POLL,
                )
                for n in range(clients)
            )
        )

    def round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        """Spawn and wait, in a closed loop."""
        return asyncio.run(self._round_trips(dsn, count, pause))

    async def _round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        client = self._client(dsn, WorkOptions())
        taken = []
        for n in range(count):
            await asyncio.sleep(pauses(pause))
            began = time.perf_counter()
            task_id = (await client.spawn("one", n))["task_id"]
            while (found := await client.fetch_task_result(task_id)).state != "completed":  # noqa: ASYNC110 - a peer that is polled
                await asyncio.sleep(0.002)
            assert found.result == n + 1
            taken.append(time.perf_counter() - began)
        await client.close()
        return taken

    def _client(self, dsn: str, options: WorkOptions) -> Any:
        from absurd_sdk import AsyncAbsurd

        client: Any = AsyncAbsurd(dsn, queue_name=QUEUE)

        async def one(n: int, task: Any) -> int:
            return int(await task.step("add", lambda: _add(n)))

        async def ten(n: int, task: Any) -> int:
            for _ in range(10):
                n = await task.step("add", lambda n=n: _add(n))
            return n

        async def leave(n: int) -> int:
            leave_effect(options)
            return n

        async def hang(n: int) -> int:
            if options.hangs:
                await asyncio.Event().wait()
            return n

        async def held(n: int, task: Any) -> int:
            n = await task.step("leave", lambda: leave(n))
            return int(await task.step("hang", lambda: hang(n)))

        for workflow in (one, ten, held):
            client.register_task(workflow.__name__)(workflow)
        return client


async def _add(n: int) -> int:
    return n + 1


SIDE = AbsurdSide()
