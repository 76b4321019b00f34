"""Something between client and server that, as poolers do, gives connections ids of its own."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# BackendKeyData: type, length, process id, secret.
_KEY = re.compile(rb"K\x00\x00\x00\x0c....", re.DOTALL)


@contextmanager
def pooler(dsn: str) -> Iterator[str]:
    """The DSN of a door to the same server whose connections tell another process id."""
    parts = conninfo_to_dict(dsn)
    host, port = str(parts["host"]), int(parts.get("port") or 5432)

    def dial() -> socket.socket:
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, port))

    def serve(client: socket.socket) -> None:
        server = dial()
        threading.Thread(target=pump, args=(client, server, False), daemon=True).start()
        pump(server, client, True)

    def pump(source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65536):
                target.sendall(_KEY.sub(b"K\x00\x00\x00\x0c\x00\x00\x00\x07", data) if is_answer else data)
            target.shutdown(socket.SHUT_RDWR)

    def listen() -> None:
        with suppress(OSError):
            while True:
                client, _ = door.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=listen, daemon=True).start()
        yield make_conninfo(dsn, host="127.0.0.1", port=door.getsockname()[1], sslmode="disable", gssencmode="disable")
        door.shutdown(socket.SHUT_RDWR)
