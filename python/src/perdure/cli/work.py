"""Execute an application's workflows, or make them known."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta

import click
from click.core import ParameterSource

from perdure._visible import one_line
from perdure.cli import statements
from perdure.cli.loading import Application, load
from perdure.cli.session import Session, Target, session, target_options
from perdure.cli.trouble import MISUSED, Trouble


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option(
    "--queues", metavar="A,B", help="Take runs from these queues; by default from all of the app's workflows."
)
@click.option("--max-runs", type=click.IntRange(1), default=100, show_default=True, help="Runs held at once.")
@click.option("--max-steps", type=click.IntRange(1), default=50, show_default=True, help="Steps running at once.")
@click.option(
    "--stop-timeout", type=click.FloatRange(0), default=20.0, show_default=True, metavar="SECONDS",
    help="What the steps in flight get when it is told to stop.",
)  # fmt: skip
@click.option("--name", help="For people, in doctor and in the view workers; by default host and process.")
@click.option("--version", help="Version of your code.")
@target_options
def worker(
    target: Target,
    app: str,
    queues: str | None,
    max_runs: int,
    max_steps: int,
    stop_timeout: float,
    name: str | None,
    version: str | None,
) -> None:
    """Run a worker for the application MODULE:APP, such as shop.flows:app.

    SIGTERM or Ctrl-C stops it gracefully: it claims nothing more, lets steps in flight end, and gives back what it
    holds, which burns no attempt. A second one stops it at once.
    """
    found = _loaded(app, target)
    taken = None if queues is None else _names(queues)
    report_progress()
    with session(found.target, "worker") as db:
        check(db)
        where = db.database
    click.echo(f"worker for {app}: database {where}, queues {', '.join(taken or found.queues)}", err=True)
    with session(found.target, "worker"):
        found.app.run_worker(
            queues=taken,
            max_runs=max_runs,
            max_steps=max_steps,
            stop_timeout=timedelta(seconds=stop_timeout),
            name=name,
            version=version,
        )
    click.echo("the worker has stopped", err=True)


@click.command()
@click.argument("app", metavar="MODULE:APP")
@target_options
def register(target: Target, app: str) -> None:
    """Make the workflows of MODULE:APP and their queues known.

    For a deploy: runs can be started from then on, before any worker is there.
    """
    found = _loaded(app, target)
    with session(found.target, "worker") as db:
        check(db)
        asyncio.run(found.app.register())
    for name, queue in found.workflows:
        click.echo(f"{name}  queue {queue}")


def check(db: Session) -> None:
    """Say it in a sentence, and before a worker begins, if there is nothing to work with."""
    db.value(statements.VERSION)


def report_progress() -> None:
    """Let the driver's log be read: what it does to stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(one_line)  # what runs log passes by the filter of the driver's own
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("perdure")
    if not logger.handlers:
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _loaded(named: str, target: Target) -> Application:
    """Load it; a --dsn that it would not follow is told, not passed over."""
    target.export()
    found = load(named)
    context = click.get_current_context()
    for option, given, own in (
        ("dsn", target.dsn, found.target.dsn),
        ("schema", target.schema, found.target.schema),
    ):
        if given != own and context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise Trouble(
                f"{named} has a {option} of its own, so --{option} would change nothing",
                f"Leave {option}= out of App(...): it takes PERDURE_{option.upper()} then, and this option.",
                code=MISUSED,
            )
    return found


def _names(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("name one queue at least.", param_hint="--queues")
    return names
