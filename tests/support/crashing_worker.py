"""A worker process that kills itself at a named point of the protocol.

PERDURE_CRASH_AT is `moment:function` or `moment:function:n`: at the n-th flush that calls this function,
`before_commit` (everything is sent and executed but the COMMIT) or `after_commit` (it has taken effect, nobody has
read the answer) the process gets SIGKILL. Nothing in the driver knows of it: the flusher's connection is replaced.
PERDURE_LEASE is the worker's lease in seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perdure import _app, _connect
from perdure._sql import COMMIT
from support.flows import app

MOMENT, FUNCTION, NTH = [*os.environ.get("PERDURE_CRASH_AT", "never:never").split(":"), "1"][:3]
seen = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class CrashingCursor(psycopg.AsyncCursor[Any]):
    async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        if f".{FUNCTION}(".encode() in query:
            self.connection.is_met = True  # type: ignore[attr-defined]
        return await super().execute(query, *args, **options)


class CrashingConnection(psycopg.AsyncConnection[Any]):
    is_met = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cursor_factory = CrashingCursor

    async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        global seen
        if query != COMMIT or not self.is_met:
            return await super().execute(query, *args, **options)
        self.is_met = False
        seen += 1
        assert self._pipeline is not None
        if seen == int(NTH) and MOMENT == "before_commit":
            await self._pipeline.sync()
            die()
        done = await super().execute(query, *args, **options)
        if seen == int(NTH) and MOMENT == "after_commit":
            await self._pipeline.sync()
            die()
        return done


async def open_crashing(self: _connect.Connector) -> CrashingConnection:
    return await CrashingConnection.connect(self.dsn, autocommit=True, **self._parameters())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    _connect.Connector.open = open_crashing  # type: ignore[method-assign]
    if "PERDURE_LEASE" in os.environ:
        lease = timedelta(seconds=float(os.environ["PERDURE_LEASE"]))
        new_worker = _app.App._new_worker
        _app.App._new_worker = lambda self, options: new_worker(  # type: ignore[method-assign]
            self, replace(options, lease=lease)
        )
    app.run_worker(
        max_runs=int(os.environ.get("PERDURE_MAX_RUNS", "100")),
        stop_timeout=timedelta(seconds=float(os.environ.get("PERDURE_STOP_TIMEOUT", "20"))),
    )
