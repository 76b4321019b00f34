"""Databases to install into, on the session's server, and what is in them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.database import Database, PostgresServer

CREATOR = "perdure_test_creator"
KINDS = ("client", "worker", "observer", "admin")

Trace = dict[str, object]


@pytest.fixture
def creator(server: PostgresServer) -> str:
    """A plain role that may create roles."""
    server.create_role(CREATOR, "login createrole nocreatedb")
    return CREATOR


@pytest.fixture
def databases(server: PostgresServer) -> Iterator[Callable[[str], Database]]:
    """Make fresh databases by their owner; afterwards drop them and the roles that installs made."""
    made: list[Database] = []

    def make(owner: str) -> Database:
        made.append(server.create_database(owner=owner))
        return made[-1]

    yield make
    for database in made:
        database.drop()
    with server.admin() as conn:
        rows = conn.execute(
            "select rolname from pg_roles where shobj_description(oid, 'pg_authid') like 'Made by Perdure %'"
        ).fetchall()
        for (role,) in rows:
            conn.execute(f'drop role "{role}"')


@pytest.fixture
def trace() -> Callable[[Database], Trace]:
    """What can be seen of a database and of its server's roles."""

    def look(database: Database) -> Trace:
        conn = database.admin
        dumped: str | None = None
        if (local := database.server.local) is not None:
            done = subprocess.run(
                [local.binaries.bin / "pg_dump", "--schema-only", database.dsn(database.superuser)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            # A random token guards each dump since 15.14.
            dumped = "\n".join(line for line in done.stdout.splitlines() if "restrict" not in line)
        return {
            "dump": dumped,
            "roles": conn.execute("select rolname from pg_roles order by 1").fetchall(),
            "members": conn.execute(
                "select roleid::regrole::text, member::regrole::text from pg_auth_members"
            ).fetchall(),
            "comments": conn.execute("select description from pg_shdescription order by 1").fetchall(),
            "large": conn.execute("select count(*) from pg_largeobject_metadata").fetchall(),
            "locks": conn.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchall(),
        }

    return look
