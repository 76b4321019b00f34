"""Every failure as one clear sentence that says what to do, and the exit codes."""

from __future__ import annotations

from typing import IO, Any

import click
import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from perdure._connect import SET_MODE, STATEMENT_MODE, STATEMENT_POOLING
from perdure._visible import visible_lines

FAILED = 1  # the answer is no: the database refused, a run ended badly, doctor found something
MISUSED = 2  # wrong options, wrong JSON, a module that cannot be loaded; click's own code for it
UNREACHABLE = 3  # no server, no installation, no Postgres binaries
INTERRUPTED = 130  # Ctrl-C, as shells say it


class Trouble(click.ClickException):
    """What went wrong, in a sentence; what the facts are; what to do."""

    def __init__(self, message: str, hint: str | None = None, *, detail: str | None = None, code: int = FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.detail = detail
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it to stderr."""
        click.secho("error: ", fg="red", bold=True, nl=False, err=True, file=file)
        click.echo(visible_lines(sentence(self.message)), err=True, file=file)
        if self.detail:
            click.echo(f"  {visible_lines(self.detail)}", err=True, file=file)
        if self.hint:
            click.echo(f"  {visible_lines(self.hint)}", err=True, file=file)


def sentence(text: str) -> str:
    """A primary message of Postgres has no full stop; a sentence has."""
    text = text.strip()
    return text if not text or text[-1] in ".!?:)" or "\n" in text else f"{text}."


def cannot_connect(error: psycopg.Error, dsn: str) -> Trouble:
    """Say why there is no connection."""
    said = str(error).strip()
    where = place(dsn)
    # libpq tells of each address it tried; the last one will do. Lines without "failed: " are its own advice.
    tried = [line for line in said.splitlines() if "failed: " in line] or said.splitlines() or ["no reason given"]
    reason = tried[-1].rpartition("failed: ")[2].removeprefix("FATAL:  ").strip()
    if 'database "' in reason and "does not exist" in reason:
        hint = "Create it (createdb), or name another one with --dsn or PERDURE_DSN."
    elif "authentication failed" in reason or "no password supplied" in reason:
        hint = "Put the password into --dsn, PERDURE_DSN, PGPASSWORD or ~/.pgpass."
    elif 'role "' in reason and "does not exist" in reason:
        hint = "Name a role that exists: postgresql://ROLE@HOST/DATABASE in --dsn or PERDURE_DSN."
    elif isinstance(error, psycopg.ProgrammingError):
        hint = "A DSN looks like postgresql://user:password@host:5432/database, or like: host=... dbname=..."
    else:
        hint = "Start the server, or name another one with --dsn or PERDURE_DSN; `perdure dev` runs one of its own."
    return Trouble(f"cannot connect to {where}: {reason}", hint, code=UNREACHABLE)


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


def refused(error: psycopg.Error, *, database: str, role: str, schema: str, kind: str) -> Trouble:
    """Say what the database refused, and what to do about it."""
    diagnostic = error.diag
    message = diagnostic.message_primary or str(error)
    detail, hint = diagnostic.message_detail, diagnostic.message_hint
    if isinstance(error, errors.InsufficientPrivilege) and not hint:
        return Trouble(
            f'role "{role}" may not do this in schema "{schema}" of database "{database}": {message}',
            f"Ask its owner for: select {schema}.grant_role('{role}', '{kind}');",
        )
    if STATEMENT_POOLING in message:
        return Trouble(STATEMENT_MODE, SET_MODE)
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Trouble(
            f'this server shows database "{database}" and changes nothing: it is a standby, or the session is read-only',
            "Name the primary, or all hosts with target_session_attrs=read-write, in --dsn or PERDURE_DSN.",
        )
    if diagnostic.sqlstate is None or isinstance(error, errors.AdminShutdown):
        return Trouble(
            f"the connection was lost: {message.splitlines()[0]}",
            "Nothing is known about what was under way; look with `perdure runs` once the server is back.",
            code=UNREACHABLE,
        )
    return Trouble(message, hint, detail=detail)


def not_installed(*, database: str, schema: str) -> Trouble:
    """There is no installation to talk to."""
    return Trouble(
        f'Perdure is not installed in schema "{schema}" of database "{database}"',
        "Install it with `perdure install`, or name where it is with --dsn and --schema "
        "(PERDURE_DSN and PERDURE_SCHEMA).",
        code=UNREACHABLE,
    )
