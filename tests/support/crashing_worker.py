"""A worker process that kills itself at a named point of the protocol.

PERDURE_CRASH_AT is `moment:function` or `moment:function:n`: at the n-th call of this function the process gets SIGKILL
`before_sent` (the server hears nothing of it), `before_commit` (it is executed, its transaction is open) or
`after_commit` (it has taken effect, nobody has read the answer). `suspend_runs_keep` is suspend_runs that only looks.
Nothing in the driver knows of it: the cursors are replaced.

With PERDURE_STOP_THERE it gets SIGSTOP instead, and goes on from there when it is continued.

PERDURE_LEASE is the worker's lease in seconds, PERDURE_QUEUE its queue, PERDURE_TICK what it calls for its ticks.
With the argument `nursery` it reads objects with such variables, one a line, and forks a worker for each: it tells
their pids, and how they ended.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import sys
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from perdure import _app, _sql
from support.flows import app

moment, function, nth = "never", "never", 1
seen = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGSTOP if "PERDURE_STOP_THERE" in os.environ else signal.SIGKILL)


def is_the_call(query: Any, parameters: Any) -> bool:
    """Whether this statement is the call to die at; counts."""
    global seen
    name = function.removesuffix("_keep")
    if not isinstance(query, bytes) or f".{name}(".encode() not in query:
        return False
    if name != function and not parameters["keep"]:
        return False
    seen += 1
    return seen == nth


execute_async, execute = psycopg.AsyncCursor.execute, psycopg.Cursor.execute
exec_command = psycopg.AsyncConnection._exec_command


async def crashing_execute_async(self: Any, query: Any, parameters: Any = None, **options: Any) -> Any:
    conn = self.connection
    is_end = query == _sql.COMMIT and getattr(conn, "is_met", False)
    is_alone = False
    if is_the_call(query, parameters):
        if moment == "before_sent":
            die()
        elif conn._pipeline is not None or conn.info.transaction_status != TransactionStatus.IDLE:
            conn.is_met = True  # its transaction has a COMMIT of its own
        else:
            is_alone = True
            if moment == "before_commit":
                await execute_async(conn.cursor(), "begin")
    if is_end and moment == "before_commit":
        await conn._pipeline.sync()
        die()
    done = await execute_async(self, query, parameters, **options)
    if is_alone:
        die()
    elif is_end and moment == "after_commit":
        await conn._pipeline.sync()
        die()
    if is_end:
        conn.is_met = False
    return done


def crashing_execute(self: Any, query: Any, parameters: Any = None, **options: Any) -> Any:
    if not is_the_call(query, parameters):
        return execute(self, query, parameters, **options)
    if moment == "before_sent":
        die()
    if moment == "before_commit":
        execute(self.connection.cursor(), "begin")
    done = execute(self, query, parameters, **options)
    if moment != "before_sent":
        die()
    return done


def crashing_command(self: Any, command: Any, *options: Any) -> Generator[Any, Any, Any]:
    """What the block of a transaction step sends at its end."""
    is_end = command == b"COMMIT" and getattr(self, "is_met", False)
    if is_end:
        self.is_met = False
        if moment == "before_commit":
            die()
    done = yield from exec_command(self, command, *options)
    if is_end and moment == "after_commit":
        die()
    return done


def main() -> None:
    """Run a worker as the environment says."""
    global moment, function, nth
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if "PERDURE_CRASH_AT" in os.environ:
        moment, function, n = [*os.environ["PERDURE_CRASH_AT"].split(":"), "1"][:3]
        nth = int(n)
        psycopg.AsyncCursor.execute = crashing_execute_async  # type: ignore[method-assign, assignment]
        psycopg.Cursor.execute = crashing_execute  # type: ignore[method-assign, assignment]
        psycopg.AsyncConnection._exec_command = crashing_command  # type: ignore[method-assign, assignment]
    if "PERDURE_TICK" in os.environ:
        vars(_sql)["RUN_TICKS"] = vars(_sql)["TICK"] = os.environ["PERDURE_TICK"]
    if "PERDURE_LEASE" in os.environ:
        lease = timedelta(seconds=float(os.environ["PERDURE_LEASE"]))
        new_worker = _app.App._new_worker
        _app.App._new_worker = lambda self, options: new_worker(  # type: ignore[method-assign]
            self, replace(options, lease=lease)
        )
    app.run_worker(
        queues=os.environ.get("PERDURE_QUEUE", "default").split(","),
        name=os.environ.get("PERDURE_NAME"),
        max_runs=int(os.environ.get("PERDURE_MAX_RUNS", "100")),
        stop_timeout=timedelta(seconds=float(os.environ.get("PERDURE_STOP_TIMEOUT", "20"))),
    )


def fork(variables: dict[str, str]) -> int:
    """Make a worker of a process that has loaded everything already."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.update(variables)
            main()
            code = 0
        finally:
            os._exit(code)
    return pid


def tell(**what: int) -> None:
    """Write one line to whoever asked."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def nursery() -> None:
    """Fork what is asked for, and tell of each end, until nobody asks any more."""
    children: set[int] = set()
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while True:
        if waiting.select(0.02):
            line = sys.stdin.readline()
            if not line:
                break
            children.add(pid := fork(json.loads(line)))
            tell(pid=pid)
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            children.discard(ended[0])
            tell(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:] == ["nursery"]:
        nursery()
    else:
        main()
