"""List runs; say why one does not go on."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from perdure._visible import visible
from perdure.cli import names, output, statements
from perdure.cli.output import print_json, print_records, print_table
from perdure.cli.session import Session, Target, session, target_options
from perdure.cli.trouble import Trouble
from perdure.cli.values import pair

_COLUMNS = ("run", "workflow", "state", "key", "queue", "created", "finished")
_WIDE = 130


@click.command()
@click.option("--state", "states", multiple=True, help="May be given many times: running, failed ...")
@click.option("--workflow")
@click.option("--queue")
@click.option("--key")
@click.option(
    "--tag", "tags", type=pair, multiple=True, metavar="K=V", help="May be given many times: a run has all of them."
)
@click.option("--since", metavar="INTERVAL", help="Started no longer ago than that: '1 day', 2h.")
@click.option(
    "--before", metavar="RUN", help="Started before that run: the next page, where it is the last of this one."
)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
@click.option("--ids", is_flag=True, help="Print nothing but ids: perdure retry $(perdure runs --state failed --ids)")
@target_options
def runs(
    target: Target,
    states: Sequence[str],
    workflow: str | None,
    queue: str | None,
    key: str | None,
    tags: Sequence[tuple[str, str]],
    since: str | None,
    before: str | None,
    limit: int,
    as_json: bool,
    ids: bool,
) -> None:
    """List runs, the latest first.

    Among millions, what is rare is found sooner where --since says how far to look: by workflow, queue or tag it is looked
    for run by run.
    """
    with session(target, "observer") as db:
        are_ended = _are_ended(db, states)
        found = db.rows(
            statements.RUNS,
            states=list(states) or None,
            workflow=workflow,
            queue=queue,
            key=key,
            tags=json.dumps(dict(tags)) if tags else None,
            since=since,
            before=db.run_id(before) if before else None,
            ended=are_ended == {True},
            unfinished=are_ended == {False},
            running=set(states) == {"running"},
            limit=limit + 1,
        )
        if not found:
            names.check(db, "workflow", workflow)
            names.check(db, "queue", queue)
    found, more = found[:limit], found[limit:]
    empty = "No run is like that." if any((states, workflow, queue, key, tags, since, before)) else "No runs."
    if ids:
        for row in found:
            click.echo(row[0])
    elif as_json:
        print_records(_COLUMNS, found)
    elif output.is_terminal() and output.console().width < _WIDE:
        narrow = [(run, state, name, own, output.age(created)) for run, name, state, own, _, created, _ in found]
        print_table(("run", "state", "workflow", "key", "age"), narrow, empty=empty)
    else:
        print_table(_COLUMNS, found, empty=empty)
    if more:
        click.echo(f"There are more: add --before {found[-1][0]}, or a higher --limit.", err=True)


@click.command()
@names.run_argument
@click.option("--json", "as_json", is_flag=True, help="Print an array of sentences.")
@target_options
def explain(target: Target, run: Sequence[str], as_json: bool) -> None:
    """Say in sentences where RUN stands, why it does not go on, and what to type.

    RUN is an id, or the beginning of one; or WORKFLOW KEY.
    """
    with session(target, "observer") as db:
        lines = [line for (line,) in db.rows(statements.EXPLAIN, run_id=names.find(db, run))]
    if as_json:
        print_json(lines)
    else:
        click.echo("\n".join(map(visible, lines)))


def _are_ended(db: Session, states: Sequence[str]) -> set[bool]:
    """Whether runs in these states have ended; refuse a state that there is not."""
    if not states:
        return set()
    known = dict(db.rows(statements.STATES))
    for state in states:
        if state not in known:
            raise Trouble(f"no run is ever in state {state!r}", f"States are: {', '.join(known)}.")
    return {known[state] for state in states}
