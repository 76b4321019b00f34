"""A primary and its standby, each on a host of its own, and the workers of their database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from failover.flows import Note, gate, notes
from failover.hosts import NETWORK, Host, Hosts, HostServer
from failover.load import Load
from perdure._binaries import Binaries
from perdure._postgres import Server
from support.database import COMMON, FORGETFUL, OWNER, PASSWORD, eventually
from support.engine import Row

DATABASE = "perdure"
WORKER = Path(__file__).with_name("worker.py")

# A killed process loses nothing that the operating system has taken, so nothing here waits for a disk. pg_rewind and
# base backups need full pages and hints in the log.
SETTINGS = {
    **COMMON,
    "fsync": FORGETFUL["fsync"],
    "shared_buffers": "32MB",
    "wal_log_hints": "on",
    "wal_keep_size": "256MB",
    "hot_standby_feedback": "on",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_retrieve_retry_interval": "200ms",
}
# What a driver finds out by itself within 20 s, in 3.
IMPATIENT = {"tcp_user_timeout": 3000, "keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}


def make_template(home: Path, binaries: Binaries) -> Server:
    """Make the cluster that all servers are copies of: an installed database, a ledger; stopped."""
    server = Server(home / "template", binaries=binaries, settings=SETTINGS)
    server.start()
    with (server.data / "pg_hba.conf").open("a") as hba:
        hba.write(f"host all all {NETWORK} scram-sha-256\nhost replication all {NETWORK} scram-sha-256\n")
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login nocreaterole password {}").format(sql.Identifier(OWNER), PASSWORD))
        conn.execute(sql.SQL("alter role postgres password {}").format(PASSWORD))
        conn.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER)))
    from support.build import install_sql

    with psycopg.connect(server.dsn(DATABASE, user=OWNER)) as conn:
        conn.execute(install_sql("perdure").encode())
        conn.execute("create table public.ledger (key text, step text, at timestamptz default clock_timestamp())")
        conn.execute("select perdure.put_workflow('order'), perdure.put_workflow('held')")
    server.stop()
    return server


class Worker:
    """A worker process, on a host or outside of both."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        """What it logged."""
        return self._log.read_text(errors="replace")

    def wait_said(self, words: str, seconds: float = 60) -> None:
        """Wait until it has logged these words."""
        eventually(lambda: words in self.said, seconds=seconds, what=f"{self.name} says: {words}")

    def stop(self) -> None:
        """Ask it to stop, and wait for its end."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.said

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


