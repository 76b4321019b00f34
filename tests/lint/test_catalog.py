"""Rules that the catalog can answer; each exception stands here with its reason."""

from __future__ import annotations

import re

import pytest

from support import bodies
from support.bodies import Routine
from support.checks import assert_none
from support.database import Database

PINNED = "search_path=pg_catalog, pg_temp"
# A SET clause would keep a SQL function from being inlined where it is called for each row, or by each call.
INLINED = (
    "_bytes",
    "_caller",
    "_is_above",
    "_is_awaited",
    "_limit_for",
    "_now",
    "_outcome",
    "_queue_key",
    "_random_uuid",
    "_small_payload",
    "_uuid7",
)
UNQUALIFIED = re.compile(r"(?<![\w.])(?!(?:row|coalesce|nullif|overlay)\()[a-z_]\w*\(")
LOCAL = re.compile(r"^\s+(v_\w+) (?:constant )?(\S+?)(?:\[\])?(?:;| |$)", re.MULTILINE)
# Words of the grammar, which no search_path changes.
GRAMMAR_TYPES = {"bigint", "boolean", "double", "integer", "interval", "numeric", "smallint"}

# Public functions that run with the rights of their caller.
INVOKERS = {
    "enable_cron": "pg_cron runs a job as whoever scheduled it, and that must be the caller, not the owner",
    "disable_cron": "a job can be removed by whoever scheduled it",
}

# Columns of time or truth whose plain name says more.
PLAIN_NAMES = {
    "run.deadline": "the word that people use, in the functions too",
    "timeline.calm_since": "calm has reigned since then",
    "timeline.watched_since": "somebody has watched since then",
    "timeline.since": "a timeline is known since then",
}


def names(database: Database, query: str) -> list[str]:
    return [row[0] for row in database.admin.execute(query.encode()).fetchall()]


def test_public_functions_are_definers_except_those_listed(routines: list[Routine]) -> None:
    invokers = {r.name for r in routines if r.kind == "f" and r.is_public and not r.is_definer}
    assert_none(invokers - set(INVOKERS), "runs as its caller and is not listed")
    assert_none(set(INVOKERS) - invokers, "listed, but is no invoker")


def test_private_functions_run_as_whoever_calls_them(routines: list[Routine]) -> None:
    assert_none((r.signature for r in routines if not r.is_public and r.is_definer), "private and a definer")


def called_by_others(database: Database, routines: list[Routine]) -> set[str]:
    """Functions that somebody else than the owner may enter, or that views, defaults, checks or procedures name."""
    found = set(
        names(
            database,
            """
            select m.name::text from perdure._permissions() as m
            union
            select p.proname::text
            from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
            where p.pronamespace = 'perdure'::regnamespace and a.grantee <> p.proowner
            union
            select p.proname::text
            from pg_depend as d
            join pg_proc as p on p.oid = d.refobjid and d.refclassid = 'pg_proc'::regclass
            where p.pronamespace = 'perdure'::regnamespace and d.classid <> 'pg_proc'::regclass
            """,
        )
    )
    for routine in routines:
        if routine.kind == "p":
            found |= set(re.findall(r"\bperdure\.(\w+)\(", bodies.code(routine.body)))
    return found


def test_whatever_others_may_call_has_its_search_path_pinned(installed: Database, routines: list[Routine]) -> None:
    entered = called_by_others(installed, routines)
    assert {"_clock", "_now", "_cron_home"} < entered
    loose = [
        r.signature
        for r in routines
        if r.kind == "f"
        and (r.is_public or r.name in entered)
        and PINNED not in (r.config or [])
        and r.name not in INLINED
    ]
    assert_none(loose, "without the pinned search_path")


def test_what_the_owner_alone_may_call_sets_nothing(installed: Database, routines: list[Routine]) -> None:
    """It runs inside a function whose path is pinned; each SET clause costs more than what most of them do."""
    entered = called_by_others(installed, routines)
    assert_none(
        (r.signature for r in routines if not r.is_public and r.name not in entered and r.config), "sets something"
    )


def test_every_path_is_the_same(routines: list[Routine]) -> None:
    """A function whose callers have different paths would have its plans made anew by each."""
    odd = [
        f"{r.signature}: {setting}"
        for r in routines
        for setting in r.config or []
        if setting.startswith("search_path") and setting != PINNED
    ]
    assert_none(odd, "another path than the rest")


