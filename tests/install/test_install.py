"""Installing: who may, what comes out, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors

from perdure import _install
from perdure._build import BuildError
from support.database import OWNER, Database, in_background

Databases = Callable[[str], Database]
Trace = Callable[[Database], dict[str, object]]

# Everything that has an owner, with it.
OWNERS = """
select pg_describe_object(o.classid, o.oid, 0), pg_get_userbyid(o.owner)
from (
  select 'pg_namespace'::regclass as classid, oid, nspowner as owner from pg_namespace where nspname = 'perdure'
  union all
  select 'pg_class'::regclass, oid, relowner from pg_class where relnamespace = 'perdure'::regnamespace
  union all
  select 'pg_proc'::regclass, oid, proowner from pg_proc where pronamespace = 'perdure'::regnamespace
  union all
  select 'pg_type'::regclass, oid, typowner from pg_type where typnamespace = 'perdure'::regnamespace
) as o
"""


def roles(database: Database, schema: str = "perdure") -> set[str]:
    found = database.admin.execute(
        "select rolname from pg_roles where rolname ~ %s", [rf"^{schema}_(?!test)"]
    ).fetchall()
    return {name for (name,) in found}


def owners(database: Database) -> set[str]:
    return {owner for (_, owner) in database.admin.execute(OWNERS).fetchall()}


def test_a_plain_owner_installs_without_the_roles_and_is_told(databases: Databases) -> None:
    database = databases(OWNER)
    notices = _install.install(database.connect())
    assert len(notices) == 1
    assert "may not create roles" in notices[0]
    assert "grant_role" in notices[0]
    assert roles(database) == set()
    assert owners(database) == {OWNER}


def test_the_right_to_create_in_the_database_is_enough(databases: Databases) -> None:
    database = databases("postgres")
    database.server.create_role("perdure_test_tenant")
    with pytest.raises(errors.InsufficientPrivilege, match="may not create a schema") as refused:
        _install.install(database.connect("perdure_test_tenant"))
    assert refused.value.diag.message_hint == (
        f"Ask the owner of the database for: grant create on database {database.name} to perdure_test_tenant;"
    )
    database.admin.execute(f"grant create on database {database.name} to perdure_test_tenant")
    _install.install(database.connect("perdure_test_tenant"))
    assert owners(database) == {"perdure_test_tenant"}
    database.admin.execute(
        f"drop owned by perdure_test_tenant; revoke all on database {database.name} from perdure_test_tenant"
    )


def test_an_empty_schema_of_ones_own_is_taken(databases: Databases) -> None:
    database = databases("postgres")
    database.admin.execute(f"create schema perdure authorization {OWNER}")
    _install.install(database.connect(OWNER))
    assert owners(database) == {OWNER}


def test_with_createrole_the_roles_are_made(databases: Databases, creator: str) -> None:
    database = databases(creator)
    assert _install.install(database.connect()) == []
    assert roles(database) == {"perdure_client", "perdure_worker", "perdure_observer", "perdure_admin"}
    assert owners(database) == {creator}
    assert (
        database.value("select bool_or(rolcanlogin or rolsuper) from pg_roles where rolname ~ '^perdure_[cwoa]'")
        is False
    )


def test_installed_by_a_superuser_everything_belongs_to_a_plain_role_without_login(databases: Databases) -> None:
    database = databases("postgres")
    assert _install.install(database.connect()) == []
    assert owners(database) == {"perdure_owner"}
    assert database.admin.execute(
        "select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls from pg_roles where rolname = 'perdure_owner'"
    ).fetchone() == (False, False, False, False, False)
    assert (
        database.value(
            "select count(*) from pg_proc as p join pg_roles as r on r.oid = p.proowner where p.prosecdef and r.rolsuper"
        )
        == 0
    )


def test_an_owner_role_that_could_log_in_is_refused(databases: Databases) -> None:
    database = databases("postgres")
    database.admin.execute("create role perdure_owner login")
    try:
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="may log in"):
            _install.install(database.connect())
    finally:
        database.admin.execute("drop role perdure_owner")


def test_what_is_installed_can_be_asked(databases: Databases) -> None:
    database = databases(OWNER)
    conn = database.connect()
    assert _install.status(conn) is None
    _install.install(conn)
    found = _install.status(conn)
    assert found is not None
    assert (found.schema, found.owner, found.installed_by) == ("perdure", OWNER, OWNER)
    assert found.version == found.tables_version == _install.packaged_version()
    assert found.installed_at is not None
    database.server.create_role("perdure_test_stranger")
    stranger = _install.status(database.connect("perdure_test_stranger"))
    assert stranger == _install.Installation("perdure", OWNER, None, None, None, None)


def test_the_install_knows_its_database(database: Database) -> None:
    assert database.admin.execute(
        "select (select system_identifier from pg_control_system()) = i.system_identifier from perdure.install as i"
    ).fetchall() == [(True,)]


def test_two_schemas_live_side_by_side(databases: Databases, creator: str) -> None:
    database = databases(creator)
    conn = database.connect()
    _install.install(conn)
    _install.install(conn, "shop")
    assert roles(database, "shop") == {"shop_client", "shop_worker", "shop_observer", "shop_admin"}
    # No function, view, check or default of one names the other.
    assert (
        database.value(
            "select count(*) from pg_depend as d"
            " cross join pg_identify_object(d.classid, d.objid, 0) as o"
            " cross join pg_identify_object(d.refclassid, d.refobjid, 0) as r"
            " where o.schema in ('perdure', 'shop') and r.schema in ('perdure', 'shop') and o.schema <> r.schema"
        )
        == 0
    )
    assert (
        database.value(
            "select count(*) from pg_proc where pronamespace = 'shop'::regnamespace and prosrc ~ 'perdure\\.'"
        )
        == 0
    )
    assert database.value("select has_function_privilege('shop_client', 'perdure.version()', 'execute')") is False
    conn.execute("select perdure.put_queue('mine')")
    assert database.value("select count(*) from shop.queue where name = 'mine'") == 0
    _install.uninstall(conn, "shop")
    assert _install.status(conn, "shop") is None
    assert conn.execute("select perdure.version()").fetchone() == (_install.packaged_version(),)
    assert roles(database, "shop") == set()
    assert len(roles(database)) == 4


def test_two_databases_of_a_server_share_the_roles(databases: Databases, creator: str) -> None:
    first, second = databases(creator), databases(creator)
    _install.install(first.connect())
    assert _install.install(second.connect()) == []
    notices = _install.uninstall(first.connect())
    assert all("stays, because other objects depend on it" in notice for notice in notices)
    assert len(notices) == 4
    assert second.value("select has_function_privilege('perdure_client', 'perdure.version()', 'execute')")
    assert _install.uninstall(second.connect()) == []
    assert roles(second) == set()


def test_a_second_install_says_what_to_do(database: Database) -> None:
    with pytest.raises(errors.DuplicateSchema) as refused:
        _install.install(database.connect())
    assert refused.value.diag.message_primary == (
        f'Perdure {_install.packaged_version()} is already installed in schema "perdure" of database "{database.name}"'
    )
    assert "uninstall" in (refused.value.diag.message_hint or "")
    assert "choose another schema" in (refused.value.diag.message_hint or "")


def test_two_installs_at_once_leave_one(databases: Databases) -> None:
    database = databases(OWNER)
    first, second = database.connect(autocommit=False), database.connect()
    first.execute("select")  # the caller's transaction is open, so install does not commit it
    _install.install(first)
    waiting = in_background(_install.install, second)
    database.wait_blocked(second, by=first.info.backend_pid)
    first.commit()
    with pytest.raises(errors.DuplicateSchema, match="already installed"):
        waiting.result(timeout=10)


@pytest.mark.parametrize(
    "statement", ["create table perdure.mine ()", "create function perdure.f() returns int return 1"]
)
def test_a_schema_with_something_in_it_is_left_alone(databases: Databases, statement: str) -> None:
    database = databases(OWNER)
    conn = database.connect()
    conn.execute("create schema perdure")
    conn.execute(statement)  # type: ignore[arg-type]
    with pytest.raises(errors.DuplicateSchema, match="not empty"):
        _install.install(conn)


def test_somebody_elses_schema_is_left_alone(databases: Databases) -> None:
    database = databases("postgres")
    database.admin.execute(f"create schema perdure; grant create on database {database.name} to {OWNER}")
    with pytest.raises(errors.InsufficientPrivilege, match='belongs to role "postgres"'):
        _install.install(database.connect(OWNER))


def test_an_old_server_is_refused_in_a_sentence(databases: Databases) -> None:
    database = databases(OWNER)
    # There is no such server here, so the question gets the answer that it would have had.
    text = _install.built_sql("install")
    asked = "current_setting('server_version_num')::integer"
    assert text.count(asked) == 1
    conn = database.connect(autocommit=False)
    with pytest.raises(errors.FeatureNotSupported) as refused:
        conn.execute(text.replace(asked, "140012").encode())
    assert "is too old for Perdure" in (refused.value.diag.message_primary or "")
    assert refused.value.diag.message_detail == "Perdure needs PostgreSQL 15 or later."


def test_a_failure_in_the_middle_leaves_nothing(databases: Databases, trace: Trace) -> None:
    database = databases("postgres")
    before = trace(database)
    text = _install.built_sql("install")
    for place in (
        "create table perdure.dispatch",
        "create or replace function perdure.version",
        "insert into perdure.install ",
    ):
        at = text.index(place)
        conn = database.connect(autocommit=False)
        with pytest.raises(errors.DivisionByZero):
            conn.execute((text[:at] + "select 1 / 0;\n" + text[at:]).encode())
        conn.rollback()
        assert trace(database) == before, place


def test_outside_a_transaction_it_refuses_before_it_does_anything(databases: Databases, trace: Trace) -> None:
    database = databases(OWNER)
    if database.server.local is None:
        pytest.skip("needs psql")
    before = trace(database)
    psql = [database.server.local.binaries.bin / "psql", "-X", "-q", "-d", database.dsn(), "-v", "ON_ERROR_STOP=1"]
    text = _install.built_sql("install")
    done = subprocess.run([*psql], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "Perdure has to be installed in one transaction" in done.stderr
    assert trace(database) == before
    done = subprocess.run([*psql, "-1"], input=text, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert database.value("select perdure.version()") == _install.packaged_version()


@pytest.mark.parametrize("role", ["postgres", OWNER])
def test_a_migration_tools_transaction_goes_on_as_it_was(databases: Databases, role: str) -> None:
    database = databases(OWNER)
    conn = database.connect(role, autocommit=False)
    conn.execute("set search_path = public, pg_temp")
    conn.execute("create table public.schema_history (version text, installed_by name default current_user)")
    settings = "select current_user, current_setting('role'), current_setting('search_path'), current_setting('client_min_messages'), current_setting('lock_timeout')"
    before = conn.execute(settings).fetchall()  # type: ignore[arg-type]
    conn.execute(_install.built_sql("install", "shop").encode())
    assert conn.execute(settings).fetchall() == before  # type: ignore[arg-type]
    conn.execute("insert into schema_history values ('1')")
    conn.execute(_install.built_sql("uninstall", "shop").encode())
    assert conn.execute(settings).fetchall() == before  # type: ignore[arg-type]
    conn.execute(_install.built_sql("install", "shop").encode())
    conn.commit()
    assert conn.execute("select version, installed_by from schema_history").fetchall() == [("1", role)]
    assert conn.execute("select shop.version()").fetchone() == (_install.packaged_version(),)


def test_rolled_back_it_was_never_there(databases: Databases, trace: Trace) -> None:
    database = databases("postgres")
    before = trace(database)
    conn = database.connect(autocommit=False)
    conn.execute("select")
    _install.install(conn)
    conn.rollback()
    assert trace(database) == before


def test_installed_as_a_role_that_was_set(databases: Databases) -> None:
    database = databases(OWNER)
    conn = database.connect("postgres")
    conn.execute(f"set role {OWNER}")
    _install.install(conn)
    assert owners(database) == {OWNER}
    assert conn.execute("select current_user").fetchone() == (OWNER,)


def test_a_hostile_search_path_changes_nothing(databases: Databases) -> None:
    database = databases("postgres")
    admin = database.connect()
    admin.execute("create schema evil; create type evil.text as (t int); create type evil.uuid as (t int)")
    admin.execute(
        "create function evil.now() returns timestamptz language plpgsql as $$ begin raise 'caught'; end $$;"
        " create function evil.current_database() returns name language plpgsql as $$ begin raise 'caught'; end $$"
    )
    admin.execute("set search_path = evil, pg_catalog")
    _install.install(admin)
    assert database.value("select perdure.version()") == _install.packaged_version()


def test_default_privileges_of_the_owner_give_nobody_anything(databases: Databases) -> None:
    database = databases(OWNER)
    database.server.create_role("perdure_test_reader")
    conn = database.connect()
    conn.execute(
        "alter default privileges grant all on tables to perdure_test_reader;"
        " alter default privileges grant all on functions to perdure_test_reader;"
        " alter default privileges grant all on sequences to perdure_test_reader"
    )
    _install.install(conn)
    assert (
        database.admin.execute(
            "select c.relname from pg_class as c where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'v')"
            " and has_table_privilege('perdure_test_reader', c.oid, 'select, insert, update, delete, truncate')"
        ).fetchall()
        == []
    )
    assert (
        database.value(
            "select count(*) from pg_proc as p where p.pronamespace = 'perdure'::regnamespace"
            " and has_function_privilege('perdure_test_reader', p.oid, 'execute')"
        )
        == 0
    )


@pytest.mark.parametrize("schema", ["public", "User", "pg_x"])
def test_bad_names_never_reach_the_database(schema: str) -> None:
    conn: Any = None
    with pytest.raises(BuildError):
        _install.install(conn, schema)


def test_the_connections_own_errors_pass_unchanged(databases: Databases) -> None:
    conn = databases(OWNER).connect()
    conn.close()
    with pytest.raises(psycopg.OperationalError):
        _install.install(conn)
