"""A proxy before Postgres that cuts connections at a chosen point of the exchange.

It knows as much of the wire protocol as it takes to see where an exchange ends: at the server's ReadyForQuery what was
asked is done and, outside a transaction block, committed.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Moment = Literal["unsent", "unanswered"]

TERMINATE, READY = b"X", b"Z"


def messages(connection: socket.socket, *, first_is_bare: bool) -> Iterator[bytes]:
    """Yield whole messages; a client's first one has no type."""
    held = b""
    is_bare = first_is_bare
    while True:
        head = 0 if is_bare else 1
        while len(held) >= head + 4:
            size = head + int.from_bytes(held[head : head + 4], "big")
            if len(held) < size:
                break
            yield held[:size]
            held = held[size:]
            is_bare, head = False, 1
        try:
            got = connection.recv(65536)
        except OSError:
            return
        if not got:
            return
        held += got


class Link:
    """One client's connection and its way on to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._moment: Moment | None = None
        self._is_cut = False
        self._is_fresh = False
        for work in (self._forward, self._answer):
            threading.Thread(target=work, daemon=True, name=f"proxy {work.__name__}").start()

    def _forward(self) -> None:
        for message in messages(self._client, first_is_bare=True):
            if self._is_fresh and message[:1] != TERMINATE:
                self._is_fresh = False
                self._moment = self._proxy.next_moment()
            if self._moment == "unsent":
                break
            with suppress(OSError):
                self._server.sendall(message)
        else:
            if self._moment == "unanswered":  # the server finishes what it was asked for, then sees the end
                with suppress(OSError):
                    self._server.shutdown(socket.SHUT_WR)
                return
        self.cut()

    def _answer(self) -> None:
        for message in messages(self._server, first_is_bare=False):
            is_ready = message[:1] == READY
            if self._moment == "unanswered":
                if is_ready:
                    break
                continue
            self._is_fresh = self._is_fresh or is_ready
            with suppress(OSError):
                self._client.sendall(message)
        self.cut()

    def cut(self) -> None:
        """End both halves."""
        if not self._is_cut:
            self._is_cut = True
            if self._moment is not None:
                self._proxy.note(self._moment)
            for end in (self._client, self._server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


class Proxy:
    """Listens on a loopback port and passes on to the server of a DSN, until it is told to cut.

    `cut_next` cuts the exchange that comes next; `cut_often` any exchange, with a probability.
    """

    def __init__(self, dsn: str, *, seed: int | None = None) -> None:
        parameters = conninfo_to_dict(dsn)
        self._host, self._port = str(parameters.get("host", "")), int(parameters.get("port") or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._random = random.Random(seed)
        self._often = 0.0
        self._next: Moment | None = None
        self._lock = threading.Lock()
        self.cuts = {"unsent": 0, "unanswered": 0}
        way = {"host": "127.0.0.1", "port": self._listener.getsockname()[1]}
        self.dsn = make_conninfo(dsn, **way, sslmode="disable", gssencmode="disable")
        threading.Thread(target=self._listen, daemon=True, name="proxy").start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def cut_next(self, moment: Moment) -> None:
        """Cut the next exchange of whatever connection: before it is sent on, or when it is done and not answered."""
        with self._lock:
            self._next = moment

    def cut_often(self, often: float) -> None:
        """Cut each exchange from now on with this probability."""
        self._often = often

    def next_moment(self) -> Moment | None:
        """Say what becomes of an exchange that begins now."""
        with self._lock:
            moment, self._next = self._next, None
            if moment is None and self._often and self._random.random() < self._often:
                moment = "unsent" if self._random.random() < 0.3 else "unanswered"
            return moment

    def note(self, moment: Moment) -> None:
        """Count a cut."""
        with self._lock:
            self.cuts[moment] += 1

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            Link(self, client, server)

    def _connect(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host or "127.0.0.1", self._port))
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(f"{self._host}/.s.PGSQL.{self._port}")
        except OSError:
            made.close()
            raise
        return made
