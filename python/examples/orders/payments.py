"""A small payment server, as bad as real ones: it fails before and after it has charged, drops connections, and dawdles.

It is a process of its own and keeps its own book, an SQLite file; it knows nothing of the shop's database. It keeps one
promise: a charge with an idempotency key that it has seen gets the first answer again, and moves no money.

    python -m orders.payments BOOK [--port 0] [--faults 0.4] [--seed 7]
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sqlite3
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# What can go wrong, and whether the card has been charged when it does.
FAULTS = {
    "503 before charging": False,
    "connection dropped before charging": False,
    "500 after charging": True,
    "connection dropped after charging": True,
    "charged, answer too late": True,
    "charged when nobody was listening any more": True,
}
TOO_LATE = 2.0  # seconds: longer than the shop waits


@dataclass(frozen=True)
class Charge:
    """What the book says of one idempotency key: one movement of money, or one refusal."""

    payment_id: str
    key: str
    order_no: str
    amount: int
    is_declined: bool


@dataclass(frozen=True)
class Request:
    """One request as it reached the server, and what befell its answer."""

    at: float
    key: str
    order_no: str
    fault: str | None


class Book:
    """The payment server's own book; what is in it survives the server."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = full")
        self._db.execute(
            "create table if not exists charge (payment_id text primary key, key text not null unique,"
            " order_no text not null, amount integer not null, is_declined integer not null)"
        )
        self._db.execute(
            "create table if not exists request (at real not null, key text not null, order_no text not null, fault text)"
        )

    def charge(self, key: str, order_no: str, card: str, amount: int) -> Charge:
        """Charge a card, or return what this key has led to before."""
        is_declined = card == "card_declined"
        with self._lock:
            self._db.execute(
                "insert into charge values (?, ?, ?, ?, ?) on conflict (key) do nothing",
                [f"pay_{uuid.uuid4().hex[:12]}", key, order_no, amount, is_declined],
            )
            row = self._db.execute("select * from charge where key = ?", [key]).fetchone()
        return _charge(row)

    def note(self, key: str, order_no: str, fault: str | None) -> None:
        """Note a request and the fault that its answer will suffer."""
        with self._lock:
            self._db.execute("insert into request values (?, ?, ?, ?)", [time.time(), key, order_no, fault])

    def charges(self) -> list[Charge]:
        """Everything that was charged or declined."""
        with self._lock:
            return [_charge(row) for row in self._db.execute("select * from charge order by rowid")]

    def requests(self) -> list[Request]:
        """Every request, in order."""
        with self._lock:
            return [Request(*row) for row in self._db.execute("select * from request order by rowid")]

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _charge(row: tuple[str, str, str, int, int]) -> Charge:
    payment_id, key, order_no, amount, is_declined = row
    return Charge(payment_id, key, order_no, amount, bool(is_declined))


class Server(ThreadingHTTPServer):
    """Serves `POST /charges` on loopback."""

    daemon_threads = True

    def __init__(self, book: Book, port: int, faults: float, seed: int | None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.book = book
        self._faults = faults
        self._random = random.Random(seed)

    def next_fault(self) -> str | None:
        """Draw the next request's fate."""
        return self._random.choice(list(FAULTS)) if self._random.random() < self._faults else None

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client went away: they do here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as the base class calls it


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_POST(self) -> None:
        """Charge, badly."""
        key = self.headers.get("Idempotency-Key")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/charges" or key is None:
            self._answer(400, {"error": "POST /charges with an Idempotency-Key"})
            return
        fault = self.server.next_fault()
        self.server.book.note(key, asked["order"], fault)
        time.sleep(random.uniform(0.05, 0.5))

        if fault is not None and not FAULTS[fault]:
            self._fail(fault)
            return
        if fault == "charged when nobody was listening any more":
            time.sleep(TOO_LATE)
        charge = self.server.book.charge(key, asked["order"], asked["card"], asked["amount"])
        if fault == "charged, answer too late":
            time.sleep(TOO_LATE)
        if fault is not None and fault.endswith("after charging"):
            self._fail(fault)
        elif charge.is_declined:
            self._answer(402, {"error": "card declined"})
        else:
            self._answer(200, {"id": charge.payment_id, "amount": charge.amount})

    def _fail(self, fault: str) -> None:
        if fault.startswith("connection"):
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(int(fault[:3]), {"error": "try again"})

    def _answer(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the book says it all."""


def main() -> None:
    """Serve until killed; the first line printed is the address."""
    parser = argparse.ArgumentParser(description="a payment server that fails at random")
    parser.add_argument("book", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--faults", type=float, default=0.4, help="share of requests that go wrong")
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    server = Server(Book(arguments.book), arguments.port, arguments.faults, arguments.seed)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
