"""Install Perdure into a database, say what is installed there, and uninstall it; psycopg alone, no psql.

The SQL is the packaged one; in a source checkout it is built from `sql/` at each call, so it is never stale.
Everything happens in one transaction, the caller's where one is open. What the database refuses is raised as psycopg
raises it: message, detail and hint say what is wrong and what to do.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from perdure._build import SOURCES, bundle, check_schema, read_version, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection
    from psycopg.errors import Diagnostic

__all__ = ["Installation", "built_sql", "install", "packaged_version", "status", "uninstall"]


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed in a schema; a caller without any right there sees its owner only."""

    schema: str
    owner: str
    version: str | None
    """Of the functions."""
    tables_version: str | None
    """Of the tables; another one in the middle of an upgrade only. None if the caller is not the owner."""
    installed_at: datetime | None
    installed_by: str | None


def built_sql(file: Literal["install", "uninstall"], schema: str = "perdure") -> str:
    """Return the SQL that installs or uninstalls Perdure as the given schema, to be run in one transaction.

    Raises BuildError for a name that cannot be a schema's.
    """
    return render(_source(file), schema)


def packaged_version() -> str:
    """Return the version that `install` would install."""
    return read_version(_source("install"))


def install(conn: Connection[Any], schema: str = "perdure") -> list[str]:
    """Install Perdure; return what the database noted, such as roles left out.

    Raises BuildError for a bad name, else what the database refuses: DuplicateSchema where the schema is taken,
    FeatureNotSupported by a server before PostgreSQL 15, InsufficientPrivilege.
    """
    text = built_sql("install", schema)
    with conn.transaction(), _notices(conn) as notices:
        conn.execute(text.encode())
    return notices


def uninstall(conn: Connection[Any], schema: str = "perdure", *, force: bool = False) -> list[str]:
    """Remove Perdure with all its data, its cron jobs and its roles; return what the database noted.

    Raises InvalidSchemaName where nothing is installed, DependentObjectsStillExist with their list in the detail while
    objects of others depend on the schema (`force` drops them too), LockNotAvailable while it is in use.
    """
    text = built_sql("uninstall", schema)
    with conn.transaction(), _notices(conn) as notices:
        conn.execute("select pg_catalog.set_config(%s, %s, true)", [f"{schema}.force", "on" if force else "off"])
        conn.execute(text.encode())
    return notices


def status(conn: Connection[Any], schema: str = "perdure") -> Installation | None:
    """Say what is installed in a schema, or None."""
    check_schema(schema)
    with conn.transaction():
        found = conn.execute(
            """
            select pg_get_userbyid(n.nspowner), has_function_privilege(p.oid, 'execute') and has_schema_privilege(n.oid, 'usage'),
              has_table_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage')
            from pg_namespace as n
            join pg_class as c on c.relnamespace = n.oid and c.relname = 'install' and c.relkind = 'r'
            join pg_proc as p on p.pronamespace = n.oid and p.proname = 'version' and p.pronargs = 0
            where n.nspname = %s
            """,
            [schema],
        ).fetchone()
        if found is None:
            return None
        owner, may_call, may_read = found
        version = tables_version = installed_at = installed_by = None
        name = sql.Identifier(schema)
        if may_call and (row := conn.execute(sql.SQL("select {}.version()").format(name)).fetchone()):
            version = row[0]
        query = sql.SQL("select i.version, i.installed_at, i.installed_by from {}.install as i").format(name)
        if may_read and (row := conn.execute(query, binary=True).fetchone()):
            tables_version, installed_at, installed_by = row
    return Installation(schema, owner, version, tables_version, installed_at, installed_by)


def _source(file: str) -> str:
    if SOURCES.is_dir() and SOURCES.parent.joinpath("python", "src").is_dir():
        return bundle(SOURCES / f"{file}.sql")
    return (files("perdure") / "sql" / f"{file}.sql").read_text(encoding="utf-8")


@contextmanager
def _notices(conn: Connection[Any]) -> Iterator[list[str]]:
    notices: list[str] = []

    def note(diagnostic: Diagnostic) -> None:
        parts = [diagnostic.message_primary, diagnostic.message_hint]
        notices.append(". ".join(part.rstrip(".") for part in parts if part))

    conn.add_notice_handler(note)
    try:
        yield notices
    finally:
        conn.remove_notice_handler(note)
