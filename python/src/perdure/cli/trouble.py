"""Every failure as one clear sentence that says what to do, and the exit codes."""

from __future__ import annotations

from typing import IO, Any

import click
import psycopg
from psycopg import errors

from perdure import _advice
from perdure._connect import SET_MODE, STATEMENT_MODE, STATEMENT_POOLING
from perdure._visible import visible_lines

FAILED = 1  # the answer is no: the database refused, a run ended badly, doctor found something
MISUSED = 2  # wrong options, wrong JSON, a module that cannot be loaded; click's own code for it
UNREACHABLE = 3  # no server, no installation, no Postgres binaries
GIVEN = "--dsn or PERDURE_DSN"
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
    return Trouble(*_advice.cannot_connect(error, dsn, given=GIVEN), code=UNREACHABLE)


def refused(error: psycopg.Error, *, database: str, role: str, schema: str, kind: str) -> Trouble:
    """Say what the database refused, and what to do about it."""
    diagnostic = error.diag
    message = diagnostic.message_primary or str(error)
    detail, hint = diagnostic.message_detail, diagnostic.message_hint
    words = _advice.refused(error, database=database, role=role, schema=schema, kind=kind, given=GIVEN)
    if words is not None:
        return Trouble(*words)
    if STATEMENT_POOLING in message:
        return Trouble(STATEMENT_MODE, SET_MODE)
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
        *_advice.not_installed(database=database, schema=schema, given="--dsn and --schema"), code=UNREACHABLE
    )
