"""What to do about a database that cannot be used as it is: one home of these words, for the driver and the command line.

Invariant: an error of psycopg stays what it is, for those who catch it; advice is added to it as a note.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

# What the database raises when something that this version calls is not there.
MISSING = (errors.InvalidSchemaName, errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn)

# Where a driver's connection string is given; the command line has an option beside.
_GIVEN = "App(dsn=...) or PERDURE_DSN"

_NO_DATABASE = ('database "', "does not exist")
_NO_ROLE = ('role "', "does not exist")
_WRONG_PASSWORD = ("authentication failed", "no password supplied")
_NOT_ADMITTED = "no pg_hba.conf entry"


def cannot_connect(error: psycopg.Error, dsn: str, *, given: str = _GIVEN) -> tuple[str, str]:
    """Say why there is no connection, and what to do."""
    reason = _reasons(error)[-1]  # libpq tells of each address it tried; the last one will do
    if all(part in reason for part in _NO_DATABASE):
        hint = f"Create it (createdb), or name another one with {given}."
    elif any(part in reason for part in _WRONG_PASSWORD):
        hint = f"Put the password into {given.replace(' or ', ', ')}, PGPASSWORD or ~/.pgpass."
    elif all(part in reason for part in _NO_ROLE):
        hint = f"Name a role that exists: postgresql://ROLE@HOST/DATABASE in {given}."
    elif isinstance(error, psycopg.ProgrammingError):
        hint = "A DSN looks like postgresql://user:password@host:5432/database, or like: host=... dbname=..."
    else:
        hint = f"Start the server, or name another one with {given}; `perdure dev` runs one of its own."
    return f"cannot connect to {place(dsn)}: {reason}", hint


def is_hopeless(error: psycopg.Error) -> bool:
    """Tell whether a server is there and takes nobody by this connection string: waiting would not help."""
    return all(
        all(part in reason for part in _NO_DATABASE)
        or all(part in reason for part in _NO_ROLE)
        or any(part in reason for part in (*_WRONG_PASSWORD, _NOT_ADMITTED))
        for reason in _reasons(error)
    )


def _reasons(error: psycopg.Error) -> list[str]:
    said = str(error).strip()
    # Lines without "failed: " are libpq's own advice.
    tried = [line for line in said.splitlines() if "failed: " in line] or said.splitlines() or ["no reason given"]
    return [line.rpartition("failed: ")[2].removeprefix("FATAL:  ").strip() for line in tried]


def place(dsn: str) -> str:
    """Name a server without its password: what the DSN says, else what libpq finds in the environment."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        return "the server"
    for option in psycopg.pq.Conninfo.get_defaults():
        if option.val is not None and parts.get(option.keyword.decode()) is None:
            parts[option.keyword.decode()] = option.val.decode()
    host, port, role, database = (parts.get(word) for word in ("host", "port", "user", "dbname"))
    where = f"at {host}:{port}" if host else "on this machine"
    return f"database {str(database or role)!r} {where} as role {str(role)!r}"


def not_installed(*, database: str, schema: str, given: str = "dsn= and schema= of App") -> tuple[str, str]:
    """There is no installation to talk to."""
    return (
        f'Perdure is not installed in schema "{schema}" of database "{database}"',
        f"Install it with `perdure install`, or name where it is with {given} (PERDURE_DSN and PERDURE_SCHEMA).",
    )


def refused(
    error: psycopg.Error, *, database: str, role: str, schema: str, kind: str, given: str = _GIVEN
) -> tuple[str, str] | None:
    """Say what the database refused to do for a role, and what to do; None where its own words will do."""
    diagnostic = error.diag
    if isinstance(error, errors.InsufficientPrivilege) and not diagnostic.message_hint:
        return (
            f'role "{role}" may not do this in schema "{schema}" of database "{database}":'
            f" {diagnostic.message_primary or error}",
            f"Ask its owner for: select {schema}.grant_role('{role}', '{kind}');",
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return (
            f'this server shows database "{database}" and changes nothing: it is a standby, or the session is read-only',
            f"Name the primary, or all hosts with target_session_attrs=read-write, in {given}.",
        )
    return None


@contextmanager
def advised_connecting(dsn: str) -> Iterator[None]:
    """Add to an error of connecting what to do about it."""
    try:
        yield
    except psycopg.Error as error:
        _add(error, cannot_connect(error, dsn))
        raise


@contextmanager
def advised(conn: psycopg.AsyncConnection[Any] | psycopg.Connection[Any], schema: str, kind: str) -> Iterator[None]:
    """Add to what the database refuses what to do about it; `kind` is the right that is needed."""
    try:
        yield
    except psycopg.Error as error:
        if not conn.closed:
            database, role = conn.info.dbname, conn.info.user
            if isinstance(error, errors.InvalidSchemaName):
                _add(error, not_installed(database=database, schema=schema))
            elif isinstance(error, MISSING):
                says = f'the installation in schema "{schema}" of database "{database}" is not the one of this driver'
                _add(error, (says, "`perdure doctor` compares them."))
            elif (words := refused(error, database=database, role=role, schema=schema, kind=kind)) is not None:
                _add(error, words)
        raise


def _add(error: psycopg.Error, words: tuple[str, str]) -> None:
    note = "\n".join(words)
    if note in getattr(error, "__notes__", ()):
        return
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:  # nobody would show it there
        vars(error)["__notes__"] = [note]
        error.args = (f"{error}\n{note}", *error.args[1:])