def test_locals_of_what_is_not_pinned_name_their_types_with_the_schema(routines: list[Routine]) -> None:
    """A session reads them once, at its first call, by the path of that moment."""
    read = [
        (r, local[1], local[2])
        for r in routines
        if r.language == "plpgsql" and PINNED not in (r.config or [])
        for part in re.findall(r"\bdeclare\n(.*?)\n\s*begin\b", bodies.code(r.body), re.DOTALL)
        for local in LOCAL.finditer(part)
    ]
    assert len(read) > 60
    odd = [
        f"{r.signature}: {name} {kind}"
        for r, name, kind in read
        if not kind.startswith(("pg_catalog.", "perdure.")) and kind not in GRAMMAR_TYPES
    ]
    assert_none(odd, "a type that a search_path could change")


def test_functions_that_are_inlined_call_nothing_without_its_schema(routines: list[Routine]) -> None:
    inlined = [r for r in routines if r.name in INLINED]
    assert len(inlined) == len(INLINED)
    for routine in inlined:
        assert routine.language == "sql" and not routine.is_public and not routine.config
        assert_none(UNQUALIFIED.findall(bodies.code(routine.body)), f"called by {routine.name} without its schema")


def test_procedures_can_commit(routines: list[Routine]) -> None:
    bound = [r.signature for r in routines if r.kind == "p" and (r.is_definer or r.config)]
    assert_none(bound, "a procedure that cannot commit")


def test_public_may_do_nothing(installed: Database) -> None:
    found = names(
        installed,
        """
        select p.oid::regprocedure::text
        from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
        where p.pronamespace = 'perdure'::regnamespace and a.grantee = 0
        union all
        select c.oid::regclass::text
        from pg_class as c, aclexplode(c.relacl) as a
        where c.relnamespace = 'perdure'::regnamespace and a.grantee = 0
        union all
        select n.nspname
        from pg_namespace as n, aclexplode(n.nspacl) as a
        where n.nspname = 'perdure' and a.grantee = 0
        union all
        select t.typname
        from pg_type as t, aclexplode(t.typacl) as a
        where t.typnamespace = 'perdure'::regnamespace and a.grantee = 0
        """,
    )
    assert_none(found, "there is one")


def test_tables_are_granted_to_nobody(installed: Database) -> None:
    found = names(
        installed,
        """
        select c.oid::regclass || ' to ' || a.grantee::regrole
        from pg_class as c, aclexplode(c.relacl) as a
        where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'S') and a.grantee <> c.relowner
        """,
    )
    assert_none(found, "there is one")


def test_everything_belongs_to_one_role(installed: Database) -> None:
    owners = names(
        installed,
        """
        select c.relowner::regrole::text from pg_class as c where c.relnamespace = 'perdure'::regnamespace
        union
        select p.proowner::regrole::text from pg_proc as p where p.pronamespace = 'perdure'::regnamespace
        union
        select n.nspowner::regrole::text from pg_namespace as n where n.nspname = 'perdure'
        """,
    )
    assert owners == [installed.owner]


def test_no_index_depends_on_a_collation(installed: Database) -> None:
    """Else an upgrade of the system, where it orders words differently, would leave it in disorder."""
    found = names(
        installed,
        """
        select i.indexrelid::regclass::text
        from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        cross join unnest(i.indcollation) as k (collation_oid)
        where c.relnamespace = 'perdure'::regnamespace and k.collation_oid not in (0, '"C"'::regcollation)
        """,
    )
    assert_none(found, "by another collation than C")


