"""Every cell of the permission matrix: each kind of role against each function, view and table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import errors, sql

from support.database import OWNER, Database, PostgresServer

KINDS = ("client", "worker", "observer", "admin")
STRANGER = "perdure_test_stranger"


def role_of(kind: str) -> str:
    return f"perdure_test_{kind}"


@pytest.fixture
def granted(server: PostgresServer, database: Database) -> Iterator[Database]:
    """A database whose plain owner gave one existing role each kind."""
    for name in (*map(role_of, KINDS), STRANGER):
        server.create_role(name)
    conn = database.connect()
    for kind in KINDS:
        conn.execute("select perdure.grant_role(%s, %s)", [role_of(kind), kind])
    yield database
    database.admin.execute(f"set role {OWNER}")
    for kind in KINDS:
        database.admin.execute("select perdure.revoke_role(%s, %s)", [role_of(kind), kind])


def matrix(database: Database) -> dict[str, set[str]]:
    return {
        name: set(kinds) for (name, kinds) in database.admin.execute("select name, kinds from perdure._permissions()")
    }


def routines(database: Database) -> list[tuple[int, str]]:
    return database.admin.execute(
        "select oid, proname from pg_proc where pronamespace = 'perdure'::regnamespace order by proname"
    ).fetchall()


def relations(database: Database, kinds: str) -> list[tuple[int, str]]:
    return database.admin.execute(
        "select oid, relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = any (%s) order by relname",
        [list(kinds)],
    ).fetchall()


@pytest.mark.parametrize("kind", [*KINDS, "stranger"])
def test_every_function_is_allowed_or_denied_as_the_matrix_says(granted: Database, kind: str) -> None:
    allowed = {name for name, kinds in matrix(granted).items() if kind in kinds}
    wrong = [
        (name, found)
        for oid, name in routines(granted)
        if (found := granted.value("select has_function_privilege(%s, %s::oid, 'execute')", role_of(kind), oid))
        != (name in allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", [*KINDS, "stranger"])
def test_every_view_is_allowed_or_denied_as_the_matrix_says(granted: Database, kind: str) -> None:
    allowed = {name for name, kinds in matrix(granted).items() if kind in kinds}
    for oid, name in relations(granted, "v"):
        may_read = granted.value("select has_table_privilege(%s, %s::oid, 'select')", role_of(kind), oid)
        assert may_read == (name in allowed), name
        may_write = granted.value(
            "select has_table_privilege(%s, %s::oid, 'insert, update, delete, truncate, trigger, references')",
            role_of(kind),
            oid,
        )
        assert not may_write, name


@pytest.mark.parametrize("kind", [*KINDS, "stranger"])
def test_tables_and_sequences_are_granted_to_nobody(granted: Database, kind: str) -> None:
    tables = relations(granted, "rp")
    assert {"run", "dispatch", "step", "role_grant"} <= {name for _, name in tables}
    every = "select, insert, update, delete, truncate, trigger, references"
    for oid, name in tables:
        assert not granted.value("select has_table_privilege(%s, %s::oid, %s)", role_of(kind), oid, every), name
        assert not granted.value(
            "select has_any_column_privilege(%s, %s::oid, 'select, insert, update, references')", role_of(kind), oid
        ), name
    for oid, name in relations(granted, "S"):
        assert not granted.value(
            "select has_sequence_privilege(%s, %s::oid, 'usage, select, update')", role_of(kind), oid
        ), name


@pytest.mark.parametrize("kind", [*KINDS, "stranger"])
def test_nobody_may_create_in_the_schema(granted: Database, kind: str) -> None:
    assert not granted.value("select has_schema_privilege(%s, 'perdure', 'create')", role_of(kind))
    assert granted.value("select has_schema_privilege(%s, 'perdure', 'usage')", role_of(kind)) == (kind != "stranger")


def test_the_matrix_names_what_is_there_and_nothing_public_is_missing(database: Database) -> None:
    there = {name for _, name in routines(database)} | {name for _, name in relations(database, "v")}
    named = matrix(database)
    # The views come last; until then the matrix is ahead of them.
    assert {name for name in there if not name.startswith("_")} - set(named) == set(), "public but in no row"
    assert all(kinds <= set(KINDS) and kinds for kinds in named.values())
    assert set(named) - there == set(), "in the matrix but not there"


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


@pytest.mark.parametrize("kind", KINDS)
def test_every_view_that_is_granted_can_be_read(granted: Database, kind: str) -> None:
    # A view reads tables as its owner, but calls functions as whoever reads it.
    conn = granted.connect(role_of(kind))
    for _, name in relations(granted, "v"):
        if kind in matrix(granted).get(name, set()):
            conn.execute(sql.SQL("select * from perdure.{}").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    ("kind", "statement", "is_allowed"),
    [
        ("client", "select perdure.version()", True),
        ("client", "select perdure.start('w')", True),
        ("client", "select perdure.signal(gen_random_uuid(), 's')", True),
        ("client", "select perdure.terminate(gen_random_uuid())", False),
        ("client", "select * from perdure.run", False),
        ("client", "select perdure.tick()", False),
        ("client", "select perdure.register_worker('{default}', '{w}')", False),
        ("worker", "select perdure.register_worker('{default}', '{w}')", True),
        ("worker", "select perdure.start('w')", False),
        ("worker", "select perdure.tick()", True),
        ("worker", "update perdure.dispatch set queue = 'x'", False),
        ("observer", "select count(*) from perdure.errors", True),
        ("observer", "select perdure.start('w')", False),
        ("observer", "select input from perdure.run", False),
        ("admin", "select perdure.put_queue('q')", True),
        ("admin", "select perdure.enable_cron()", True),
        ("admin", "select perdure.disable_cron()", True),
        ("admin", "delete from perdure.audit", False),
        ("admin", "select perdure._revoke_all()", False),
        ("admin", "select perdure.revoke_role('perdure_test_client', 'client')", True),
        ("stranger", "select perdure.version()", False),
        ("stranger", "select * from perdure.errors", False),
    ],
)
def test_the_privileges_hold_in_real_calls(granted: Database, kind: str, statement: str, is_allowed: bool) -> None:
    granted.connect().execute("select perdure.put_workflow('w')")
    conn = granted.connect(role_of(kind))
    if is_allowed:
        conn.execute(statement)  # type: ignore[arg-type]
    else:
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute(statement)  # type: ignore[arg-type]


def test_public_has_nothing(database: Database) -> None:
    assert (
        database.admin.execute(
            "select p.oid::regprocedure::text from pg_proc as p"
            " cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a"
            " where p.pronamespace = 'perdure'::regnamespace and a.grantee = 0"
            " union all"
            " select c.oid::regclass::text from pg_class as c cross join aclexplode(c.relacl) as a"
            " where c.relnamespace = 'perdure'::regnamespace and a.grantee = 0"
            " union all"
            " select n.nspname from pg_namespace as n cross join aclexplode(n.nspacl) as a"
            " where n.nspname = 'perdure' and a.grantee = 0"
        ).fetchall()
        == []
    )


def test_a_role_may_have_two_kinds_and_lose_one(granted: Database) -> None:
    conn = granted.connect()
    conn.execute("select perdure.grant_role(%s, 'worker')", [role_of("client")])
    both = {name for name, kinds in matrix(granted).items() if kinds & {"client", "worker"}}
    client = {name for name, kinds in matrix(granted).items() if "client" in kinds}

    def held() -> set[str]:
        rows = granted.admin.execute(
            "select proname from pg_proc where pronamespace = 'perdure'::regnamespace and has_function_privilege(%s, oid, 'execute')"
            " union select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'"
            " and has_table_privilege(%s, oid, 'select')",
            [role_of("client")] * 2,
        )
        return {name for (name,) in rows}

    there = {name for _, name in routines(granted)} | {name for _, name in relations(granted, "v")}
    assert held() == both & there
    conn.execute("select perdure.revoke_role(%s, 'worker')", [role_of("client")])
    assert held() == client & there
    conn.execute("select perdure.revoke_role(%s, 'client')", [role_of("client")])
    assert held() == set()
    conn.execute("select perdure.revoke_role(%s, 'client')", [role_of("client")])  # once more is no error


def test_a_role_that_had_a_kind_can_be_dropped_after_its_revoke(database: Database, server: PostgresServer) -> None:
    server.create_role("perdure_test_leaver")
    conn = database.connect()
    conn.execute("select perdure.grant_role('perdure_test_leaver', 'admin')")
    with pytest.raises(errors.DependentObjectsStillExist):
        database.admin.execute("drop role perdure_test_leaver")
    conn.execute("select perdure.revoke_role('perdure_test_leaver', 'admin')")
    database.admin.execute("drop role perdure_test_leaver")


def test_names_that_need_quotes_work(database: Database, server: PostgresServer) -> None:
    name = 'perdure_test "Odd" röle'
    server.create_role(name)
    conn = database.connect()
    conn.execute("select perdure.grant_role(%s, 'client')", [name])
    assert database.value("select has_function_privilege(%s, 'perdure.version()', 'execute')", name)
    conn.execute("select perdure.revoke_role(%s, 'client')", [name])
    database.admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


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


def test_rerunning_the_code_gives_every_role_its_part_again(granted: Database) -> None:
    from perdure._build import SOURCES, bundle

    conn = granted.connect()
    before = granted.admin.execute(
        "select oid::regprocedure::text, proacl::text from pg_proc where pronamespace = 'perdure'::regnamespace order by 1"
    ).fetchall()
    conn.execute("grant select on perdure.run to public; grant execute on function perdure._now() to public")
    granted.admin.execute(f"revoke execute on function perdure.version() from {role_of('client')}")
    with conn.transaction():
        conn.execute(bundle(SOURCES / "code.sql").encode())
    after = granted.admin.execute(
        "select oid::regprocedure::text, proacl::text from pg_proc where pronamespace = 'perdure'::regnamespace order by 1"
    ).fetchall()
    assert {name: set((acl or "").strip("{}").split(",")) for name, acl in after} == {
        name: set((acl or "").strip("{}").split(",")) for name, acl in before
    }
    assert not granted.value("select has_table_privilege('public', 'perdure.run', 'select')")


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


def test_functions_run_with_the_right_callers_name(granted: Database) -> None:
    conn = granted.connect(granted.superuser)
    conn.execute(f"set role {role_of('admin')}")  # type: ignore[arg-type]
    conn.execute("select perdure.put_queue('by-admin')")
    assert granted.value(
        "select done_by from perdure.audit where act = 'put_queue' and detail ->> 'name' = 'by-admin'"
    ) == role_of("admin")
