"""Workflows that leave a trace in the database of each time that a step's code ran."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from datetime import timedelta
from typing import Any

import psycopg

import perdure

app = perdure.App()
PAID = perdure.Signal("paid", int)

_of_thread = threading.local()


def trace(key: str, step: str) -> int:
    """Note in the outside world, apart from what the run saves, that a step's code ran; return how often it did."""
    for _ in range(600):
        try:
            if getattr(_of_thread, "conn", None) is None:
                dsn = os.environ.get("PERDURE_TRACE_DSN") or os.environ["PERDURE_DSN"]
                _of_thread.conn = psycopg.connect(dsn, autocommit=True)
            conn = _of_thread.conn
            conn.execute("insert into public.trace (key, step, pid) values (%s, %s, %s)", [key, step, os.getpid()])
            row = conn.execute("select count(*) from public.trace where key = %s and step = %s", [key, step]).fetchone()
        except psycopg.OperationalError:  # noqa: PERF203  the outside world is on the same server, which may be away
            _of_thread.conn = None
            time.sleep(0.1)
        else:
            count: int = row[0]
            return count
    raise AssertionError("the outside world did not come back")


def reserve(key: str) -> str:
    """A plain function: it runs in a thread."""
    trace(key, "reserve")
    return f"reserved {key}"


async def book(conn: Any, key: str) -> str:
    """A transaction step: its row and its checkpoint are one commit."""
    await conn.execute("insert into public.trace (key, step, pid) values (%s, 'book', %s)", [key, os.getpid()])
    return f"booked {key}"


@perdure.step(retry=perdure.Retry(delay=timedelta(milliseconds=10), jitter=0.0))
def flaky(key: str) -> str:
    """Fail the first time."""
    if trace(key, "flaky") == 1:
        raise OSError("the first time always fails")
    return "worked"


def ship(key: str) -> str:
    """Another plain function."""
    trace(key, "ship")
    return f"shipped {key}"


@perdure.step(at_most_once=True)
def charge(key: str) -> str:
    """Kill the worker in the middle, the first time."""
    if trace(key, "charge") == 1 and "die" in key:
        os.kill(os.getpid(), signal.SIGKILL)
    return "charged"


@app.workflow()
async def order(run: perdure.AsyncRun, key: str) -> list[str]:
    """Use each function of the protocol once at least."""
    done = [await run.step(reserve, key), await run.transaction(book, key), await run.step(flaky, key)]
    paid = await run.wait_signal(PAID)
    await run.sleep(timedelta(milliseconds=20))
    return [*done, str(paid), await run.step(ship, key)]


@app.workflow()
async def once(run: perdure.AsyncRun, key: str) -> str:
    """Charge, and say what became of it."""
    try:
        return await run.step(charge, key)
    except perdure.StepFailed as failure:
        return failure.type


async def think(key: str, seconds: float) -> str:
    """Take a while."""
    trace(key, "think")
    await asyncio.sleep(seconds)
    return key


async def hog(key: str, seconds: float) -> str:
    """Hold up the event loop, as no step should."""
    trace(key, "hog")
    time.sleep(seconds)  # noqa: ASYNC251
    return key


@app.workflow()
async def slow(run: perdure.AsyncRun, key: str) -> str:
    """Two steps of a while each."""
    await run.options(key="first").step(think, f"{key}/1", 0.3)
    return await run.options(key="second").step(think, f"{key}/2", 0.3)


@app.workflow()
async def long(run: perdure.AsyncRun, key: str) -> str:
    """One step of three seconds."""
    return await run.step(think, key, 3.0)


@app.workflow()
async def greedy(run: perdure.AsyncRun, key: str) -> str:
    """A step that holds up the loop for longer than the lease."""
    return await run.step(hog, key, 3.0)


async def ask_pid(key: str, seconds: float) -> int:
    """Take a while, and tell in which process."""
    trace(key, "ask_pid")
    await asyncio.sleep(seconds)
    return os.getpid()


