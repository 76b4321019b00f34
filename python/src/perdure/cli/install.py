"""Put Perdure into a database, take it out, print the SQL that would."""

from __future__ import annotations

import sys

import click
import psycopg

from perdure import _install
from perdure._visible import visible_lines
from perdure.cli.session import Target, connect, refused, schema_option, target_options
from perdure.cli.trouble import Trouble


@click.command()
@target_options
def install(target: Target) -> None:
    """Install Perdure into a database.

    In one transaction, into a schema of its own. The role needs no more than the right to create a schema; with the
    right to create roles, the roles SCHEMA_client, _worker, _observer and _admin are made too.
    """
    with connect(target) as conn:
        try:
            notices = _install.install(conn, target.schema)
        except psycopg.Error as error:
            raise refused(conn, target, error, "admin") from None
        for notice in notices:
            click.echo(f"note: {visible_lines(notice)}", err=True)
        click.echo(
            f'Perdure {_install.packaged_version()} is installed in schema "{target.schema}" '
            f'of database "{conn.info.dbname}".'
        )


@click.command()
@click.option("--force", is_flag=True, help="Also drop objects of others that depend on the schema.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
def uninstall(target: Target, force: bool, yes: bool) -> None:
    """Remove Perdure from a database, with all runs, its cron jobs and the roles it made.

    On a terminal it asks first. Refused while objects of others (a view, a foreign function) depend on the schema.
    """
    with connect(target) as conn:
        if not yes and sys.stdin.isatty():
            click.confirm(
                f'Remove schema "{target.schema}" of database "{conn.info.dbname}" with everything in it?', abort=True
            )
        try:
            notices = _install.uninstall(conn, target.schema, force=force)
        except psycopg.errors.DependentObjectsStillExist as error:
            raise Trouble(
                error.diag.message_primary or str(error),
                "Drop them first, or drop them along with it: perdure uninstall --force",
                detail=error.diag.message_detail,
            ) from None
        except psycopg.Error as error:
            raise refused(conn, target, error, "admin") from None
        for notice in notices:
            click.echo(f"note: {visible_lines(notice)}", err=True)
        click.echo(f'Perdure is gone from schema "{target.schema}" of database "{conn.info.dbname}".')


@click.command()
@click.argument("file", type=click.Choice(["install", "uninstall"]), default="install")
@schema_option
def sql(file: str, schema: str) -> None:
    """Print the SQL that installs (or uninstalls) Perdure.

    One file without psql's own commands, for Flyway, Alembic or psql -1. Run it in one transaction.
    """
    click.echo(_install.built_sql("uninstall" if file == "uninstall" else "install", schema), nl=False)
