"""Clients with keys: they start, signal and wait through failovers, and remember what was acknowledged to them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg

import perdure
from failover.flows import PAID, order

T = TypeVar("T")

# What an application that talks to a server which is going away tries again.
AWAY = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)


class Load:
    """Runs by key: started, signalled and waited for by clients of the driver's, in a thread of their own."""

    def __init__(self, dsn: str, keys: Sequence[str], *, clients: int = 3, pause: float = 0.0) -> None:
        self.keys = list(keys)
        self.started: dict[str, UUID] = {}
        self.signalled: set[str] = set()
        self.results: dict[str, Any] = {}
        self._dsn = dsn
        self._clients = clients
        self._pause = pause
        self._error: BaseException | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def begin(self) -> Load:
        """Let the clients begin."""
        self._thread.start()
        return self

    def finish(self, seconds: float = 120) -> None:
        """Wait until each client has the result of each of its runs."""
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        missing = [key for key in self.keys if key not in self.results]
        assert not self._thread.is_alive(), f"no result of {missing}"

    def abandon(self) -> None:
        """Let the clients ask for nothing more, and wait until they have ended."""
        self._is_stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:  # noqa: BLE001  it is raised by finish
            self._error = error

    async def _all(self) -> None:
        app = perdure.App(self._dsn)
        async with app:
            await asyncio.gather(*(self._client(app, self.keys[n :: self._clients]) for n in range(self._clients)))

    async def _client(self, app: perdure.App, keys: Sequence[str]) -> None:
        waiting = []
        for key in keys:
            handle = await self._insist(lambda key=key: app.start(order, key, key=key))
            if handle is None:
                break
            self.started[key] = handle.id
            waiting.append(asyncio.create_task(self._result(app, key)))
            if await self._insist(lambda handle=handle, key=key: handle.signal(PAID, 7, id=f"paid {key}")) is not None:
                self.signalled.add(key)
            await asyncio.sleep(self._pause)
        await asyncio.gather(*waiting)

    async def _result(self, app: perdure.App, key: str) -> None:
        """Wait for the result; where the run is unknown or unsignalled after a failover, ask for it again by its key."""

        async def ask() -> Any:
            handle = await app.start(order, key, key=key)
            await handle.signal(PAID, 7, id=f"paid {key}")
            return await handle.result(timeout=timedelta(seconds=1))

        result = await self._insist(ask)
        if result is not None:
            self.results[key] = result

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        while not self._is_stopping:
            try:
                return await ask()
            except (*AWAY, perdure.RunNotFound, perdure.TimedOut):  # noqa: PERF203
                await asyncio.sleep(0.1)
        return None
