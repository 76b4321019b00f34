"""The checks of doctor that are about who would take a run, and who is told that there is one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from perdure.cli import statements
from perdure.cli.checks import Finding, counted
from perdure.cli.session import Session


def untaken(db: Session) -> Iterator[Finding]:
    """Queues that have work, or will, and that no live worker takes; those of ready runs are told of as stuck."""
    for queue, runs, workflows in db.rows(statements.UNTAKEN):
        held = counted(runs, "unfinished run") if runs else ""
        home = f"the home of workflow {', '.join(workflows)}" if workflows else ""
        yield Finding(
            "warning", "workers", f"no live worker takes from queue {queue}: {' and '.join(filter(None, (held, home)))}",
            f"perdure worker MODULE:APP --queues {shlex.quote(queue)}",
        )  # fmt: skip


def notify(db: Session) -> Iterator[Finding]:
    """Whether workers that have nothing to do are told of work; where they are, nothing is said."""
    row = db.row(statements.NOTIFY)
    assert row is not None
    mode, prepared, usage = row
    slow = "so nobody is told of work: a worker asks by itself, at least each 0.4 s"
    if mode == "never":
        yield Finding("ok", "notify", f"the setting notify is never, {slow}")
    elif mode == "auto" and prepared > 0:
        yield Finding(
            "warning", "notify", f"max_prepared_transactions is {prepared} and the setting notify is auto, {slow}",
            "Where no transaction that starts or signals runs is ever prepared, in psql:"
            f" select {db.target.schema}.put_setting('notify', '\"always\"'); where some are, '\"never\"' ends this warning.",
        )  # fmt: skip
    elif usage >= 0.001:
        yield Finding(
            "warning", "notify", f"the server's queue of notifications fills up, {slow}",
            "Some session listens and does not read: look for one that is idle in transaction (pg_stat_activity).",
        )  # fmt: skip
