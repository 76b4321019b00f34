"""The workflow of the failover tests: every kind of step, each with an effect that can be counted afterwards.

What ordinary steps do goes to a file outside every database (PERDURE_EFFECTS), one line each: they run at least once.
What transaction steps do goes to the table ledger: exactly once on a timeline. Whatever begins only once a step's
checkpoint was acknowledged notes that: the step behind an ordinary one, the workflow's own code behind a transaction.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import perdure

app = perdure.App()
PAID = perdure.Signal("paid", int)
STEPS = ("reserve", "charge")
LEDGER = ("book", "settle")

_WORKER = os.environ.get("PERDURE_NAME", "")
# opened once, because workflow code may open nothing
_FILE = os.open(os.environ.get("PERDURE_EFFECTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the file: `ran` (a step's code) or `saved` (its checkpoint is acknowledged)."""

    at: float
    what: str
    key: str
    step: str
    worker: str


def note(what: str, key: str, step: str) -> None:
    """Write a line; lines of many processes stand in the order of their writing."""
    os.write(_FILE, f"{time.time()} {what} {key} {step} {_WORKER}\n".encode())


def notes(path: Path) -> list[Note]:
    """Read what was noted."""
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    return [Note(float(at), what, key, step, worker) for at, what, key, step, worker in lines]


def gate(effects: Path, key: str, step: str) -> Path:
    """The file that lets a step of the workflow `held` end."""
    return effects.with_name(f"gate {key} {step}")


async def _pass_gate(key: str, step: str) -> None:
    while not gate(Path(os.environ["PERDURE_EFFECTS"]), key, step).exists():  # noqa: ASYNC110  another process opens it
        await asyncio.sleep(0.02)


async def reserve(key: str) -> str:
    """An ordinary step: it leaves its mark at once, and takes a while."""
    note("ran", key, "reserve")
    if key.startswith("held"):
        await _pass_gate(key, "reserve")
    await asyncio.sleep(0.05)
    return f"reserved {key}"


def charge(key: str) -> str:
    """Another, a plain function."""
    note("ran", key, "charge")
    if key.startswith("held"):
        asyncio.run(_pass_gate(key, "charge"))
    time.sleep(0.05)
    return f"charged {key}"


async def book(conn: Any, key: str) -> str:
    """A transaction step: its row and its checkpoint are one commit."""
    note("saved", key, "reserve")
    await conn.execute("insert into public.ledger (key, step) values (%s, 'book')", [key])
    return f"booked {key}"


# a connection that breaks before the commit is no fault of the step: it needs no second try for it
@perdure.step(retry=perdure.Retry(max_attempts=1))
async def settle(conn: Any, key: str) -> str:
    """Another one."""
    note("saved", key, "charge")
    await conn.execute("insert into public.ledger (key, step) values (%s, 'settle')", [key])
    return f"settled {key}"


@app.workflow()
async def order(run: perdure.AsyncRun, key: str) -> list[str]:
    """Steps of both kinds around a signal and a sleep."""
    done = [await run.step(reserve, key)]
    done.append(await run.transaction(book, key))
    note("saved", key, "book")
    done.append(str(await run.wait_signal(PAID)))
    note("saved", key, "paid")
    await run.sleep(timedelta(milliseconds=100))
    done.append(await run.step(charge, key))
    done.append(await run.transaction(settle, key))
    note("saved", key, "settle")
    return done


@app.workflow()
async def held(run: perdure.AsyncRun, key: str) -> list[str]:
    """The same without a wait, so that one claim lasts from the first step to the last; keys begin with `held`."""
    done = [await run.step(reserve, key)]
    done.append(await run.transaction(book, key))
    note("saved", key, "book")
    done.append(await run.step(charge, key))
    done.append(await run.transaction(settle, key))
    note("saved", key, "settle")
    return done


def result_of(key: str) -> list[str]:
    """What the run must return."""
    return [f"reserved {key}", f"booked {key}", "7", f"charged {key}", f"settled {key}"]
