"""Roles get their kinds and lose them: by name, whatever the name, and never a namesake of one that is gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import errors, sql

from perdure._build import SOURCES, bundle
from support.database import OWNER, Database, PostgresServer
from support.hostile import KINDS, callables, role_of

STRANGER = role_of("stranger")

HOSTILE_NAMES = (
    'perdure_test "; drop schema perdure cascade; --',
    "perdure_test '); create role perdure_test_evil; --",
    "perdure_test %I %s %L $$ $q$ {}",
    "perdure_test \\ back\nline\ttab",
    "perdure_test röle 角色 \u202erolè",
    "perdure_test_" + "x" * 50,
    "current_user",
    "session_user",
    "group",
    "select",
    "PERDURE_TEST_UPPER",
)


def matrix(database: Database) -> dict[str, set[str]]:
    rows = database.admin.execute("select name, kinds from perdure._permissions()")
    return {name: set(kinds) for name, kinds in rows}


def held(database: Database, role: str) -> set[str]:
    """The names of all functions and views that a role may use."""
    rows = database.admin.execute(
        "select proname from pg_proc where pronamespace = 'perdure'::regnamespace and has_function_privilege(%s, oid, 'execute')"
        " union select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'"
        " and has_table_privilege(%s, oid, 'select')",
        [role] * 2,
    )
    return {name for (name,) in rows}


def rerun(database: Database) -> list[str]:
    """Run the code again, as an upgrade does; return the warnings."""
    conn = database.connect()
    warnings: list[str] = []
    conn.add_notice_handler(lambda told: warnings.append(told.message_primary or ""))
    with conn.transaction():
        conn.execute(bundle(SOURCES / "code.sql").encode())
    return warnings


@pytest.fixture
def passing(server: PostgresServer, database: Database) -> Iterator[str]:
    """A role that a test may drop and rename."""
    name = "perdure_test_passing"
    server.create_role(name)
    yield name
    for each in (name, f"{name}_renamed"):
        if database.value("select true from pg_roles where rolname = %s", each):
            database.admin.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(each)] * 2))


def test_a_private_function_is_granted_only_because_an_invoker_or_a_view_calls_it(database: Database) -> None:
    private = {name for name in matrix(database) if name.startswith("_")}
    callers = " ".join(
        body
        for (body,) in database.admin.execute(
            "select prosrc from pg_proc where pronamespace = 'perdure'::regnamespace and not prosecdef"
            " and (proname !~ '^_' or proname = any (%s))"
            " union all"
            " select pg_get_viewdef(oid) from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'",
            [list(private)],
        )
    )
    assert {name for name in private if f"perdure.{name}(" not in callers} == set()


def test_a_role_may_have_two_kinds_and_lose_one(granted: Database) -> None:
    conn = granted.connect()
    role = role_of("both")
    both = {name for name, kinds in matrix(granted).items() if kinds & {"client", "worker"}}
    client = {name for name, kinds in matrix(granted).items() if "client" in kinds}
    assert held(granted, role) == both
    conn.execute("select perdure.revoke_role(%s, 'worker')", [role])
    assert held(granted, role) == client
    conn.execute("select perdure.revoke_role(%s, 'client')", [role])
    assert held(granted, role) == set()
    conn.execute("select perdure.revoke_role(%s, 'client')", [role])  # once more is no error


def test_a_role_that_had_a_kind_can_be_dropped_after_its_revoke(database: Database, server: PostgresServer) -> None:
    server.create_role("perdure_test_leaver")
    conn = database.connect()
    conn.execute("select perdure.grant_role('perdure_test_leaver', 'admin')")
    with pytest.raises(errors.DependentObjectsStillExist):
        database.admin.execute("drop role perdure_test_leaver")
    conn.execute("select perdure.revoke_role('perdure_test_leaver', 'admin')")
    database.admin.execute("drop role perdure_test_leaver")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_role_of_any_name_gets_its_kind_and_nothing_else_happens(
    database: Database, server: PostgresServer, name: str
) -> None:
    with server.admin() as conn:
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        before = conn.execute("select count(*) from pg_roles").fetchone()
    owner = database.connect()
    client = {granted for granted, kinds in matrix(database).items() if "client" in kinds}
    try:
        owner.execute("select perdure.grant_role(%s, 'client')", [name])
        assert held(database, name) == client
        rerun(database)
        assert held(database, name) == client
        owner.execute("select perdure.revoke_role(%s, 'client')", [name])
        assert held(database, name) == set()
        assert database.admin.execute("select count(*) from pg_roles").fetchone() == before
        assert {each.name for each in callables(database)} >= {"start", "tick"}
        assert held(database, "public") == set()
    finally:
        database.admin.execute(sql.SQL("drop owned by {} ; drop role {}").format(*[sql.Identifier(name)] * 2))


@pytest.mark.parametrize("name", ["public", "none", "pg_no_such_role", "", "x" * 200])
def test_what_is_no_role_gets_nothing(database: Database, name: str) -> None:
    conn = database.connect()
    with pytest.raises((errors.UndefinedObject, errors.NameTooLong)):
        conn.execute("select perdure.grant_role(%s, 'admin')", [name])
    conn.execute("select perdure.revoke_role(%s, 'admin')", [name[:60]])
    assert held(database, "public") == set()


def test_a_new_role_of_an_old_name_gets_nothing_of_what_that_one_had(
    database: Database, server: PostgresServer, passing: str
) -> None:
    owner = database.connect()
    owner.execute("select perdure.grant_role(%s, 'admin')", [passing])
    database.admin.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(passing)] * 2))
    rerun(database)  # nobody of that name is there: nothing to say
    server.create_role(passing)
    assert [text for text in rerun(database) if passing in text]
    assert held(database, passing) == set()
    owner.execute("select perdure.grant_role(%s, 'client')", [passing])
    assert "terminate" not in held(database, passing)


@pytest.mark.parametrize("how", ["grant_role", "revoke_role"])
def test_neither_a_grant_nor_a_revoke_brings_back_what_a_namesake_had(
    database: Database, server: PostgresServer, passing: str, how: str
) -> None:
    owner = database.connect()
    owner.execute("select perdure.grant_role(%s, 'admin')", [passing])
    database.admin.execute(sql.SQL("drop owned by {}; drop role {}").format(*[sql.Identifier(passing)] * 2))
    server.create_role(passing)
    owner.execute(sql.SQL("select perdure.{}(%s, 'client')").format(sql.Identifier(how)), [passing])
    rerun(database)
    assert "terminate" not in held(database, passing)


def test_a_renamed_role_keeps_its_rights_until_an_upgrade_and_its_name_gives_them_to_nobody(
    database: Database, server: PostgresServer, passing: str
) -> None:
    owner = database.connect()
    owner.execute("select perdure.grant_role(%s, 'admin')", [passing])
    database.admin.execute(f"alter role {passing} rename to {passing}_renamed")  # type: ignore[arg-type]
    assert "terminate" in held(database, f"{passing}_renamed")
    server.create_role(passing)
    rerun(database)
    assert held(database, passing) == held(database, f"{passing}_renamed") == set()


def test_a_revoke_reaches_a_renamed_role_by_its_new_name(database: Database, passing: str) -> None:
    owner = database.connect()
    owner.execute("select perdure.grant_role(%s, 'admin')", [passing])
    database.admin.execute(f"alter role {passing} rename to {passing}_renamed")  # type: ignore[arg-type]
    owner.execute("select perdure.revoke_role(%s, 'admin')", [f"{passing}_renamed"])
    assert held(database, f"{passing}_renamed") == set()


def test_a_role_that_loses_its_login_or_its_kind_at_work_is_stopped_at_the_next_call(
    database: Database, passing: str
) -> None:
    owner = database.connect()
    owner.execute("select perdure.put_workflow('w')")
    owner.execute("select perdure.grant_role(%s, 'client')", [passing])
    conn = database.connect(passing)
    conn.execute("select perdure.start('w')")
    database.admin.execute(f"alter role {passing} nologin")  # type: ignore[arg-type]
    conn.execute("select perdure.start('w')")  # Postgres asks at the door only
    owner.execute("select perdure.revoke_role(%s, 'client')", [passing])
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute("select perdure.start('w')")


def test_default_privileges_open_nothing_to_anybody(server: PostgresServer) -> None:
    database = server.create_database()
    try:
        database.connect().execute(
            "alter default privileges grant all on tables to public; alter default privileges grant all on sequences to public;"
            "alter default privileges grant execute on functions to public; alter default privileges grant all on types to public;"
            "alter default privileges grant all on schemas to public"
        )
        database.install()
        owners_only = (
            "select count(*) from (select relacl as acl, relowner as owner from pg_class where relnamespace = 'perdure'::regnamespace"
            " union all select proacl, proowner from pg_proc where pronamespace = 'perdure'::regnamespace"
            " union all select typacl, typowner from pg_type where typnamespace = 'perdure'::regnamespace and typelem = 0"
            " union all select nspacl, nspowner from pg_namespace where nspname = 'perdure') as o"
            " cross join aclexplode(o.acl) as a where a.grantee <> o.owner"
        )
        assert database.value(owners_only) == 0
    finally:
        database.drop()


def test_an_event_trigger_that_grants_what_is_made_opens_nothing(server: PostgresServer) -> None:
    """As some hosts have it: each new table and function is granted to their web roles."""
    database = server.create_database()
    try:
        server.create_role(STRANGER)
        database.admin.execute(
            f"""
            create function public.open_up() returns event_trigger language plpgsql security definer as $$
            declare v_made record;
            begin
              for v_made in select * from pg_event_trigger_ddl_commands() where command_tag in ('CREATE TABLE', 'CREATE FUNCTION') loop
                execute format('grant all on %s %s to {STRANGER}',
                  case v_made.command_tag when 'CREATE TABLE' then 'table' else 'function' end, v_made.object_identity);
              end loop;
            end $$;
            create event trigger open_up on ddl_command_end when tag in ('CREATE TABLE', 'CREATE FUNCTION')
              execute function public.open_up();
            """  # type: ignore[arg-type]
        )
        database.install()
        assert held(database, STRANGER) == set()
        assert not database.value(f"select has_table_privilege('{STRANGER}', 'perdure.run', 'select')")  # type: ignore[arg-type]
    finally:
        database.drop()


@pytest.mark.parametrize(
    ("role", "kind", "error"),
    [
        (OWNER, "boss", errors.InvalidParameterValue),
        (OWNER, None, errors.InvalidParameterValue),
        ("perdure_test_nobody", "client", errors.UndefinedObject),
        ("public", "client", errors.UndefinedObject),
        (None, "client", errors.UndefinedObject),
    ],
)
def test_unknown_roles_and_kinds_are_refused(database: Database, role: str, kind: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        database.connect().execute("select perdure.grant_role(%s, %s)", [role, kind])
    assert database.value("select count(*) from perdure.role_grant") == 0


def test_an_admin_opens_the_install_to_others(granted: Database) -> None:
    conn = granted.connect(role_of("admin"))
    conn.execute("select perdure.grant_role(%s, 'observer')", [STRANGER])
    assert granted.admin.execute(
        "select kind, granted_by from perdure.role_grant where role_name = %s", [STRANGER]
    ).fetchall() == [("observer", role_of("admin"))]
    assert granted.value(
        "select done_by from perdure.audit where act = 'grant_role' order by done_at desc limit 1"
    ) == role_of("admin")
    conn.execute("select perdure.revoke_role(%s, 'observer')", [STRANGER])


def test_the_four_roles_of_an_install_have_their_kinds(server: PostgresServer) -> None:
    server.create_role("perdure_test_creator", "login createrole nocreatedb")
    database = server.create_database(owner="perdure_test_creator")
    try:
        database.install("shop")
        for kind in KINDS:
            allowed = {
                name
                for (name,) in database.admin.execute(
                    "select name from shop._permissions() where %s = any (kinds)", [kind]
                )
            }
            found = {
                name
                for (name,) in database.admin.execute(
                    "select proname from pg_proc where pronamespace = 'shop'::regnamespace and has_function_privilege(%s, oid, 'execute')",
                    [f"shop_{kind}"],
                )
            }
            assert found <= allowed
            assert "version" in found
    finally:
        database.drop()
        with server.admin() as conn:
            for kind in KINDS:
                conn.execute(f"drop role if exists shop_{kind}")  # type: ignore[arg-type]
