"""Rules about what stands in the bodies of functions; each exception stands here with its reason."""

from __future__ import annotations

import re

import pytest
from pglast import ast, visitors

from support import bodies
from support.bodies import Routine
from support.checks import assert_none
from support.database import Database

CODE = re.compile(r"\bPD\d{3}\b")

CLOCKS = re.compile(
    r"(?<![\w.])(?:pg_catalog\.)?(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\s*\("
    r"|\b(?:current_timestamp|current_time|current_date|localtimestamp|localtime)\b",
    re.IGNORECASE,
)
CLOCK_WORDS = re.compile(r"'(?:now|today|tomorrow|yesterday)'", re.IGNORECASE)

# Who else may look at the time, and why.
CLOCK_READERS = {
    "perdure.await(uuid,interval,jsonb)": "tells by two timestamps whether it stands in a transaction block; reads no time",
    "perdure.run_ticks(integer,interval)": "it really sleeps between its rounds, so it looks at the real time",
    "perdure.install.installed_at": "set by the installer, before there is a _now()",
    "perdure.role_grant.granted_at": "belongs to the installation, not to the life of a run",
}

# Whoever puts SQL together from text, and why it must.
DYNAMIC = {
    "_close": "revokes by names from the catalog",
    "_grant_kind": "grants go to a role known by name, for functions of the matrix",
    "_revoke_all": "revokes what the matrix gave to a role known by name",
    "_cron_schedule": "calls pg_cron, which may not be there",
    "disable_cron": "calls pg_cron, which may not be there",
    "listen": "LISTEN takes a name, no parameter",
    "unlisten": "so does UNLISTEN",
    "_stop_all": "locks partitions, which are known by name",
    "_make_parts": "makes partitions",
    "_attach": "makes a table a partition",
    "_detach": "takes a partition out",
    "_split": "moves rows between two partitions, of which one is none at that moment",
    "_guard_old": "puts a constraint on a partition",
    "_merge": "moves rows between two partitions that are none at that moment",
    "_drop_guards": "takes constraints off partitions",
    "_discard": "drops what was a partition",
    "_abandon_copy": "drops tables that were made to become partitions",
    "_begin_copy": "puts a constraint on them",
    "_copy_some": "copies rows to them",
    "_still_open": "reads them",
    "_catch_up": "copies rows to them",
    "_swap": "makes them partitions",
    "_free_keys": "reads what was a partition, then drops it",
}

# Where plpgsql_check is wrong: (function, beginning of its message) -> why.
SHOULD_BE_STABLE = "routine is marked as VOLATILE, should be STABLE"
BY_AN_OLDER_SNAPSHOT = "a stable one reads by a snapshot that is older than the locks it waited for"
EXPECTED_WARNINGS = {
    (
        "_revoke_all",
        "text type variable is not sanitized",
    ): "names come from the catalog, quoted by regclass and quote_ident",
    ("_reason_error", SHOULD_BE_STABLE): BY_AN_OLDER_SNAPSHOT,
    ("explain", SHOULD_BE_STABLE): BY_AN_OLDER_SNAPSHOT,
    ("result", SHOULD_BE_STABLE): BY_AN_OLDER_SNAPSHOT,
}

# What bodies call of pg_cron, which lives in another database of another server here.
CRON = """
create schema cron;
create table cron.job (jobid bigint, schedule text, command text, nodename text, nodeport integer, database text,
  username text, active boolean, jobname name);
create table cron.job_run_details (jobid bigint, runid bigint, job_pid integer, database text, username text,
  command text, status text, return_message text, start_time timestamptz, end_time timestamptz);
create function cron.schedule(job_name name, schedule text, command text) returns bigint language sql as 'select 1::bigint';
create function cron.schedule_in_database(job_name name, schedule text, command text, database text,
  username text default null, active boolean default true) returns bigint language sql as 'select 1::bigint';
create function cron.unschedule(job_id bigint) returns boolean language sql as 'select true';
"""


def test_every_error_code_is_listed_and_every_listed_one_is_raised(
    installed: Database, routines: list[Routine]
) -> None:
    listed = {row[0] for row in installed.admin.execute("select sqlstate from perdure.errors").fetchall()}
    raised = {code for r in routines for code in CODE.findall(bodies.without_comments(r.body))}
    assert_none(raised - listed, "raised but not in the view perdure.errors")
    assert_none(listed - raised, "in the view perdure.errors but never raised")


def views_and_defaults(database: Database) -> dict[str, str]:
    """What stands in views and in the defaults of columns."""
    return dict(
        database.admin.execute(
            """
            select c.oid::regclass::text, pg_get_viewdef(c.oid) from pg_class as c
            where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('v', 'm')
            union all
            select d.adrelid::regclass || '.' || a.attname, pg_get_expr(d.adbin, d.adrelid)
            from pg_attrdef as d join pg_class as c on c.oid = d.adrelid
            join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
            where c.relnamespace = 'perdure'::regnamespace
            """
        ).fetchall()
    )


def test_only_now_reads_a_clock(installed: Database, routines: list[Routine]) -> None:
    definitions = {r.signature: r.body for r in routines if r.name != "_now"}
    definitions |= views_and_defaults(installed)
    readers = {
        name
        for name, text in definitions.items()
        if CLOCKS.search(bodies.code(text)) or CLOCK_WORDS.search(bodies.without_comments(text))
    }
    assert_none(readers - set(CLOCK_READERS), "reads a clock and is not listed")
    assert_none(set(CLOCK_READERS) - readers, "listed, but reads no clock")


