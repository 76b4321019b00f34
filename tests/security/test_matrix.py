"""Who may do what, every cell of it: a table written here by hand against the catalog, and against real calls.

The table is not read from `_permissions()`, which would be asked about itself: the engine's own list has to agree too.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql

from perdure._build import SOURCES, bundle
from support.database import Database
from support.hostile import KINDS, Callable, callables, role_of

# What each kind of role may call and read. What is not here is for the owner alone.
MATRIX = """
                          client  worker  observer  admin
start                       x       .        .        x
start_run                   x       .        .        x
start_many                  x       .        .        x
signal                      x       .        .        x
signal_key                  x       .        .        x
cancel                      x       .        .        x
cancel_many                 x       .        .        x
result                      x       .        .        x
await                       x       .        .        x
find_run                    x       .        x        x
get_value                   x       .        x        x
run_results                 x       x        .        x
put_workflow                .       x        .        x
register_worker             .       x        .        .
worker_lock                 .       x        .        .
beat                        .       x        .        .
listen                      .       x        .        .
unlisten                    .       x        .        .
next_due                    .       x        .        .
claim_runs                  .       x        .        .
read_steps                  .       x        .        .
save_steps                  .       x        .        .
save_transaction_step       .       x        .        .
fail_steps                  .       x        .        .
suspend_runs                .       x        .        .
complete_runs               .       x        .        .
fail_runs                   .       x        .        .
release_runs                .       x        .        .
worker_runs                 .       x        .        .
stop_worker                 .       x        .        .
tick                        .       x        .        x
recover                     .       x        .        x
truncate_wake               .       x        .        x
rotate                      .       x        .        x
drain                       .       x        .        x
run_ticks                   .       x        .        x
terminate                   .       .        .        x
terminate_many              .       .        .        x
pause                       .       .        .        x
pause_many                  .       .        .        x
resume                      .       .        .        x
resume_many                 .       .        .        x
retry                       .       .        .        x
retry_many                  .       .        .        x
put_queue                   .       .        .        x
put_setting                 .       .        .        x
grant_role                  .       .        .        x
revoke_role                 .       .        .        x
enable_cron                 .       .        .        x
disable_cron                .       .        .        x
hold                        .       .        .        x
adopt                       .       .        .        x
holds                       .       x        x        x
at_risk                     .       .        x        x
recorded_since              .       .        x        x
version                     x       x        x        x
explain                     .       .        x        x
selftest                    .       .        x        x
errors                      x       x        x        x
act_rules                   x       .        x        x
runs                        .       .        x        x
steps                       .       .        x        x
signals                     .       .        x        x
waits                       .       .        x        x
queues                      .       .        x        x
workflows                   .       .        x        x
settings                    .       .        x        x
workers                     .       .        x        x
versions                    .       .        x        x
stuck                       .       .        x        x
history                     .       .        x        x
metrics                     .       .        x        x
periods                     .       .        x        x
violations                  .       .        x        x
"""

# Private ones that a procedure, an invoker or a view calls with its caller's rights.
MATRIX += """
_now                        x       .        x        x
_clock                      .       .        x        x
_server_started_at          .       .        x        x
_sessions_since             .       .        x        x
_cron_jobs                  .       .        .        x
_cron_home                  .       .        .        x
_cron_schedule              .       .        .        x
_cron_advice                .       .        .        x
"""

# Roles as they are called here, with the kinds they have; the database's owner and a superuser may do all.
ROLES = {
    "public": (),
    "stranger": (),
    **{kind: (kind,) for kind in KINDS},
    "both": ("client", "worker"),
}


def expected() -> dict[str, set[str]]:
    lines = [line.split() for line in MATRIX.splitlines() if line.strip()]
    head, rows = lines[0], lines[1:]
    assert tuple(head) == KINDS
    assert all(len(row) == 5 and set(row[1:]) <= {"x", "."} for row in rows)
    return {row[0]: {kind for kind, mark in zip(KINDS, row[1:], strict=True) if mark == "x"} for row in rows}


EXPECTED = expected()


def allowed(role: str) -> set[str]:
    return {name for name, kinds in EXPECTED.items() if kinds & set(ROLES[role])}


def role_name(database: Database, role: str) -> str:
    return {"public": "public", "owner": database.owner}.get(role, role_of(role))


# The facts of the catalog, one row per object and privilege, for one role.
FACTS = """
with given as (select %(role)s::text as role)
select 'execute', p.proname::text, has_function_privilege(g.role, p.oid, 'execute')
from pg_proc as p, given as g where p.pronamespace = 'perdure'::regnamespace
union all
select 'execute, to give on', p.proname, has_function_privilege(g.role, p.oid, 'execute with grant option')
from pg_proc as p, given as g where p.pronamespace = 'perdure'::regnamespace
union all
select v.privilege || case c.relkind when 'v' then ' of a view' else ' of a table' end, c.relname, has_table_privilege(g.role, c.oid, v.privilege)
from pg_class as c, given as g, unnest(%(table_privileges)s::text[]) as v (privilege)
where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
union all
select v.privilege || ' of a column' || case c.relkind when 'v' then ' of a view' else '' end, c.relname, has_any_column_privilege(g.role, c.oid, v.privilege)
from pg_class as c, given as g, unnest(array['select', 'insert', 'update', 'references']) as v (privilege)
where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
union all
select v.privilege || ' of a sequence', c.relname, has_sequence_privilege(g.role, c.oid, v.privilege)
from pg_class as c, given as g, unnest(array['usage', 'select', 'update']) as v (privilege)
where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'S'
union all
select 'usage of a type', t.typname, has_type_privilege(g.role, t.oid, 'usage')
from pg_type as t, given as g where t.typnamespace = 'perdure'::regnamespace and t.typelem = 0
union all
select v.privilege || ' of the schema', 'perdure', has_schema_privilege(g.role, 'perdure', v.privilege)
from given as g, unnest(array['usage', 'create', 'usage with grant option']) as v (privilege)
"""


def facts(database: Database, role: str) -> list[tuple[str, str, bool]]:
    privileges = ["select", "insert", "update", "delete", "truncate", "references", "trigger"]
    if database.server.major >= 17:
        privileges.append("maintain")
    asked = {"role": role_name(database, role), "table_privileges": privileges}
    return sorted(database.admin.execute(FACTS, asked).fetchall())


def views(database: Database) -> set[str]:
    return {
        name
        for (name,) in database.admin.execute(
            "select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'"
        )
    }


def may(role: str, privilege: str, name: str) -> bool:
    """What the table says about one cell."""
    if role == "owner":
        return True
    if privilege in ("execute", "select of a view", "select of a column of a view"):
        return name in allowed(role)
    return privilege == "usage of the schema" and bool(ROLES[role])


@pytest.mark.parametrize("role", [*ROLES, "owner"])
def test_every_cell_of_the_catalog_is_what_the_table_says(granted: Database, role: str) -> None:
    found = facts(granted, role)
    assert len(found) > 500
    assert [(privilege, name, held) for privilege, name, held in found if held != may(role, privilege, name)] == []


def test_the_table_names_what_is_there_and_nothing_public_is_missing(database: Database) -> None:
    there = {each.name for each in callables(database)} | views(database)
    assert set(EXPECTED) - there == set(), "in the table but not there"
    assert {name for name in there - set(EXPECTED) if not name.startswith("_")} == set(), "public but in no row"


def test_the_engines_own_list_agrees_with_the_table(database: Database) -> None:
    rows = database.admin.execute("select name, kinds from perdure._permissions()").fetchall()
    assert {name: set(kinds) for name, kinds in rows} == EXPECTED


def answer(conn: psycopg.Connection[object], statement: sql.Composed) -> type[Exception] | None:
    try:
        conn.execute(statement)
    except psycopg.Error as error:
        return type(error)
    return None


def is_refused(conn: psycopg.Connection[object], statement: sql.Composed) -> bool:
    return answer(conn, statement) is errors.InsufficientPrivilege


@pytest.mark.parametrize("role", [role for role in ROLES if role != "public"])
def test_every_call_is_refused_or_let_through_as_the_table_says(granted: Database, role: str) -> None:
    conn = granted.connect(role_of(role))
    wrong = [
        (each.signature, refused)
        for each in callables(granted)
        if (refused := is_refused(conn, called(each))) == (each.name in allowed(role))
    ]
    assert wrong == []


def called(each: Callable) -> sql.Composed:
    if each.name == "run_ticks":  # null seconds would tick for ever
        return each.call(sql.Literal(0), sql.Literal("1 second"))
    return each.call_with_something()


RELATION_STATEMENTS = (
    "select 1 from perdure.{} limit 1",
    "select count(*) from perdure.{}",
    "insert into perdure.{} default values",
    "delete from perdure.{}",
    "truncate perdure.{}",
    "lock table perdure.{} in row exclusive mode",
    "lock table perdure.{} in access exclusive mode",
    "select 1 from perdure.{} for update",
    "create temp table t (like perdure.{})",
    "create trigger t before insert on perdure.{} for each row execute function suppress_redundant_updates_trigger()",
    "alter table perdure.{} owner to current_user",
    "comment on table perdure.{} is 'mine'",
)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "public"])
def test_tables_partitions_and_private_views_are_out_of_reach_and_views_can_be_read_only(
    granted: Database, role: str
) -> None:
    conn = granted.connect(role_of(role), autocommit=False)
    relations = granted.admin.execute(
        "select relname, relkind from pg_class where relnamespace = 'perdure'::regnamespace and relkind in ('r', 'p', 'v')"
    ).fetchall()
    wrong = []
    for name, kind in relations:
        for words in RELATION_STATEMENTS:
            is_read = words.startswith("select") and "for update" not in words
            is_open = kind == "v" and name in allowed(role) and (is_read or words.startswith("create temp"))
            got = answer(conn, sql.SQL(words).format(sql.Identifier(name)))
            conn.rollback()
            # Postgres has other words for what cannot be done to a view at all
            if (got is None) != is_open or not (is_open or got in REFUSALS):
                wrong.append((words.format(name), got))
    assert wrong == []


REFUSALS = (
    errors.InsufficientPrivilege,
    errors.WrongObjectType,
    errors.ObjectNotInPrerequisiteState,
    errors.FeatureNotSupported,
)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "public"])
def test_no_role_makes_anything_in_the_schema_or_of_its_types(granted: Database, role: str) -> None:
    conn = granted.connect(role_of(role))
    for statement in (
        "create table perdure.mine (n int)",
        "create function perdure.mine() returns int language sql as 'select 1'",
        "create or replace function perdure._now() returns timestamptz language sql as 'select now()'",
        "create domain perdure.mine as text",
        "create operator perdure.= (function = texteq, leftarg = text, rightarg = name)",
        "create temp table mine (r perdure.run)",
        "create temp table mine (r perdure.runs[])",
        "create function pg_temp.mine() returns perdure.step language sql as 'select null::perdure.step'",
        "select nextval('perdure.signal_sequence')",
        "alter function perdure.version() security invoker",
        "drop function perdure.version()",
        "drop schema perdure cascade",
        "comment on schema perdure is 'mine'",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            conn.execute(statement)


def test_the_statistics_of_the_tables_show_their_values_to_nobody(granted: Database) -> None:
    granted.connect().execute("select perdure.put_workflow('w')")
    granted.connect().execute("select perdure.start('w', '\"a secret\"') from generate_series(1, 50)")
    granted.admin.execute("analyze perdure.run")
    assert granted.value("select count(*) from pg_stats where schemaname = 'perdure'") > 0
    for kind in (*KINDS, "stranger"):
        row = granted.connect(role_of(kind)).execute("select count(*) from pg_stats where schemaname = 'perdure'")
        assert row.fetchone() == (0,), kind


@pytest.fixture
def bundled() -> Iterator[bytes]:
    return bundle(SOURCES / "code.sql").encode()


def test_rerunning_the_code_leaves_every_cell_as_it_is(granted: Database, bundled: bytes) -> None:
    before = {role: facts(granted, role) for role in ROLES}
    conn = granted.connect()
    conn.execute(
        "grant select on perdure.run to public; grant select (input) on perdure.runs to public;"
        "grant execute on function perdure._now() to public; grant usage on type perdure.step to public;"
        "grant all on schema perdure to public; grant usage on sequence perdure.signal_sequence to public"
    )
    conn.execute("revoke execute on function perdure.version() from perdure_test_client")
    with conn.transaction():
        conn.execute(bundled)
    assert {role: facts(granted, role) for role in ROLES} == before


def test_what_a_role_gave_on_is_taken_back_with_it(granted: Database, bundled: bytes) -> None:
    conn = granted.connect()
    conn.execute("grant execute on function perdure.tick() to perdure_test_client with grant option")
    granted.connect(role_of("client")).execute("grant execute on function perdure.tick() to perdure_test_stranger")
    with conn.transaction():
        conn.execute(bundled)
    for role in ("client", "stranger"):
        assert [cell for cell in facts(granted, role) if cell[2] != may(role, *cell[:2])] == []