class Pair:
    """Two servers, the workers, and the file of what ordinary steps did."""

    def __init__(self, hosts: Hosts, home: Path, template: Server) -> None:
        self.hosts = hosts
        self.home = home
        self.template = template
        self.effects = home / "effects"
        self.effects.touch()
        self.workers: list[Worker] = []
        self.loads: list[Load] = []
        self.servers: list[HostServer] = []
        self._looks: list[psycopg.Connection[Any]] = []

    def load(self, keys: Sequence[str], *, dsn: str | None = None, pause: float = 0.0) -> Load:
        """Let clients begin with these keys."""
        made = Load(dsn or self.dsn(), keys, pause=pause).begin()
        self.loads.append(made)
        return made

    # Servers

    def server(self, host: Host, name: str | None = None, settings: Mapping[str, str] | None = None) -> HostServer:
        """Make a server without data on a host."""
        directory = self.home / (name or host.name)
        made = HostServer(host, directory, self.template.binaries, {**SETTINGS, **(settings or {})})
        self.servers.append(made)
        return made

    def replicated(self, *, is_sync: bool) -> tuple[HostServer, HostServer]:
        """Start a primary on the first host and its standby on the second, and wait until they stream."""
        primary, standby = self.server(self.hosts.first), self.server(self.hosts.second)
        for server in (primary, standby):
            server.copy_data(self.template.data)
        primary.start()
        standby.follow(self.conninfo(self.hosts.first, application_name=standby.host.name))
        standby.start()
        self.wait_streaming(primary, standby)
        if is_sync:
            primary.reload(synchronous_standby_names=standby.host.name)
            eventually(
                lambda: self.value(primary, "select sync_state = 'sync' from pg_stat_replication"),
                what="the standby is synchronous",
            )
        return primary, standby

    def wait_streaming(self, primary: HostServer, standby: HostServer) -> None:
        """Wait until the standby has replayed what the primary has written."""
        eventually(
            lambda: self.value(
                primary,
                "select replay_lsn >= pg_current_wal_lsn() from pg_stat_replication where application_name = %s",
                standby.host.name,
            ),
            seconds=60,
            what=f"{standby.host.name} streams",
        )

    def conninfo(self, *hosts: Host, user: str = "postgres", **options: Any) -> str:
        """How one gets to these hosts over the network."""
        addresses = ",".join(host.address for host in hosts)
        return make_conninfo("", host=addresses, port=5432, user=user, password=PASSWORD, **options)

    def dsn(self, *hosts: Host, **options: Any) -> str:
        """What applications use: the primary, wherever it is."""
        return self.conninfo(
            *(hosts or self.hosts.all),
            user=OWNER,
            dbname=DATABASE,
            **{"target_session_attrs": "read-write", "connect_timeout": 2, **IMPATIENT, **options},
        )

    # Looking on, through the unix socket: no partition is in the way

    def connect(self, server: HostServer, dbname: str = DATABASE, **options: Any) -> psycopg.Connection[Any]:
        """Connect as the superuser, autocommitting; closed at the end."""
        conn = psycopg.connect(server.dsn(dbname), autocommit=True, application_name="onlooker", **options)
        self._looks.append(conn)
        return conn

    def rows(self, server: HostServer, query: Any, *parameters: Any, dbname: str = DATABASE) -> list[tuple[Any, ...]]:
        """Ask a server."""
        with psycopg.connect(server.dsn(dbname), autocommit=True, application_name="onlooker") as conn:
            return conn.execute(query, parameters).fetchall()

    def value(self, server: HostServer, query: Any, *parameters: Any, dbname: str = DATABASE) -> Any:
        """The first column of the first row; None without a row."""
        rows = self.rows(server, query, *parameters, dbname=dbname)
        return rows[0][0] if rows else None

    def wait(self, server: HostServer, query: Any, *parameters: Any, seconds: float = 60) -> Any:
        """Wait until a query's first value is true."""
        conn = self.connect(server)

        def look() -> Any:
            row = conn.execute(query, parameters).fetchone()
            return row[0] if row else None

        try:
            return eventually(look, seconds=seconds, what=str(query))
        finally:
            conn.close()

    # Workers

    def worker(self, name: str, *, on: Host | None = None, dsn: str | None = None, **settings: str) -> Worker:
        """Start a worker; keywords become PERDURE_… settings."""
        log = self.home / f"{name}.log"
        variables = {f"PERDURE_{key.upper()}": value for key, value in settings.items()}
        environment = {
            **os.environ,
            "PERDURE_DSN": dsn or self.dsn(),
            "PERDURE_NAME": name,
            "PERDURE_EFFECTS": str(self.effects),
            **variables,
        }
        command: list[str | Path] = [sys.executable, WORKER]
        with log.open("ab") as output:
            process = subprocess.Popen(on.command(*command) if on else command, env=environment, stderr=output)
        self.workers.append(Worker(name, process, log))
        return self.workers[-1]

    # The run that one claim holds from its first step to its last

    def start_held(self, server: HostServer, key: str) -> None:
        """Start it, and wait until its first step is under way."""
        self.rows(server, "select perdure.start('held', to_jsonb(%s::text), key => %s)", key, key)
        self.wait_noted("ran", key, "reserve")

    def open_gate(self, key: str, step: str) -> None:
        """Let a step of it end."""
        gate(self.effects, key, step).touch()

    def noted(self, what: str = "ran") -> list[Note]:
        """What steps did (`ran`), or what was acknowledged to workflows (`saved`)."""
        return [note for note in notes(self.effects) if note.what == what]

    def wait_noted(self, what: str, key: str, step: str) -> None:
        """Wait until it is noted."""
        eventually(
            lambda: any((note.key, note.step) == (key, step) for note in self.noted(what)),
            seconds=60,
            what=f"{key} {what} {step}",
        )

    # What must hold

    def wait_ended(self, server: HostServer, count: int, seconds: float = 120) -> None:
        """Wait until so many runs have ended, and nothing is left."""
        self.wait(
            server,
            "select (select count(*) from perdure.outcome) >= %s and not exists (select from perdure.dispatch)",
            count,
            seconds=seconds,
        )

    def check(self, server: HostServer, keys: list[str]) -> None:
        """Each key has one run, which completed; transaction steps took effect exactly once; no invariant is broken."""
        assert self.rows(server, "select distinct status from perdure.outcome") == [("completed",)]
        assert sorted(key for (key,) in self.rows(server, "select key from perdure.runs")) == sorted(keys)
        ledger = self.rows(server, "select key, step from public.ledger order by key, step")
        assert ledger == sorted((key, step) for key in keys for step in ("book", "settle"))
        assert self.rows(server, "select invariant, run_id, detail from perdure.violations") == []

    def charged(self, server: HostServer) -> list[Row]:
        """Runs that a death was counted against."""
        return [
            {"run_id": run_id, "recoveries": recoveries}
            for run_id, recoveries in self.rows(
                server, "select run_id, recoveries from perdure.dispatch where recoveries > 0"
            )
        ]

    def close(self) -> None:
        """End clients, workers and servers."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        for conn in self._looks:
            conn.close()
        for server in self.servers:
            server.stop("immediate")
        for load in self.loads:  # last: a client may wait for a commit that waits for a standby
            load.abandon()
