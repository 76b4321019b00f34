"""Runs, workflows and queues by what people call them; what nobody knows is told with what comes nearest."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal
from uuid import UUID

import click
from typing_extensions import LiteralString

from perdure.cli import statements
from perdure.cli.session import Session
from perdure.cli.trouble import Trouble

_KNOWN: dict[str, LiteralString] = {"workflow": statements.WORKFLOW_NAMES, "queue": statements.QUEUE_NAMES}

run_argument = click.argument("run", nargs=-1, required=True, metavar="RUN")
"""One word, or WORKFLOW KEY."""


def find(db: Session, words: Sequence[str]) -> UUID:
    """Find the run that an id, the beginning of one, or a workflow and a key name."""
    if len(words) == 1:
        return db.run_id(words[0])
    if len(words) > 2:
        raise click.UsageError("RUN is one id, or a workflow and a key.")
    workflow, key = words
    run_id: UUID | None = db.value(statements.FIND_RUN, workflow=workflow, key=key)
    if run_id is None:
        check(db, "workflow", workflow)
        raise Trouble(
            f"workflow {workflow!r} has no run with the key {key!r}",
            f"`perdure runs --workflow {workflow}{db.target.options}` lists its latest runs with their keys; a key goes with its run.",
        )
    return run_id


def check(db: Session, what: Literal["workflow", "queue"], name: str | None) -> None:
    """Refuse a name that nobody has registered."""
    if name is None:
        return
    known = [each for (each,) in db.rows(_KNOWN[what])]
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.0)
        raise Trouble(
            f"no {what} {name!r} is known",
            f"The nearest known name is {near[0]!r}."
            if near
            else f"None is: `perdure register MODULE:APP` makes {what}s known.",
        )
