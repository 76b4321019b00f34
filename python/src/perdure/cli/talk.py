"""Start runs and send them signals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

import click
import psycopg

from perdure.cli import statements
from perdure.cli.output import print_json
from perdure.cli.session import Session, Target, session, target_options
from perdure.cli.trouble import FAILED, INTERRUPTED, Trouble
from perdure.cli.values import json_text, pair

_ANSWERS = {
    "accepted": "accepted: the run finds the signal when it waits for it",
    "duplicate": "duplicate: a signal with this id was sent before, nothing was changed",
}


@click.command()
@click.argument("workflow")
@click.argument("input", type=json_text, default="{}", metavar="[INPUT]")
@click.option("--key", help="Idempotency key: the same key gives the same run.")
@click.option(
    "--on-duplicate", default="attach", show_default=True, metavar="RULE",
    help="When the key is taken: attach, restart_if_failed, restart_if_finished, replace or error.",
)  # fmt: skip
@click.option("--queue", help="Instead of the workflow's own.")
@click.option("--priority", type=int, default=3, show_default=True, help="1 (first) to 5 (last).")
@click.option("--delay", metavar="INTERVAL", help="Start later: '90 seconds', '2 days'.")
@click.option("--timeout", metavar="INTERVAL", help="From the first claim on.")
@click.option("--tag", "tags", type=pair, multiple=True, metavar="K=V", help="May be given many times.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result; exit code 1 if it ends badly.")
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
@target_options
def start(
    target: Target,
    workflow: str,
    input: str,
    key: str | None,
    on_duplicate: str,
    queue: str | None,
    priority: int,
    delay: str | None,
    timeout: str | None,
    tags: Sequence[tuple[str, str]],
    wait: bool,
    as_json: bool,
) -> None:
    """Start a run of WORKFLOW and print its id.

    INPUT is JSON (default {}), or - to read it from stdin.
    """
    with session(target, "client") as db:
        run_id: UUID = db.value(
            statements.START, workflow=workflow, input=input, key=key, on_duplicate=on_duplicate, queue=queue,
            priority=priority, delay=delay, timeout=timeout, tags=json.dumps(dict(tags)),
        )  # fmt: skip
        if not wait:
            print_json({"run_id": run_id}) if as_json else click.echo(run_id)
            return
        click.echo(run_id, err=True)
        result = _await(db, run_id)
    print_json({"run_id": run_id, "result": result} if as_json else result)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="[RUN] NAME [PAYLOAD]")
@click.option("--workflow", help="With --key: the run that a key of this workflow names; RUN is left out.")
@click.option("--key", help="With --workflow.")
@click.option("--id", "signal_id", help="Idempotency id: sent twice, it is kept once.")
@click.option(
    "--start-input", type=json_text, metavar="JSON", help="With --key: start the run with this input if there is none."
)
@target_options
def signal(
    target: Target,
    words: Sequence[str],
    workflow: str | None,
    key: str | None,
    signal_id: str | None,
    start_input: str | None,
) -> None:
    """Send the signal NAME to a run.

    PAYLOAD is JSON (default {}), or - to read it from stdin. The run is named by its id or the beginning of one, or by
    --workflow and --key.
    """
    if (workflow is None) != (key is None):
        raise click.UsageError("--workflow and --key belong together: a key is unique within its workflow.")
    if start_input is not None and key is None:
        raise click.UsageError("--start-input needs --workflow and --key.")
    fixed = 1 if key is not None else 2
    if not fixed <= len(words) <= fixed + 1:
        raise click.UsageError(
            "With --key: NAME [PAYLOAD]."
            if key is not None
            else "RUN NAME [PAYLOAD], or --workflow and --key instead of RUN."
        )
    name = words[fixed - 1]
    payload = json_text(words[fixed]) if len(words) > fixed else "{}"
    with session(target, "client") as db:
        if key is not None:
            answer = db.value(
                statements.SIGNAL_KEY, workflow=workflow, key=key, name=name, payload=payload, id=signal_id,
                start_input=start_input,
            )  # fmt: skip
        else:
            answer = db.value(statements.SIGNAL, run_id=db.run_id(words[0]), name=name, payload=payload, id=signal_id)
    if answer == "unknown":
        raise Trouble("there is no such run", "`perdure runs` lists the latest runs; --start-input starts one.")
    if answer == "finished":
        raise Trouble("the run has ended, so nobody will read the signal", "`perdure show` tells how it ended.")
    click.echo(_ANSWERS.get(answer, answer))


def _await(db: Session, run_id: UUID) -> object:
    """Wait for a run's end, in slices, so that no statement_timeout and no idle connection is in the way."""
    try:
        while True:
            try:
                return db.value(statements.AWAIT, run_id=run_id, timeout="10 seconds")
            except psycopg.Error as error:  # noqa: PERF203 - once in ten seconds
                if error.sqlstate == "PD007":  # not_finished
                    continue
                if (error.sqlstate or "").startswith("PD"):
                    detail = error.diag.message_detail
                    raise Trouble(
                        error.diag.message_primary or str(error),
                        f"`perdure show {run_id}{db.target.options}` draws what happened.",
                        detail=_message(detail),
                        code=FAILED,
                    ) from None
                raise
    except KeyboardInterrupt:
        raise Trouble(
            f"the wait was interrupted; run {run_id} goes on",
            f"perdure show {run_id}{db.target.options}",
            code=INTERRUPTED,
        ) from None


def _message(detail: str | None) -> str | None:
    """Read the error of a run out of the detail, which is JSON."""
    try:
        error = json.loads(detail or "null")
    except ValueError:
        return detail
    if not isinstance(error, dict):
        return None
    return ": ".join(str(error[word]) for word in ("type", "message") if error.get(word)) or None
