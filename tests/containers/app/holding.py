"""A workflow whose second step never ends in a worker that is told to hang."""

from __future__ import annotations

import asyncio
import os

import perdure

app = perdure.App()


async def begin() -> str:
    """Leave a checkpoint."""
    return os.environ["HOSTNAME"]


async def hold() -> str:
    """Hold the run for as long as the worker lives, or for no time at all."""
    if os.environ.get("HANG"):
        await asyncio.sleep(3600)
    return os.environ["HOSTNAME"]


@app.workflow()
async def holding(run: perdure.AsyncRun, _input: dict[str, str]) -> list[str]:
    """Tell which containers ran the steps."""
    return [await run.step(begin), await run.step(hold)]
