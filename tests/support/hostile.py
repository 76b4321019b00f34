"""Who may call what, as the catalog says it, and the objects that a hostile role sets as traps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row
from typing_extensions import LiteralString

from support import bodies
from support.database import Database, PostgresServer
from support.engine import Connection

KINDS = ("client", "worker", "observer", "admin")


def role_of(kind: str) -> str:
    """The role that the tests give a kind, or none: 'stranger'."""
    return f"perdure_test_{kind}"


def grant_kinds(server: PostgresServer, database: Database, **roles: str) -> None:
    """Make roles and give each its kinds, several with a blank between; the owner does it."""
    with database.connect() as conn:
        for role, kinds in roles.items():
            server.create_role(role)
            for kind in kinds.split():
                conn.execute("select perdure.grant_role(%s, %s)", [role, kind])


@dataclass(frozen=True, slots=True)
class Callable:
    """A function or procedure of the schema, with what it takes."""

    oid: int
    name: str
    signature: str
    kind: str
    arguments: list[str]
    types: list[str]
    is_definer: bool

    @property
    def is_public(self) -> bool:
        """Whether it is there to be called from outside."""
        return not self.name.startswith("_")

    def call(self, *values: sql.Composable) -> sql.Composed:
        """A statement that calls it with these values, cast to what it takes."""
        given = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(value, sql.SQL(kind)) for value, kind in zip(values, self.types, strict=True)
        )
        words = "call perdure.{}({})" if self.kind == "p" else "select * from perdure.{}({})"
        return sql.SQL(words).format(sql.Identifier(self.name), given)

    def call_with_something(self) -> sql.Composed:
        """A statement that calls it with values of its types; a strict function is not even looked at with nulls."""
        return self.call(*(something(kind) for kind in self.types))


def something(kind: str) -> sql.Composable:
    """Any value of a type; null of a row type."""
    if kind.endswith("[]"):
        return sql.Literal("{}")
    return sql.Literal(_SOMETHING[kind]) if kind in _SOMETHING else sql.NULL


_SOMETHING = {
    "text": "x", "name": "x", "uuid": "00000000-0000-7000-8000-000000000000", "jsonb": "[]", "integer": "1", "bigint": "1",
    "boolean": "true", "interval": "1 second", "timestamp with time zone": "2030-01-01 00:00+00", "bytea": "\\x00",
}  # fmt: skip


def callables(database: Database) -> list[Callable]:
    """Every function and procedure of the schema."""
    with database.admin.cursor(row_factory=class_row(Callable)) as cursor:
        return cursor.execute(
            """
            select p.oid::int8 as oid, p.proname as name, p.oid::regprocedure::text as signature, p.prokind as kind,
              coalesce(p.proargnames[1:cardinality(i.types)], '{}') as arguments, i.types, p.prosecdef as is_definer
            from pg_proc as p
            cross join lateral (
              select array(
                select format_type(a.type, null)
                from unnest(coalesce(
                  case when p.prokind = 'p' then p.proallargtypes end, p.proargtypes)) with ordinality as a (type, n)
                order by a.n) as types
            ) as i
            where p.pronamespace = 'perdure'::regnamespace
            order by p.proname
            """
        ).fetchall()


def fingerprint(database: Database) -> list[tuple[str, ...]]:
    """All that a caller must not be able to change: objects, owners, privileges and roles."""
    return database.admin.execute(
        """
        select 'class', c.oid::text, c.relname::text, c.relowner::text, c.relacl::text, c.relkind::text
        from pg_class as c where c.relnamespace not in (select n.oid from pg_namespace as n where n.nspname ~ '^pg_(temp|toast)')
        union all
        select 'proc', p.oid::text, p.proname::text, p.proowner::text, p.proacl::text, md5(p.prosrc) from pg_proc as p
        union all
        select 'role', r.oid::text, r.rolname::text, r.rolsuper::text, r.rolconfig::text, r.rolcanlogin::text from pg_roles as r
        union all
        select 'member', m.roleid::text, m.member::text, m.grantor::text, '', '' from pg_auth_members as m
        union all
        select 'schema', n.oid::text, n.nspname::text, n.nspowner::text, n.nspacl::text, '' from pg_namespace as n
        where n.nspname !~ '^pg_(temp|toast)'
        order by 1, 2, 3
        """
    ).fetchall()


class Traps:
    """Objects of role mallory that would show it if anybody but mallory ever ran, read or cast by them.

    A trap counts in a sequence, which no rollback takes back, and then raises. What shadows is named after what the
    bodies of the schema's functions name.
    """

    OWNER = "perdure_test_mallory"
    PATH = "pg_temp, mallory, public, pg_catalog"
    SQLSTATE = "XX666"

    def __init__(self, database: Database) -> None:
        self.database = database
        database.server.create_role(self.OWNER)
        admin = database.admin
        admin.execute("set search_path = pg_catalog")  # the onlooker stays out of them
        admin.execute(f"create schema mallory authorization {self.OWNER}")
        admin.execute(f"alter schema public owner to {self.OWNER}")
        admin.execute(f"grant create, temporary on database {database.name} to {self.OWNER}")
        self.conn = database.connect(self.OWNER)
        self._run("create sequence mallory.caught; grant all on schema mallory, public to public")
        self._run("grant all on sequence mallory.caught to public")
        self._run(
            f"""
            create function mallory.trap(what text) returns boolean language plpgsql volatile as $$
            begin
              if current_user operator(pg_catalog.<>) '{self.OWNER}' then
                perform pg_catalog.nextval('mallory.caught');
                raise exception 'caught: % by %', what, current_user using errcode = '{self.SQLSTATE}';
              end if;
              return true;
            end $$
            """
        )
        self.count = 0
        texts = admin.execute(
            "select prosrc from pg_proc where pronamespace = 'perdure'::regnamespace union all"
            " select pg_get_viewdef(oid) from pg_class where relnamespace = 'perdure'::regnamespace and relkind = 'v'"
        ).fetchall()
        # dynamic SQL stands in literals: only comments are left out
        text = " ".join(bodies.without_comments(body) for (body,) in texts)
        self.words = sorted(set(re.findall(r"[a-z_][a-z0-9_]*", text)))
        self.signs = sorted(set(re.findall(r"[-+*/<>=~!@#%^&|?]+", text)))

    @property
    def caught(self) -> int:
        """How often somebody else ran into one."""
        found: int = self.database.value("select case when is_called then last_value else 0 end from mallory.caught")
        return found

    def set_all(self) -> None:
        """Set every trap that a whole database sees."""
        self._make(self.conn, [*self._functions(), *self._aggregates(), *self._operators(), *self._collations()])
        for place in ("mallory", "public"):
            self._make(self.conn, [*self._types(place), *self._relations(place)])

    def set_in_session(self, conn: Connection) -> None:
        """Set those that one session sees before all others, whatever its path is, and give it the hostile path."""
        self._make(conn, [*self._types("pg_temp"), *self._relations("pg_temp")])
        set_hostile(conn, self.PATH)

    def _functions(self) -> Iterator[str]:
        """Shadow functions of the catalog by ones with the same arguments, and by nearer ones."""
        rows = self.database.admin.execute(
            """
            select p.proname, array(select format_type(a, null) from unnest(p.proargtypes) as a), format_type(p.prorettype, null)
            from pg_proc as p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any(%s) and p.prokind in ('f', 'w')
            """,
            [self.words],
        ).fetchall()
        polymorphic = {"anyelement", "anyarray", "anynonarray", "anycompatible", "anycompatiblearray"}
        made = set()
        for name, types, returned in rows:
            for given in {tuple(types), *_nearer(types)}:
                given = tuple("anyelement" if each == '"any"' else each for each in given)
                if (name, given) in made or set(given) & {"internal", "cstring", "anyrange"}:
                    continue
                made.add((name, given))
                is_open = returned.startswith("any") and not polymorphic & set(given)
                answer = "text" if is_open or returned in ("internal", "trigger", "record", "cstring") else returned
                yield (
                    f"create function public.{_quoted(name)}({', '.join(given)}) returns {answer} language plpgsql"
                    f" volatile as $$ begin perform mallory.trap('function {name}'); return null; end $$"
                )

    def _aggregates(self) -> Iterator[str]:
        rows = self.database.admin.execute(
            """
            select p.proname, array(select format_type(a, null) from unnest(p.proargtypes) as a)
            from pg_proc as p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any(%s) and p.prokind = 'a'
            """,
            [self.words],
        ).fetchall()
        for n, (name, types) in enumerate(rows):
            given = ["anyelement" if each == '"any"' else each for each in types]
            yield (
                f"create function mallory.agg_{n}({', '.join(['integer', *given])}) returns integer language plpgsql"
                f" as $$ begin perform mallory.trap('aggregate {name}'); return 0; end $$"
            )
            yield (
                f"create aggregate public.{_quoted(name)}({', '.join(given) or '*'})"
                f" (sfunc = mallory.agg_{n}, stype = integer, initcond = '0')"
            )

    def _operators(self) -> Iterator[str]:
        """Shadow operators of the catalog, and add mixed ones, which would be nearer than a cast."""
        rows = self.database.admin.execute(
            """
            select o.oprname, nullif(format_type(o.oprleft, null), '-'), format_type(o.oprright, null), format_type(o.oprresult, null)
            from pg_operator as o
            where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprname = any(%s)
              and o.oprleft = any(%s::regtype[]) and o.oprright = any(%s::regtype[])
            """,
            [self.signs, _TYPES, _TYPES],
        ).fetchall()
        mixed = [("=", a, b, "boolean") for a in _TYPES for b in _TYPES if a != b]
        for n, (name, left, right, returned) in enumerate([*rows, *mixed]):
            yield (
                f"create function mallory.op_{n}({left}, {right}) returns {returned} language plpgsql as"
                f" $$ begin perform mallory.trap('operator {name}'); return null; end $$"
            )
            yield f"create operator public.{name} (function = mallory.op_{n}, leftarg = {left}, rightarg = {right})"

    def _types(self, place: str) -> Iterator[str]:
        """Shadow types by domains whose check is a trap."""
        for name in self._named(
            "select typname from pg_type where typtype <> 'c' and typelem = 0 and typname = any(%s)"
        ):
            yield f"create domain {place}.{_quoted(name)} as pg_catalog.text check (mallory.trap('type {name}'))"

    def _relations(self, place: str) -> Iterator[str]:
        """Shadow tables and views by views whose reading is a trap."""
        for name in self._named("select relname from pg_class where relkind in ('r', 'v', 'p') and relname = any(%s)"):
            yield (
                f"create view {place}.{_quoted(name)} as select mallory.trap('relation {name}') as trap,"
                " null::pg_catalog.text as name, null::pg_catalog.name as rolname"
            )
            yield f"grant all on {place}.{_quoted(name)} to public"

    def _collations(self) -> Iterator[str]:
        """Shadow the collations that are known by name."""
        for name in ("default", "C", "POSIX", "ucs_basic"):
            yield f'create collation public."{name}" from pg_catalog."C"'

    def _named(self, query: LiteralString) -> list[str]:
        return sorted({name for (name,) in self.database.admin.execute(query, [self.words])})

    def _make(self, conn: Connection, statements: Sequence[str]) -> None:
        """Make what Postgres lets be made; what it refuses is no trap."""
        conn.execute("set check_function_bodies = off")
        for n in range(0, len(statements), 200):
            each = " ".join(
                f"begin execute {sql.Literal(statement).as_string()}; v_made := v_made + 1;"
                " exception when others then null; end;"
                for statement in statements[n : n + 200]
            )
            conn.execute(
                f"do $do$ declare v_made pg_catalog.int4 := 0; begin {each}"
                " perform pg_catalog.set_config('traps.made', v_made::pg_catalog.text, false); end $do$"
            )
            row = conn.execute("select pg_catalog.current_setting('traps.made')").fetchone()
            self.count += int(row[0]) if row else 0

    def _run(self, statement: str) -> None:
        self.conn.execute(statement.encode())


_TYPES = [
    "text", "uuid", "jsonb", "timestamptz", "interval", "int4", "int8", "int2", "bool", "name", "oid", "bytea", "float8",
    "numeric", "text[]", "uuid[]", "varchar",
]  # fmt: skip


def _nearer(types: list[str]) -> Iterator[tuple[str, ...]]:
    """Signatures that fit what is passed better than polymorphic or variadic ones."""
    for n, kind in enumerate(types):
        if kind.startswith("any") or kind == '"any"':
            for concrete in ("text", "uuid", "jsonb", "integer", "timestamp with time zone"):
                yield (*types[:n], concrete, *types[n + 1 :])
                if kind == '"any"':
                    yield (*types[:n], concrete, concrete, *types[n + 1 :])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def set_hostile(conn: Connection, path: str) -> None:
    """Give a session every setting by which a caller may hope to change what a function does."""
    conn.execute(f"set search_path = {path}".encode())
    for name, value in HOSTILE_SETTINGS.items():
        conn.execute("select pg_catalog.set_config(%s, %s, false)", [name, value])


# What any role may set, and what the bodies of functions might be read or run differently by.
HOSTILE_SETTINGS = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "DateStyle": "ISO, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Pacific/Kiritimati",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "plpgsql.extra_warnings": "all",
    "plpgsql.check_asserts": "off",
    "work_mem": "64kB",
    "jit": "off",  # what plans cost is no matter here
    "perdure.force": "on",
    "perdure.install_role": "postgres",
    "perdure.install_path": "mallory",
}