@app.workflow()
async def who(run: perdure.AsyncRun, key: str) -> list[int]:
    """Tell which process ran each of two steps."""
    return [await run.step(ask_pid, f"{key}/1", 1.0), await run.step(ask_pid, f"{key}/2", 0.0)]


@app.workflow()
async def ledger(run: perdure.AsyncRun, key: str) -> list[str]:
    """Three transaction steps."""
    return [await run.transaction(book, f"{key}/{n}") for n in range(3)]


@app.workflow(max_recoveries=1000)
async def parcel(run: perdure.AsyncRun, key: str) -> list[Any]:
    """Steps of all kinds, alone and side by side, with waits between them; for many deaths."""
    done: list[Any] = [await run.transaction(book, f"{key}/first")]
    done += await asyncio.gather(
        run.step(reserve, key),
        run.options(key="side").transaction(book, f"{key}/side"),
        run.step(think, key, 0.01),
    )
    await run.sleep(timedelta(milliseconds=10))
    done.append(await run.step(flaky, key))
    paid, _ = await run.race(paid=run.wait_signal(PAID), work=run.step(ask_pid, key, 30.0))
    return [*done, paid, await run.options(key="last").transaction(book, f"{key}/last")]


@app.workflow()
async def failing(run: perdure.AsyncRun, key: str) -> str:
    """End badly."""
    raise ValueError(key)


def bulk(key: str, number: int) -> str:
    """Return so much that a few of it do not fit into a claim."""
    trace(key, f"bulk{number}")
    return random.Random(number).randbytes(50_000).hex() + str(number)  # nothing that the server could compress away


@app.workflow()
async def big(run: perdure.AsyncRun, key: str) -> list[str]:
    """Save half a megabyte, then begin anew from it."""
    done = [await run.step(bulk, key, number) for number in range(5)]
    await run.sleep(timedelta(seconds=2))  # so long that it is suspended, not answered at once
    return [each[-1] for each in done]


@app.workflow()
async def heard(run: perdure.AsyncRun, key: str) -> str:
    """Wait for a signal while a step is in flight."""
    name, value = await run.race(paid=run.wait_signal(PAID), thought=run.step(think, key, 1.0))
    return f"{name} {value}"


@app.workflow()
async def longer(run: perdure.AsyncRun, key: str) -> str:
    """Two steps of two seconds each."""
    await run.options(key="first").step(think, f"{key}/1", 2.0)
    return await run.options(key="second").step(think, f"{key}/2", 2.0)


async def lock_row(conn: Any, key: str) -> str:
    """Change a row; the first time stand still once somebody else waits for it."""
    await conn.execute("update public.stock set n = n + 1 where item = %s", [key])
    is_wanted = trace(key, "lock_row") > 1
    while not is_wanted:
        cursor = await conn.execute(
            "select exists (select from pg_locks as l where pg_backend_pid() = any(pg_blocking_pids(l.pid)))"
        )
        [is_wanted] = await cursor.fetchone()
        if is_wanted:
            os.kill(os.getpid(), signal.SIGSTOP)
    await conn.execute("select 1")
    return key


@app.workflow()
async def locking(run: perdure.AsyncRun, key: str) -> str:
    """One transaction step, which is frozen in the user's own SQL."""
    return await run.transaction(lock_row, key)


def count(key: str, number: int) -> dict[str, Any]:
    """Return the number."""
    trace(key, "count")
    return {"n": number}


def last(key: str) -> None:
    """Come after all others."""
    trace(key, "last")


@app.workflow()
async def many(run: perdure.AsyncRun, key: str) -> list[int]:
    """As many steps as the key says, one after the other, and one more."""
    total = 0
    for number in range(int(key)):
        total += (await run.options(key=f"s{number}").step(count, key, number))["n"]
    await run.step(last, key)
    return [int(key), total]
