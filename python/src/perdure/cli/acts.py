"""What an operator asks of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import click
from typing_extensions import LiteralString

from perdure.cli import statements
from perdure.cli.output import print_json
from perdure.cli.session import Target, session, target_options
from perdure.cli.trouble import FAILED

_TAKEN = ("accepted", "duplicate")  # it is, or was already, as was asked

_MEANING = {
    "finished": "finished: the run has ended, nothing was changed",
    "unknown": "unknown: there is no such run",
    "illegal": "illegal: the act does not fit the run's state; select * from {schema}.act_rules tells which do",
    "duplicate": "duplicate: it is so already",
}


def _act_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")(
        target_options(command)
    )
    command = click.option("--reason", help="Kept in the audit and shown with the run.")(command)
    return click.argument("runs", nargs=-1, required=True, metavar="RUN...")(command)


@click.command()
@_act_options
@click.option("--grace", metavar="INTERVAL", help="Time for clean-up; by default 5 minutes.")
def cancel(target: Target, runs: Sequence[str], reason: str | None, as_json: bool, grace: str | None) -> None:
    """Ask runs to end: each is told at its next await and may clean up until the grace has passed."""
    _ask(target, statements.CANCEL, runs, reason, as_json, kind_is_client=True, grace=grace)


@click.command()
@_act_options
def terminate(target: Target, runs: Sequence[str], reason: str | None, as_json: bool) -> None:
    """End runs without any clean-up."""
    _ask(target, statements.TERMINATE, runs, reason, as_json)


@click.command()
@_act_options
def pause(target: Target, runs: Sequence[str], reason: str | None, as_json: bool) -> None:
    """Keep runs from going on until they are resumed."""
    _ask(target, statements.PAUSE, runs, reason, as_json)


@click.command()
@_act_options
def resume(target: Target, runs: Sequence[str], reason: str | None, as_json: bool) -> None:
    """Let paused runs go on."""
    _ask(target, statements.RESUME, runs, reason, as_json)


@click.command()
@_act_options
@click.option("--from-step", metavar="KEY", help="Make this step and all later ones again; for one run.")
def retry(target: Target, runs: Sequence[str], reason: str | None, as_json: bool, from_step: str | None) -> None:
    """Let ended runs go on from where they stopped: saved steps are kept, the failed one is tried again."""
    if from_step is None:
        _ask(target, statements.RETRY, runs, reason, as_json)
        return
    if len(runs) > 1:
        raise click.UsageError("--from-step is for one run: the steps of others are their own.")
    with session(target, "admin") as db:
        run_id = db.run_id(runs[0])
        answer = db.value(statements.RETRY_FROM, run_id=run_id, from_step=from_step, reason=reason)
    _tell(target, [(run_id, answer)], as_json)


def _ask(
    target: Target,
    statement: LiteralString,
    runs: Sequence[str],
    reason: str | None,
    as_json: bool,
    *,
    kind_is_client: bool = False,
    **options: str | None,
) -> None:
    with session(target, "client" if kind_is_client else "admin") as db:
        run_ids = [db.run_id(given) for given in runs]
        answers = dict(db.rows(statement, run_ids=run_ids, reason=reason, **options))
    _tell(target, [(run_id, answers[run_id]) for run_id in dict.fromkeys(run_ids)], as_json)


def _tell(target: Target, answers: Sequence[tuple[UUID, str]], as_json: bool) -> None:
    if as_json:
        print_json([{"run_id": run_id, "answer": answer} for run_id, answer in answers])
    else:
        for run_id, answer in answers:
            click.echo(f"{run_id}  {_MEANING.get(answer, answer).format(schema=target.schema)}")
    if any(answer not in _TAKEN for _, answer in answers):
        click.get_current_context().exit(FAILED)
