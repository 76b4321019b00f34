"""Uninstalling: nothing is left, and nothing of others is taken unasked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg import errors
from typing_extensions import LiteralString

from perdure import _install
from support.database import OWNER, Database

Databases = Callable[[str], Database]
Trace = Callable[[Database], dict[str, object]]


@pytest.mark.parametrize("installer", [OWNER, "creator", "postgres"])
@pytest.mark.parametrize("schema", ["perdure", "shop"])
def test_no_trace_is_left(databases: Databases, creator: str, trace: Trace, installer: str, schema: str) -> None:
    database = databases(creator if installer == "creator" else installer)
    before = trace(database)
    conn = database.connect()
    _install.install(conn, schema)
    assert trace(database) != before
    conn.execute(f"select {schema}.put_workflow('w'); select {schema}.start('w')")  # type: ignore[arg-type]
    database.server.create_role("perdure_test_app")
    conn.execute(f"select {schema}.grant_role('perdure_test_app', 'client')")  # type: ignore[arg-type]
    assert _install.uninstall(conn, schema) == []
    database.admin.execute("drop role perdure_test_app")
    assert trace(database) == before


# What somebody may hang on the schema, and how it is told.
FOREIGN: list[tuple[LiteralString, str]] = [
    ("create view public.v as select * from perdure.errors", "view public.v"),
    ("create materialized view public.m as select * from perdure.errors", "materialized view public.m"),
    (
        "create function public.f(x perdure.setting) returns int language sql return 1",
        "function public.f(perdure.setting)",
    ),
    ("create function public.g() returns text language sql return perdure.version()", "function public.g()"),
    ("create table public.t (name text references perdure.setting)", "constraint t_name_fkey on table public.t"),
    ("create table public.c (kept perdure.setting, more int)", "column kept of table public.c"),
    ("create table public.d (v text default perdure.version())", "default value for column v of table public.d"),
    ("create domain public.dom as perdure.setting", "type public.dom"),
    (
        "create table public.p (x int); create policy pol on public.p using (perdure.version() = 'x')",
        "policy pol on table public.p",
    ),
    (
        "create function perdure.mine() returns trigger language plpgsql as 'begin return new; end';"
        "create table public.g (x int); create trigger tr before insert on public.g for each row execute function perdure.mine()",
        "trigger tr on table public.g",
    ),
]


@pytest.mark.parametrize(
    ("statement", "told"), FOREIGN, ids=[told.split(" ")[0] + str(n) for n, (_, told) in enumerate(FOREIGN)]
)
def test_objects_of_others_are_listed_and_kept(
    database: Database, trace: Trace, statement: LiteralString, told: str
) -> None:
    conn = database.connect()
    conn.execute(statement)
    before = trace(database)
    with pytest.raises(errors.DependentObjectsStillExist, match="objects of others") as refused:
        _install.uninstall(conn)
    assert refused.value.diag.message_detail == told
    assert "force" in (refused.value.diag.message_hint or "")
    assert trace(database) == before
    _install.uninstall(conn, force=True)
    assert _install.status(conn) is None


def test_what_depends_on_what_depends_is_listed_too(database: Database) -> None:
    conn = database.connect()
    conn.execute(
        "create view public.a as select * from perdure.errors; create view public.b as select name from public.a"
    )
    with pytest.raises(errors.DependentObjectsStillExist) as refused:
        _install.uninstall(conn)
    assert (refused.value.diag.message_detail or "").split("\n") == ["view public.a", "view public.b"]


def test_tables_of_others_keep_their_rows_under_force(database: Database) -> None:
    conn = database.connect()
    conn.execute("create table public.t (name text references perdure.setting, more int)")
    conn.execute("insert into public.t values (null, 7)")
    _install.uninstall(conn, force=True)
    assert conn.execute("select more from public.t").fetchall() == [(7,)]


def test_a_strangers_table_in_the_schema_is_listed(database: Database) -> None:
    database.admin.execute("create table perdure.mine (x int)")
    with pytest.raises(errors.DependentObjectsStillExist) as refused:
        _install.uninstall(database.connect())
    assert refused.value.diag.message_detail == "table perdure.mine"


def test_force_does_not_outlive_the_call(database: Database) -> None:
    conn = database.connect(autocommit=False)
    conn.execute("create view public.v as select * from perdure.errors")
    conn.commit()
    conn.execute("select")
    _install.uninstall(conn, force=True)
    conn.rollback()
    with pytest.raises(errors.DependentObjectsStillExist):
        _install.uninstall(conn)


def test_where_nothing_is_installed_it_says_so(empty_database: Database) -> None:
    conn = empty_database.connect()
    with pytest.raises(errors.InvalidSchemaName, match='not installed in schema "shop"'):
        _install.uninstall(conn, "shop")
    conn.execute("create schema perdure")
    with pytest.raises(errors.InvalidSchemaName):
        _install.uninstall(conn)


def test_only_the_owner_may(database: Database) -> None:
    database.server.create_role("perdure_test_stranger")
    with pytest.raises(errors.InsufficientPrivilege, match=f'belongs to role "{OWNER}"'):
        _install.uninstall(database.connect("perdure_test_stranger"))


def test_a_role_that_others_use_stays(databases: Databases, creator: str) -> None:
    database = databases(creator)
    conn = database.connect()
    _install.install(conn)
    conn.execute("create table public.t (); grant select on public.t to perdure_client")
    notices = _install.uninstall(conn)
    assert notices == ['role "perdure_client" stays, because other objects depend on it']
    assert database.value("select count(*) from pg_roles where rolname ~ '^perdure_(worker|observer|admin)'") == 0


def test_a_role_that_perdure_did_not_make_stays(databases: Databases, creator: str) -> None:
    database = databases(creator)
    database.admin.execute("create role perdure_client nologin; comment on role perdure_client is 'ours'")
    try:
        _install.install(database.connect())
        _install.uninstall(database.connect())
        assert database.value("select count(*) from pg_roles where rolname = 'perdure_client'") == 1
    finally:
        database.admin.execute("drop role perdure_client")


@pytest.mark.slow
def test_while_somebody_holds_a_table_it_gives_up_and_says_why(database: Database) -> None:
    holder = database.connect(autocommit=False)
    holder.execute("select count(*) from perdure.setting")
    with pytest.raises(errors.LockNotAvailable, match="is in use") as refused:
        _install.uninstall(database.connect())
    assert "Stop the workers" in (refused.value.diag.message_hint or "")
    holder.rollback()
    assert database.value("select perdure.version()") == _install.packaged_version()