@pytest.mark.parametrize(
    ("what", "query"),
    [
        (
            "schema",
            "select n.nspname::text from pg_namespace as n where n.nspname = 'perdure' "
            "and obj_description(n.oid, 'pg_namespace') is null",
        ),
        (
            "function",
            "select p.oid::regprocedure::text from pg_proc as p where p.pronamespace = 'perdure'::regnamespace "
            "and obj_description(p.oid, 'pg_proc') is null",
        ),
        (
            "table, view or sequence",
            "select c.oid::regclass::text from pg_class as c where c.relnamespace = 'perdure'::regnamespace "
            "and c.relkind in ('r', 'p', 'v', 'm', 'S') and not c.relispartition "
            "and obj_description(c.oid, 'pg_class') is null",
        ),
        (
            "column",
            "select c.oid::regclass || '.' || a.attname from pg_class as c join pg_attribute as a on a.attrelid = c.oid "
            "where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') "
            "and not c.relispartition and a.attnum > 0 and not a.attisdropped "
            "and col_description(c.oid, a.attnum) is null",
        ),
        (
            "index beyond the keys",
            "select c.oid::regclass::text from pg_class as c join pg_index as i on i.indexrelid = c.oid "
            "where c.relnamespace = 'perdure'::regnamespace and not c.relispartition "
            "and not exists (select from pg_constraint as k where k.conindid = c.oid) "
            "and obj_description(c.oid, 'pg_class') is null",
        ),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_everything_has_a_comment(installed: Database, what: str, query: str) -> None:
    assert_none(names(installed, query), f"{what} without a comment")


def test_a_comment_begins_like_a_sentence_and_ends_like_one(installed: Database) -> None:
    odd = names(
        installed,
        r"""
        select p.oid::regprocedure || ': ' || d.description
        from pg_proc as p
        join pg_description as d on d.objoid = p.oid and d.classoid = 'pg_proc'::regclass
        where p.pronamespace = 'perdure'::regnamespace and d.description !~ '^[A-Z][^\n]*\.(\n|$)'
        """,
    )
    assert_none(odd, "named or worded otherwise than the rest")


def test_nothing_is_overloaded(installed: Database) -> None:
    found = names(
        installed,
        "select p.proname::text from pg_proc as p where p.pronamespace = 'perdure'::regnamespace "
        "group by p.proname having count(*) > 1",
    )
    assert_none(found, "there is one")


def test_checks_are_named_as_sentences(installed: Database) -> None:
    unnamed = names(
        installed,
        r"""
        select k.conrelid::regclass || ': ' || k.conname
        from pg_constraint as k
        where k.connamespace = 'perdure'::regnamespace and k.contype = 'c' and k.conname ~ '_check\d*$'
        """,
    )
    assert_none(unnamed, "a check with a default name")


def test_indexes_are_named_after_their_purpose(installed: Database) -> None:
    odd = names(
        installed,
        r"""
        select c.relname::text
        from pg_class as c
        join pg_index as i on i.indexrelid = c.oid
        join pg_class as t on t.oid = i.indrelid
        where c.relnamespace = 'perdure'::regnamespace and not c.relispartition and not t.relispartition
          and c.relname !~ ('^' || t.relname || '_(pkey|\w+_idx|\w+_key)$')
        """,
    )
    assert_none(odd, "named or worded otherwise than the rest")


def test_columns_of_time_and_truth_say_so(installed: Database) -> None:
    odd = names(
        installed,
        r"""
        select c.relname || '.' || a.attname
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid
        where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and a.attnum > 0 and not a.attisdropped
          and ((a.atttypid = 'timestamptz'::regtype and a.attname !~ '_at$')
            or (a.atttypid = 'boolean'::regtype and a.attname !~ '^is_'))
        """,
    )
    assert_none(set(odd) - set(PLAIN_NAMES), "timestamptz is named …_at, boolean is_…")
    assert_none(set(PLAIN_NAMES) - set(odd), "listed, but not there")


def test_times_have_a_zone(installed: Database) -> None:
    found = names(
        installed,
        "select c.relname || '.' || a.attname from pg_class as c join pg_attribute as a on a.attrelid = c.oid "
        "where c.relnamespace = 'perdure'::regnamespace and a.atttypid = 'timestamp'::regtype",
    )
    assert_none(found, "there is one")


@pytest.mark.parametrize(
    ("what", "query"),
    [
        (
            "trigger",
            "select t.tgname::text from pg_trigger as t join pg_class as c on c.oid = t.tgrelid "
            "where c.relnamespace = 'perdure'::regnamespace",
        ),
        (
            "foreign key",
            "select k.conname::text from pg_constraint as k "
            "where k.connamespace = 'perdure'::regnamespace and k.contype = 'f'",
        ),
        (
            "enum",
            "select t.typname::text from pg_type as t where t.typnamespace = 'perdure'::regnamespace and t.typtype = 'e'",
        ),
        ("rule", "select r.rulename::text from pg_rules as r where r.schemaname = 'perdure'"),
    ],
    ids=lambda value: value if len(value) < 30 else "",
)
def test_there_is_none(installed: Database, what: str, query: str) -> None:
    assert_none(names(installed, query), f"there is to be no {what}")


def test_parameters_have_bare_names(routines: list[Routine]) -> None:
    odd = [
        f"{r.signature}: {argument}"
        for r in routines
        for argument in r.arguments or []
        if argument.startswith(("p_", "_", "in_", "v_")) or not argument.islower()
    ]
    assert_none(odd, "named or worded otherwise than the rest")


def test_every_parameter_has_a_name(routines: list[Routine]) -> None:
    unnamed = [r.signature for r in routines if r.signature.partition("(")[2] != ")" and not all(r.arguments or [""])]
    assert_none(unnamed, "a parameter without a name")
