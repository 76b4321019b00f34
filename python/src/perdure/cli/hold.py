"""After a restore: keep an installation from beginning anything, and let it go on."""

from __future__ import annotations

import click

from perdure.cli import statements
from perdure.cli.session import Session, Target, session, target_options


@click.command()
@click.option("--reason", required=True, help="Told to everybody who asks why nothing goes on; kept in the audit.")
@target_options
def hold(target: Target, reason: str) -> None:
    """Put the installation on hold: no run is taken by a worker, no deadline and no death is judged, until `adopt`.

    Live workers begin no further step and give their runs back; what is started and sent meanwhile is kept.
    """
    with session(target, "admin") as db:
        db.rows(statements.HOLD, reason=reason)
        click.echo(f"on hold: {reason}")
        _tell_risk(db)


@click.command()
@click.option("--reason", help="Kept in the audit.")
@target_options
def adopt(target: Target, reason: str | None) -> None:
    """Go on with this database after a restore: end its hold, and note it as the one of the installation."""
    with session(target, "admin") as db:
        held = db.row(statements.HOLDS)
        db.rows(statements.ADOPT, reason=reason)
        click.echo("nothing was on hold" if held is None else f"adopted, the hold has ended: {held[0]}")


def _tell_risk(db: Session) -> None:
    """How many runs to look at before the hold is ended."""
    row = db.row(statements.AT_RISK)
    assert row is not None
    count, running = row
    if count:
        click.echo(
            f"{count} unfinished runs may have gone on after the point that was restored to, {running} of them were in a "
            f"worker's hands; look at them before you adopt, {db.target.schema}.at_risk() lists them"
        )
