"""Servers and databases as tests see them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typing_extensions import LiteralString

from perdure._postgres import Binaries, Server
from support import isolation
from support.build import install_sql
from support.clock import Clock
from support.provision import Provided

T = TypeVar("T")

OWNER = "perdure_test_owner"
PASSWORD = "perdure"  # of every role made here; private servers trust and do not ask

# Nothing here is worth keeping, and a commit that waits for a disk makes every test slow.
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
COMMON = {"max_connections": "200", "timezone": "UTC", "log_line_prefix": "%m [%p] %d ", "log_lock_waits": "on"}


def eventually(look: Callable[[], T], *, seconds: float = 10, what: str = "") -> T:
    """Ask again and again until the answer is true, and return it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := look():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or look}")
        time.sleep(0.005)


class PostgresServer:
    """A server to test against, with a superuser's rights; `local` is there when it may be stopped and killed."""

    def __init__(self, dsn: str, local: Server | None, prefix: str) -> None:
        self.local = local
        self.prefix = prefix
        self._parameters = conninfo_to_dict(dsn)
        self._templates: dict[str, str] = {}
        self._databases: list[Database] = []
        self._count = 0
        with self.admin() as conn:
            self.version = conn.info.server_version
            self.superuser = conn.info.user
            found = conn.execute("select from pg_available_extensions where name = 'plpgsql_check'").fetchone()
            self.has_plpgsql_check = found is not None
            found = conn.execute("select from pg_collation where collname = 'und-x-icu'").fetchone()
            self.has_icu = found is not None
        self.create_role(OWNER)

    @property
    def major(self) -> int:
        """The major version, such as 15."""
        return self.version // 10000

    @property
    def server(self) -> Server:
        """The private server behind it, for tests that stop, restart or kill it."""
        assert self.local is not None, "this test needs a server of its own"
        return self.local

    def dsn(self, dbname: str, role: str | None = None) -> str:
        """The connection string of a database, as the superuser or as a role made by `create_role`."""
        overrides: dict[str, Any] = {"dbname": dbname}
        if self.local is not None and self.local.port is not None:
            overrides["port"] = self.local.port
        if role is not None and role != self._parameters.get("user"):
            overrides |= {"user": role, "password": PASSWORD}
        return make_conninfo("", **{**self._parameters, **overrides})

    def admin(self, dbname: str = "postgres") -> psycopg.Connection:
        """Connect as the superuser, autocommitting."""
        return psycopg.connect(self.dsn(dbname), autocommit=True)

    def create_role(self, name: str, options: LiteralString = "login nocreaterole nocreatedb") -> None:
        """Make a role that can log in, if it is not there yet."""
        with self.admin() as conn, suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            conn.execute(
                sql.SQL("create role {} {} password {}").format(sql.Identifier(name), sql.SQL(options), PASSWORD)
            )

    def create_database(
        self,
        name: str | None = None,
        *,
        template: str = "template0",
        owner: str = OWNER,
        options: LiteralString = "",
    ) -> Database:
        """Make a database, by default an empty one that belongs to the plain owner, with options such as its locale."""
        if name is None:
            self._count += 1
            name = f"{self.prefix}_{self._count}"
        statement = sql.SQL("create database {} template {} owner {} {}").format(
            sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner), sql.SQL(options)
        )
        with self.admin() as conn:
            conn.execute(statement)
            if isolation.LEVEL:
                level = sql.SQL("alter database {} set default_transaction_isolation = {}")
                conn.execute(level.format(sql.Identifier(name), sql.Literal(isolation.LEVEL)))
        made = Database(self, name, owner)
        self._databases.append(made)
        return made

    def drop_database(self, name: str) -> None:
        """Remove a database and whoever is in it."""
        with self.admin() as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def forget(self, database: Database) -> None:
        """Remove a database that was made here."""
        self._databases.remove(database)
        self.drop_database(database.name)

    def template(self, schema: str = "perdure") -> str:
        """The database in which Perdure is installed, made once, by its plain owner; to be cloned, not to be used."""
        if schema not in self._templates:
            database = self.create_database(f"{self.prefix}_template_{schema}")
            try:
                database.install(schema)
            finally:
                database.close()
            self._templates[schema] = database.name
        return self._templates[schema]

    def installed_database(self, name: str | None = None) -> Database:
        """A fresh database with Perdure in it; a clone is a copy elsewhere, held until it is told that it is the one."""
        made = self.create_database(name, template=self.template())
        with self.admin(made.name) as conn:
            conn.execute("select perdure._write_identity()")
        return made

    def close(self) -> None:
        """Remove what was made: the whole server if it is a private one, else the databases."""
        for database in self._databases:
            database.close()
        if self.local is not None:
            if kept := os.environ.get("PERDURE_TEST_LOGS"):
                Path(kept).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.local.log, Path(kept) / f"{self.local.directory.parent.name}.log")
            self.local.destroy()
            return
        for database in self._databases:
            self.drop_database(database.name)


