"""Who may call what, as the catalog says it, and the objects that a hostile role sets as traps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

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

    def call_with_nulls(self) -> sql.Composed:
        """A statement that calls it with nothing but nulls."""
        return self.call(*[sql.NULL] * len(self.types))

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


SEPARATE = ", "


class Traps:
    """Objects of role mallory that would show it if anybody but mallory ever ran, read or cast by them.

    A trap counts in a sequence, which no rollback takes back, and then raises.
    """

    OWNER = "perdure_test_mallory"

    def __init__(self, database: Database) -> None:
        self.database = database
        database.server.create_role(self.OWNER)
        admin = database.admin
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
              if current_user <> '{self.OWNER}' then
                perform pg_catalog.nextval('mallory.caught');
                raise exception 'caught: % by %', what, current_user using errcode = 'XX666';
              end if;
              return true;
            end $$
            """
        )
        self.count = 0

    @property
    def caught(self) -> int:
        """How often somebody else ran into one."""
        found: int = self.database.value("select case when is_called then last_value else 0 end from mallory.caught")
        return found

    def functions(self, names: set[str]) -> None:
        """Shadow functions and aggregates of the catalog by ones with the same arguments, and by nearer ones."""
        rows = self.database.admin.execute(
            """
            select p.proname, array(select format_type(a, null) from unnest(p.proargtypes) as a), format_type(p.prorettype, null)
            from pg_proc as p
            where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any(%s)
            """,
            [sorted(names)],
        ).fetchall()
        made: set[tuple[str, tuple[str, ...]]] = set()
        for name, types, returned in rows:
            for given in {tuple(types), *_nearer(types)}:
                if (name, given) not in made and not set(given) & {"internal", "cstring", "anyrange"}:
                    made.add((name, given))
                    self._function(name, given, returned)

    def _function(self, name: str, types: tuple[str, ...], returned: str) -> None:
        if '"any"' in types:
            types = tuple("anyelement" if each == '"any"' else each for each in types)
        polymorphic = {"anyelement", "anyarray", "anynonarray", "anycompatible", "anycompatiblearray"}
        if (returned.startswith("any") and not polymorphic & set(types)) or returned in ("internal", "trigger"):
            returned = "text"
        for place in ("public",):
            self._try(
                f"create function {place}.{_quoted(name)}({SEPARATE.join(types)}) returns {returned} language plpgsql"
                f" volatile as $$ begin perform mallory.trap('function {name}'); return null; end $$"
            )

    def operators(self, names: set[str]) -> None:
        """Shadow operators of the catalog, and add mixed ones, which would be nearer than a cast."""
        rows = self.database.admin.execute(
            """
            select o.oprname, nullif(format_type(o.oprleft, null), '-'), format_type(o.oprright, null), format_type(o.oprresult, null)
            from pg_operator as o
            where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprname = any(%s)
              and o.oprleft = any(%s::regtype[]) and o.oprright = any(%s::regtype[])
            """,
            [sorted(names), _TYPES, _TYPES],
        ).fetchall()
        mixed = [("=", a, b, "boolean") for a in _TYPES for b in _TYPES if a != b]
        for n, (name, left, right, returned) in enumerate([*rows, *mixed]):
            self._try(
                f"create function mallory.op_{n}({left}, {right}) returns {returned} language plpgsql as"
                f" $$ begin perform mallory.trap('operator {name}'); return null; end $$"
            )
            for place in ("mallory", "public"):
                self._try(
                    f"create operator {place}.{name} (function = mallory.op_{n}, leftarg = {left}, rightarg = {right})"
                )

    def types(self, names: list[str]) -> None:
        """Shadow types by domains whose check is a trap; the session's own schema too, which comes before all."""
        for name in names:
            for place in ("mallory", "public", "pg_temp"):
                self._try(
                    f"create domain {place}.{_quoted(name)} as pg_catalog.text check (mallory.trap('type {name}'))"
                )

    def relations(self, names: list[str]) -> None:
        """Shadow tables and views by views whose reading is a trap."""
        for name in names:
            for place in ("mallory", "public", "pg_temp"):
                self._try(
                    f"create view {place}.{_quoted(name)} as select mallory.trap('relation {name}') as trap,"
                    " null::pg_catalog.text as name, null::pg_catalog.name as rolname"
                )

    def collations(self) -> None:
        """Shadow the collations that are known by name."""
        for name in ("default", "C", "POSIX", "ucs_basic"):
            self._try(f'create collation public."{name}" from "C"')

    def _try(self, statement: str) -> None:
        try:
            self._run(statement)
        except Exception as error:  # what Postgres itself refuses is no trap
            if getattr(error, "sqlstate", "")[:2] not in ("42", "0A"):
                raise
        else:
            self.count += 1

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
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "work_mem": "64kB",
    "perdure.force": "on",
    "perdure.install_role": "postgres",
    "perdure.install_path": "mallory",
}
