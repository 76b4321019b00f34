"""One installation that nobody changes, shared by all that only look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg.rows import class_row

from support.bodies import Routine
from support.database import Database, PostgresServer


@pytest.fixture(scope="session")
def installed(server: PostgresServer) -> Iterator[Database]:
    """An installation for reading."""
    made = server.installed_database()
    yield made
    made.drop()


@pytest.fixture(scope="session")
def routines(installed: Database) -> list[Routine]:
    """Every function and procedure of the schema."""
    with installed.admin.cursor(row_factory=class_row(Routine)) as cursor:
        return cursor.execute(
            """
            select p.oid::int8 as oid, p.proname as name, p.oid::regprocedure::text as signature, p.prokind as kind,
              l.lanname as language, p.prosecdef as is_definer, p.proconfig as config,
              p.proargnames as arguments, p.prosrc as body,
              pg_get_functiondef(p.oid) as definition
            from pg_proc as p
            join pg_language as l on l.oid = p.prolang
            where p.pronamespace = 'perdure'::regnamespace
            order by p.proname
            """
        ).fetchall()