RANDOM = re.compile(r"\bgen_random_uuid\b|\buuidv[47]\b|\buuid_generate_v", re.IGNORECASE)


def test_only_random_uuid_makes_ids_at_random(installed: Database, routines: list[Routine]) -> None:
    """A simulation replaces that one function: the same seed gives the same ids and claims."""
    assert any(r.name == "_random_uuid" and RANDOM.search(bodies.code(r.body)) for r in routines)
    definitions = {r.signature: r.body for r in routines if r.name != "_random_uuid"}
    definitions |= views_and_defaults(installed)
    makers = {name for name, text in definitions.items() if RANDOM.search(bodies.code(text))}
    assert_none(makers, "makes a random id beside _random_uuid")


def test_plpgsql_check_is_silent(database: Database) -> None:
    if not database.server.has_plpgsql_check:
        pytest.skip("plpgsql_check is not on this server")
    database.admin.execute("create extension plpgsql_check schema public")
    database.admin.execute(CRON)
    said = database.admin.execute(
        """
        select p.proname, p.oid::regprocedure || coalesce(' line ' || c.lineno, '') || ': ' || c.level || ': ' || c.message
            || coalesce(' (' || c.detail || ')', ''),
          c.message
        from pg_proc as p
        join pg_language as l on l.oid = p.prolang and l.lanname = 'plpgsql'
        cross join lateral public.plpgsql_check_function_tb(
          p.oid, other_warnings => true, performance_warnings => true, extra_warnings => true, security_warnings => true
        ) as c
        where p.pronamespace = 'perdure'::regnamespace
        """
    ).fetchall()
    unexpected = [
        text
        for name, text, message in said
        if not any(name == known and message.startswith(begin) for known, begin in EXPECTED_WARNINGS)
    ]
    assert_none(unexpected, "plpgsql_check has something to say")


def test_what_is_set_is_computed_before(installed: Database, routines: list[Routine]) -> None:
    """Citus refuses volatile and stable calls in `update … set` and in `on conflict … set`: take them into a variable."""
    mutable = {
        row[0]
        for row in installed.admin.execute(
            "select p.proname from pg_proc as p where p.provolatile <> 'i' "
            "and p.pronamespace in ('pg_catalog'::regnamespace, 'perdure'::regnamespace) and p.prokind = 'f'"
        ).fetchall()
    }
    found = [
        f"{r.signature} sets {call}(…) in: {' '.join(text.split())[:100]}"
        for r in routines
        for text, statement in bodies.statements(r.definition, r.language)
        for call in calls_in_set_lists(statement)
        if call in mutable
    ]
    assert_none(found, "a volatile or stable call in a SET list: take it into a variable first")


def calls_in_set_lists(statement: ast.Node) -> list[str]:
    """The names of functions called where a statement says what to set."""
    calls: list[str] = []

    class Calls(visitors.Visitor):
        def visit_FuncCall(self, _ancestors: object, node: ast.FuncCall) -> None:  # noqa: N802 - pglast's name
            calls.append(node.funcname[-1].sval)

        def visit_SQLValueFunction(self, _ancestors: object, _node: object) -> None:  # noqa: N802 - pglast's name
            calls.append("now")

    class SetLists(visitors.Visitor):
        def visit_UpdateStmt(self, _ancestors: object, node: ast.UpdateStmt) -> None:  # noqa: N802 - pglast's name
            for target in node.targetList or ():
                Calls()(target)

        def visit_OnConflictClause(self, _ancestors: object, node: ast.OnConflictClause) -> None:  # noqa: N802
            for target in node.targetList or ():
                Calls()(target)

    SetLists()(statement)
    return calls


def test_sql_is_put_together_from_text_only_where_it_must_be(routines: list[Routine]) -> None:
    dynamic = {r.name for r in routines if r.language == "plpgsql" and has_dynamic_sql(r)}
    assert_none(dynamic - set(DYNAMIC), "puts SQL together from text and is not listed")
    assert_none(set(DYNAMIC) - dynamic, "listed, but needs no such licence")


def has_dynamic_sql(routine: Routine) -> bool:
    tree = bodies.tree(routine.definition)
    return any(any(bodies.nodes(tree, kind)) for kind in ("PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"))


def test_conflicts_name_their_constraint(routines: list[Routine]) -> None:
    """A column list would be ambiguous with the parameters of the same names."""
    odd = [
        r.signature
        for r in routines
        for match in re.finditer(r"\bon\s+conflict\s+(\S+)", bodies.code(r.body), re.IGNORECASE)
        if match[1].lower() not in ("on", "do")
    ]
    assert_none(odd, "on conflict without 'on constraint'")


def test_no_body_says_which_name_wins(routines: list[Routine]) -> None:
    assert_none((r.signature for r in routines if "#variable_conflict" in r.body), "says #variable_conflict")


def test_locals_are_told_from_columns(routines: list[Routine]) -> None:
    odd = []
    for r in routines:
        if r.language != "plpgsql":
            continue
        known = {*(r.arguments or []), "found", "sqlstate", "sqlerrm", "i", "j"}
        for kind in ("PLpgSQL_var", "PLpgSQL_rec", "PLpgSQL_row"):
            for variable in bodies.nodes(bodies.tree(r.definition), kind):
                name = variable["refname"]
                if name not in known and not name.startswith(("v_", "__", "(", "$", "tg_")):
                    odd.append(f"{r.signature}: {name}")
    assert_none(odd, "a local without v_")
