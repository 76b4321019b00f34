"""The private server that all are measured on, and what it has spent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from perdure._binaries import Binaries, run
from perdure._postgres import Server

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "max_connections": "200",
}
OWNER = "bench"
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int) -> float:
    """Return the CPU time of one process, without its children; 0 when it has gone."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_MS if fields else 0.0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


class BenchServer:
    """A server with the settings that all are measured with; every contestant is installed once, into a template."""

    def __init__(self, binaries: Binaries | None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="perdure-bench-"))
        self.home.chmod(0o755)  # where root runs the bench, another account runs the server
        self._server = Server(self.home / "server", binaries=binaries, settings=SETTINGS)
        self._made = 0

    def __enter__(self) -> BenchServer:
        server = self._server
        server.create()
        said = run([server.binaries.bin / "pg_controldata", server.data], server._account)
        if "page checksum version:           0" in said:
            run([server.binaries.bin / "pg_checksums", "--enable", "--pgdata", server.data], server._account)
        server.start()
        self.admin = psycopg.connect(server.dsn(), autocommit=True)
        self.admin.execute(f"create role {OWNER} login createrole")
        return self

    def __exit__(self, *exc: object) -> None:
        self.admin.close()
        self._server.destroy()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def bin(self) -> Path:
        """Where pgbench is."""
        return self._server.binaries.bin

    @property
    def description(self) -> str:
        """The version and what it was set to."""
        ((version, checksums),) = self.admin.execute(
            "select current_setting('server_version'), current_setting('data_checksums')"
        )
        settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
        return f"PostgreSQL {version} ({settings}, data_checksums {checksums}) on {_file_system(self.home)}, by unix socket"

    def dsn(self, database: str) -> str:
        """Return the URL of a database, as its owner."""
        return self._server.dsn(database, user=OWNER)

    def create(self, database: str, template: str = "template0") -> None:
        """Make a database; what was written before is on disk when it returns."""
        self.admin.execute(f"create database {database} owner {OWNER} template {template}")
        self.admin.execute("checkpoint")

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database for one measurement, give its URL, and drop it."""
        self._made += 1
        name = f"measured_{self._made}"
        self.create(name, template)
        try:
            yield self.dsn(name)
        finally:
            self.admin.execute(f"drop database {name} with (force)")

    def cpu_ms(self) -> float:
        """Return the CPU time of the whole server: the postmaster, the children that live and those that have ended."""
        pid = self._server.pid
        assert pid is not None
        while True:
            own = _stat(pid)
            ticks = sum(int(field) for field in own[11:15])
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and (fields := _stat(int(entry.name))) and int(fields[1]) == pid:
                    ticks += int(fields[11]) + int(fields[12])
            if _stat(pid)[13:15] == own[13:15]:  # else a child ended meanwhile, and may be counted not at all, or twice
                return ticks * _TICK_MS

    def wal_bytes(self) -> int:
        """Return how much has ever been written to the log."""
        return int(self._ask("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))

    def transactions(self, dsn: str) -> int:
        """Return how many transactions a database has seen, rolled back ones too."""
        name = dsn.partition("?")[0].rpartition("/")[2]
        return int(
            self._ask(f"select xact_commit + xact_rollback from pg_stat_database where datname = '{quote(name)}'")
        )

    def _ask(self, query: str) -> Any:
        ((value,),) = self.admin.execute(query)
        return value


def _file_system(path: Path) -> str:
    best = ("", "an unknown file system")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if str(path).startswith(place) and len(place) > len(best[0]):
            best = (place, kind)
    return best[1]