class Database:
    """A database of the test's own. What is connected through it is closed at the test's end."""

    def __init__(self, server: PostgresServer, name: str, owner: str) -> None:
        self.server = server
        self.name = name
        self.owner = owner
        self._connections: list[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = []

    @property
    def superuser(self) -> str:
        """The superuser's name, for `connect(superuser)`."""
        return self.server.superuser

    def dsn(self, role: str | None = None) -> str:
        """The connection string, as the owner when no role is given."""
        return self.server.dsn(self.name, role or self.owner)

    def connect(self, role: str | None = None, *, autocommit: bool = True, **options: Any) -> psycopg.Connection[Any]:
        """Connect, as the owner when no role is given."""
        conn = psycopg.connect(self.dsn(role), autocommit=autocommit, **{**isolation.options(), **options})
        isolation.prepare(conn)
        self._connections.append(conn)
        return conn

    async def aconnect(
        self, role: str | None = None, *, autocommit: bool = True, **options: Any
    ) -> psycopg.AsyncConnection[Any]:
        """Connect for asyncio, as the owner when no role is given."""
        conn = await psycopg.AsyncConnection.connect(self.dsn(role), autocommit=autocommit, **options)
        self._connections.append(conn)
        return conn

    @cached_property
    def admin(self) -> psycopg.Connection[Any]:
        """A superuser's connection for looking on; autocommitting."""
        return self.connect(self.superuser, application_name="onlooker")

    @cached_property
    def clock(self) -> Clock:
        """The database's clock, under the test's control from the first use on."""
        return Clock(self.connect(application_name="clock"))

    def install(self, schema: str = "perdure", role: str | None = None) -> None:
        """Install Perdure as `make install` does: the built file, in one transaction."""
        conn = self.connect(role, autocommit=False)
        with conn.transaction():
            conn.execute(install_sql(schema).encode())  # bytes: the file is no literal
        conn.close()

    def value(self, query: LiteralString, *parameters: Any) -> Any:
        """The first column of the first row, as the superuser; None when there is no row."""
        row = self.admin.execute(query, parameters).fetchone()
        return row[0] if row else None

    def wait_blocked(
        self,
        waiter: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | int,
        *,
        by: int | None = None,
        seconds: float = 10,
    ) -> list[int]:
        """Wait until a backend is seen waiting for a lock (held by backend `by`), and return who is in its way."""
        pid = waiter if isinstance(waiter, int) else waiter.info.backend_pid

        def look() -> list[int]:
            row = self.admin.execute(
                "select pg_blocking_pids(a.pid) from pg_stat_activity as a where a.pid = %s and a.wait_event_type = 'Lock'",
                [pid],
            ).fetchone()
            blockers: list[int] = row[0] if row else []
            return blockers if by is None or by in blockers else []

        return eventually(look, seconds=seconds, what=f"backend {pid} waits for a lock")

    def wait_until(self, query: LiteralString, *parameters: Any, seconds: float = 10) -> Any:
        """Wait until a query's first value is true, and return it."""
        return eventually(lambda: self.value(query, *parameters), seconds=seconds, what=query)

    def close(self) -> None:
        """Close every connection made through it."""
        for conn in self._connections:
            conn.pgconn.finish()
        self._connections.clear()
        self.__dict__.pop("admin", None)
        self.__dict__.pop("clock", None)

    def drop(self) -> None:
        """Close and remove it."""
        self.close()
        self.server.forget(self)


def in_background(work: Callable[..., T], *arguments: Any, **keywords: Any) -> Future[T]:
    """Begin work in a thread of its own; its result or exception is in the Future. It does not outlive the tests."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **keywords))
        except BaseException as error:  # noqa: BLE001 - it is the future's
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name=f"background {getattr(work, '__name__', work)}").start()
    return future


def private_server(
    binaries: Binaries | None, prefix: str, settings: Mapping[str, str] | None = None, *, port: int | None = None
) -> PostgresServer:
    """Start a cluster of the tests' own in a temporary directory."""
    home = Path(tempfile.mkdtemp(prefix=f"perdure-test-{os.getpid()}-"))
    home.chmod(0o755)  # the account that runs the server passes through; what is inside is closed
    local = Server(home / "server", binaries=binaries, settings={**COMMON, **(settings or {})}, port=port)
    try:
        local.start()
        return PostgresServer(local.dsn(), local, prefix)
    except BaseException:
        local.destroy()
        raise


@contextmanager
def any_server(provided: Provided, prefix: str) -> Iterator[PostgresServer]:
    """The server that was provided, whichever way, cleaned up afterwards."""
    if provided.binaries is not None:
        server = private_server(provided.binaries, prefix, FORGETFUL)
        try:
            yield server
        finally:
            remove(server)
        return
    if provided.dsn is not None:
        server = PostgresServer(provided.dsn, None, prefix)
        try:
            yield server
        finally:
            server.close()
        return
    assert provided.image is not None
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(provided.image, username="postgres", driver=None) as container:
        yield PostgresServer(container.get_connection_url(), None, prefix)


def remove(server: PostgresServer) -> None:
    """Stop a private server and remove its directory."""
    server.close()
    shutil.rmtree(server.server.directory.parent, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the servers of test runs that were killed: their directories are named after a process that is gone."""
    for home in Path(tempfile.gettempdir()).glob("perdure-test-*"):
        match = re.match(r"perdure-test-(\d+)-", home.name)
        with suppress(FileNotFoundError):  # whoever made it has just removed it
            if match is None or home.stat().st_uid != os.geteuid() or Path(f"/proc/{match[1]}").exists():
                continue
        if (home / "server" / "data").is_dir() and Path("/proc").is_dir():
            Server(home / "server").destroy()
            shutil.rmtree(home, ignore_errors=True)
