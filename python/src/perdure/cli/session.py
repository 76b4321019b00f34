"""Whom to connect to, and one connection for the length of a command."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

import click
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, tuple_row
from typing_extensions import LiteralString

from perdure import _install
from perdure._advice import MISSING
from perdure._build import BuildError, check_schema
from perdure._connect import conflict_pauses
from perdure._unreadable import forgive
from perdure.cli import statements, trouble

T = TypeVar("T")
Kind = Literal["client", "worker", "observer", "admin"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where the installation is: a DSN (empty: libpq's own environment) and a schema."""

    dsn: str
    schema: str

    @property
    def options(self) -> str:
        """The options that lead here, for a command to be typed."""
        return "" if self.schema == "perdure" else f" --schema {self.schema}"

    def export(self) -> None:
        """Hand it to an application that is about to be imported."""
        os.environ["PERDURE_DSN"] = self.dsn
        os.environ["PERDURE_SCHEMA"] = self.schema


def _checked_schema(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return check_schema(value)
    except BuildError as error:
        raise click.BadParameter(str(error)) from None


def schema_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --schema."""
    return click.option(
        "--schema", envvar="PERDURE_SCHEMA", default="perdure", show_default=True, metavar="NAME",
        callback=_checked_schema, help="Schema of the installation (PERDURE_SCHEMA).",
    )(command)  # fmt: skip


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --dsn and --schema; the command gets both as `target`."""

    @functools.wraps(command)
    def with_target(dsn: str, schema: str, **others: Any) -> Any:
        return command(target=Target(dsn, schema), **others)

    option = click.option(
        "--dsn", envvar="PERDURE_DSN", default="", metavar="URL",
        help="Database (PERDURE_DSN; else PGHOST, PGDATABASE ... as psql reads them).",
    )  # fmt: skip
    return option(schema_option(with_target))


class Session:
    """A connection in autocommit; every statement is one of `statements`, with its schema put in.

    Rows are read in binary, which DateStyle and IntervalStyle of the database do not change.
    """

    def __init__(self, conn: psycopg.Connection[Any], target: Target) -> None:
        self.conn = conn
        self.target = target

    @property
    def database(self) -> str:
        """The database's name."""
        return self.conn.info.dbname

    def run(self, statement: LiteralString) -> None:
        """Run what answers nothing."""
        self._execute(self.conn.cursor(), statement, None)

    def rows(self, statement: LiteralString, **parameters: Any) -> list[tuple[Any, ...]]:
        """All rows."""
        with self.conn.cursor(row_factory=tuple_row, binary=True) as cursor:
            return self._execute(cursor, statement, parameters).fetchall()

    def records(self, kind: type[T], statement: LiteralString, **parameters: Any) -> list[T]:
        """All rows, each as an object whose fields are named like the columns."""
        with self.conn.cursor(row_factory=class_row(kind), binary=True) as cursor:
            return self._execute(cursor, statement, parameters).fetchall()

    def row(self, statement: LiteralString, **parameters: Any) -> tuple[Any, ...] | None:
        """The first row, or None."""
        return next(iter(self.rows(statement, **parameters)), None)

    def value(self, statement: LiteralString, **parameters: Any) -> Any:
        """The first column of the first row, or None."""
        row = self.row(statement, **parameters)
        return None if row is None else row[0]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let the reads within see one moment."""
        self.conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self.conn.read_only = True
        try:
            with self.conn.transaction():
                yield
        finally:
            self.conn.isolation_level = None
            self.conn.read_only = None

    def run_id(self, given: str) -> UUID:
        """Find the run that an id, or the beginning of one, names."""
        digits = given.strip().lower().replace("-", "")
        if not digits or len(digits) > 32 or set(digits) - set("0123456789abcdef"):
            raise trouble.Trouble(
                f"{given!r} is no run id",
                "Pass an id as `perdure runs` prints it, or its beginning; explain and show take WORKFLOW KEY as well.",
                code=trouble.MISUSED,
            )
        if len(digits) == 32:
            return UUID(digits)
        found = self.rows(
            statements.RUNS_BY_PREFIX, lowest=UUID(digits.ljust(32, "0")), highest=UUID(digits.ljust(32, "f"))
        )
        if len(found) == 1:
            run_id: UUID = found[0][0]
            return run_id
        if not found:
            raise trouble.Trouble(f"no run's id begins with {given!r}", "`perdure runs` lists the latest runs.")
        raise trouble.Trouble(
            f"more than one run's id begins with {given!r}",
            "Type more of it; among them are: " + ", ".join(str(run_id) for (run_id,) in found[:3]),
        )

    def _execute(self, cursor: psycopg.Cursor[T], statement: LiteralString, parameters: Any) -> psycopg.Cursor[T]:
        """Execute; outside a block again where it met another's and the role's default isolation is strict."""
        for pause in conflict_pauses():
            try:
                return cursor.execute(self._text(statement), parameters)
            except psycopg.errors.SerializationFailure:  # noqa: PERF203  nothing of it took effect
                if self.conn.info.transaction_status != TransactionStatus.IDLE:
                    raise
                time.sleep(pause)
        return cursor.execute(self._text(statement), parameters)

    def _text(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(perdure=sql.Identifier(self.target.schema))


@contextmanager
def connect(target: Target) -> Iterator[psycopg.Connection[Any]]:
    """Connect in autocommit, or say why not."""
    try:
        conn = psycopg.connect(
            _with_timeout(target.dsn),
            autocommit=True,
            prepare_threshold=None,  # a pooler may give each transaction another backend
            client_encoding="utf8",  # JSON is read as such, whatever encoding the database has
            fallback_application_name="perdure",
        )
    except psycopg.Error as error:
        raise trouble.cannot_connect(error, target.dsn) from None
    with conn:
        yield forgive(conn)


def _with_timeout(dsn: str) -> str:
    """Wait for a server that does not answer for 10 s at most, unless told otherwise."""
    if "PGCONNECT_TIMEOUT" in os.environ or "connect_timeout" in conninfo_to_dict(dsn):
        return dsn
    return make_conninfo(dsn, connect_timeout=10)


@contextmanager
def session(target: Target, kind: Kind) -> Iterator[Session]:
    """Connect; what the database refuses meanwhile becomes a sentence. `kind` is the right that is needed."""
    with connect(target) as conn:
        try:
            yield Session(conn, target)
        except MISSING as error:
            raise _missing(conn, target, error) from None
        except psycopg.Error as error:
            raise refused(conn, target, error, kind) from None


def refused(conn: psycopg.Connection[Any], target: Target, error: psycopg.Error, kind: Kind) -> trouble.Trouble:
    """Say what the database refused on this connection."""
    info = conn.info
    return trouble.refused(error, database=info.dbname, role=info.user, schema=target.schema, kind=kind)


def _missing(conn: psycopg.Connection[Any], target: Target, error: psycopg.Error) -> trouble.Trouble:
    """Tell an installation that is not there from one of another version."""
    installation = _install.status(conn, target.schema)
    if installation is None:
        return trouble.not_installed(database=conn.info.dbname, schema=target.schema)
    packaged = _install.packaged_version()
    if installation.version not in (None, packaged):
        return trouble.Trouble(
            f'schema "{target.schema}" has Perdure {installation.version}, this command belongs to {packaged}',
            "Run the upgrade of the database, or the command of its version.",
            detail=error.diag.message_primary,
        )
    return trouble.Trouble(
        f'the installation in schema "{target.schema}" is not whole: {error.diag.message_primary}',
        "Something was dropped, or it was made from other sources of the same version: install it anew.",
    )
