"""What is wrong with an installation, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict

import click
from rich.text import Text

from perdure import _install
from perdure._visible import visible
from perdure.cli import checks, output, statements, waking
from perdure.cli.checks import Finding
from perdure.cli.session import Session, Target, session, target_options
from perdure.cli.trouble import FAILED, not_installed


@click.command()
@click.option("--thorough", is_flag=True, help="Examine all invariants, however long that takes: it reads all tables.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
@target_options
def doctor(target: Target, thorough: bool, as_json: bool) -> None:
    """Say what is wrong with an installation, and what to do.

    Exit code 1 when something is wrong; warnings alone are 0. It changes nothing. The invariants are examined where that
    takes no longer than a few seconds, or with --thorough; else they are told as skipped.
    """
    findings: list[Finding] = []
    with session(target, "observer") as db:
        for finding in _examine(db, is_thorough=thorough):
            findings.append(finding)
            if not as_json:
                _print(finding)
    if as_json:
        output.print_json([asdict(finding) for finding in findings])
    if any(finding.level == "wrong" for finding in findings):
        click.get_current_context().exit(FAILED)


def _examine(db: Session, *, is_thorough: bool) -> Iterator[Finding]:
    yield from checks.server(db)
    installation = _install.status(db.conn, db.target.schema)
    if installation is None:
        raise not_installed(database=db.database, schema=db.target.schema)
    yield from checks.installation(installation)
    kinds, finding = checks.rights(db)
    yield finding
    if "observer" not in kinds:
        return
    workers = db.records(checks.Worker, statements.WORKERS)
    yield from checks.hold(db)
    yield from checks.failover(db)
    yield from checks.workers(workers, db.target.schema)
    if any(worker.is_alive for worker in workers):
        yield from waking.untaken(db)
    yield from waking.notify(db)
    yield from checks.ticks(db, any(worker.is_alive for worker in workers))
    yield from checks.periods(db)
    yield from checks.stuck(db)
    yield from checks.violations(db, is_thorough=is_thorough)


def _print(finding: Finding) -> None:
    console = output.console()
    indent = " " * 21
    width = max(console.width - len(indent), 20)
    says = textwrap.wrap(visible(finding.says), width, break_long_words=False, break_on_hyphens=False)
    text = Text(f"{finding.level:<8} ", style=f"bold {output.style(finding.level)}")
    text.append(f"{finding.about:<11} ", style="bold")
    text.append(f"\n{indent}".join(says), style="")
    console.print(text, soft_wrap=True)
    if finding.advice:
        for line in textwrap.wrap(visible(finding.advice), width, break_long_words=False, break_on_hyphens=False):
            console.print(Text(f"{indent}{line}", style="italic"), soft_wrap=True)
