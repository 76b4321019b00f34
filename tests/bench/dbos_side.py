"""DBOS as a contestant: https://pypi.org/project/dbos."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from bench.side import QUEUE, WorkOptions, leave_effect, pauses

_POLL = 0.005
_THREADS = 64


class DbosSide:
    """DBOS."""

    name = "dbos"
    title = "DBOS"
    is_peer = True
    tuning = (
        f"queue polled every {_POLL * 1000:.0f} ms (default 1 s), {_THREADS} runs at a time in {_THREADS} threads of"
        " each worker, a pool of as many connections, log level ERROR, results polled every 2 ms"
    )
    recovery = "by a process started anew with the dead one's executor id; another executor never takes over"
    start_one = f"select dbos.enqueue_workflow('one', '{QUEUE}', array[to_json(:n::int)])"
    start_hundred = (
        f"select count(dbos.enqueue_workflow('one', '{QUEUE}', array[to_json(g)])) from generate_series(1, 100) as g"
    )
    fill = (
        f"select count(dbos.enqueue_workflow(%(workflow)s, '{QUEUE}', array[to_json(g)]))"
        " from generate_series(1, %(count)s) as g"
    )
    finished = "select count(*) from dbos.workflow_status where status = 'SUCCESS'"
    saved = "select count(*) from dbos.operation_outputs"
    package = "dbos"
    after_copy = "select 1"
    is_standing_by = False

    def install(self, dsn: str) -> None:
        """Let it make its schema and the queue."""
        dbos = self._launched(dsn, WorkOptions())
        dbos.register_queue(QUEUE, worker_concurrency=_THREADS, polling_interval_sec=_POLL)
        dbos.destroy()

    def work(self, dsn: str, options: WorkOptions) -> None:
        """Run a worker."""
        dbos = self._launched(dsn, options)
        dbos.register_queue(
            QUEUE,
            worker_concurrency=options.max_runs if options.hangs else _THREADS,
            polling_interval_sec=_POLL,
            on_conflict="always_update",
        )
        threading.Event().wait()

    def round_trips(self, dsn: str, count: int, pause: float) -> list[float]:
        """Enqueue and wait, in a closed loop."""
        from dbos import DBOSClient

        client = DBOSClient(system_database_url=dsn)
        taken = []
        for n in range(count):
            time.sleep(pauses(pause))
            began = time.perf_counter()
            handle: Any = client.enqueue({"workflow_name": "one", "queue_name": QUEUE}, n)
            assert handle.get_result(polling_interval_sec=0.002) == n + 1
            taken.append(time.perf_counter() - began)
        client.destroy()
        return taken

    def _launched(self, dsn: str, options: WorkOptions) -> Any:
        from dbos import DBOS

        DBOS(
            config={
                "name": "bench",
                "system_database_url": dsn,
                "executor_id": "a",
                "application_version": "1",
                "log_level": "ERROR",
                "sys_db_pool_size": _THREADS,
                "max_executor_threads": _THREADS,
            }
        )
        step = DBOS.step(name="add")(_add)

        def one(n: int) -> int:
            return int(step(n))

        def ten(n: int) -> int:
            for _ in range(10):
                n = step(n)
            return n

        async def leave(n: int) -> int:
            leave_effect(options)
            return n

        async def hang(n: int) -> int:
            if options.hangs:
                await asyncio.Event().wait()
            return n

        effect_step, hang_step = DBOS.step(name="leave")(leave), DBOS.step(name="hang")(hang)

        async def held(n: int) -> int:
            return int(await hang_step(await effect_step(n)))

        for workflow in (one, ten, held):
            DBOS.workflow(name=workflow.__name__)(workflow)
        DBOS.launch()
        return DBOS


def _add(n: int) -> int:
    return n + 1


SIDE = DbosSide()
