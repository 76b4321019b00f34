"""The reference of the SQL surface, made from the catalog: COMMENT ON is its only source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.database import Database

HEAD = """\
# Perdure's SQL, in reference

Made from the comments in the catalog by `make reference`; the sources of the words are the files below `functions/`.
What begins with `_` is Perdure's own business and is not listed. Every function takes its arguments by name.
"""

ROUTINES = """
select p.oid, p.proname as name, p.prokind as kind, obj_description(p.oid, 'pg_proc') as comment,
  case when p.prokind = 'f' then pg_get_function_result(p.oid) end as result,
  array(
    select coalesce(p.proargnames[a.place], '') || ' ' || format_type(a.type, null)
      || coalesce(' default ' || pg_get_function_arg_default(p.oid, a.place::integer), '')
    from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as a (type, place)
    where coalesce(p.proargmodes[a.place], 'i') in ('i', 'b', 'v')
    order by a.place
  ) as arguments,
  coalesce((select array_to_string(m.kinds, ', ') from perdure._permissions() as m where m.name = p.proname), '') as kinds
from pg_proc as p
where p.pronamespace = 'perdure'::regnamespace and p.proname !~ '^_'
order by p.proname
"""

RELATIONS = """
select c.oid, c.relname as name, obj_description(c.oid, 'pg_class') as comment,
  coalesce((select array_to_string(m.kinds, ', ') from perdure._permissions() as m where m.name = c.relname), '') as kinds
from pg_class as c
where c.relnamespace = 'perdure'::regnamespace and c.relkind::text = any (%s) and not c.relispartition
order by c.relname
"""

COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)
from pg_attribute as a
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def reference(database: Database) -> str:
    """The whole text of sql/REFERENCE.md."""
    return "\n".join([HEAD, *_routines(database), *_views(database), *_errors(database), *_tables(database)])


def _routines(database: Database) -> Iterator[str]:
    yield "## Functions and procedures\n"
    for _, name, kind, comment, result, arguments, kinds in database.admin.execute(ROUTINES).fetchall():
        inside = "".join(f"\n  {argument}," for argument in arguments).rstrip(",")
        call = f"{name}({inside}{chr(10) if inside else ''})"
        yield f"### {name}\n"
        yield f"```sql\n{'call ' if kind == 'p' else ''}{call}{_returns(result)}\n```\n"
        yield f"{_paragraphs(comment)}\n"
        if kinds:
            yield f"For: {kinds}.\n"


def _returns(result: str | None) -> str:
    if result is None:
        return ""
    if result.startswith("TABLE("):
        columns = result.removeprefix("TABLE(").removesuffix(")").split(", ")
        return " returns table (\n  " + ",\n  ".join(columns) + "\n)"
    return f" returns {result.removeprefix('SETOF ')}"


def _views(database: Database) -> Iterator[str]:
    yield "## Views\n"
    for oid, name, comment, kinds in database.admin.execute(RELATIONS, [["v", "m"]]).fetchall():
        yield f"### {name}\n"
        yield f"{_paragraphs(comment)}\n"
        yield "| column | type | meaning |\n| --- | --- | --- |"
        for column, kind, meaning in database.admin.execute(COLUMNS, [oid]).fetchall():
            yield f"| `{column}` | {kind} | {_cell(meaning)} |"
        yield f"\nFor: {kinds}.\n" if kinds else ""


def _errors(database: Database) -> Iterator[str]:
    yield "## Error codes\n"
    yield "| code | name | meaning |\n| --- | --- | --- |"
    query = "select e.sqlstate, e.name, e.meaning from perdure.errors as e order by e.sqlstate"
    for code, name, meaning in database.admin.execute(query).fetchall():
        yield f"| `{code}` | {name} | {_cell(meaning)} |"
    yield ""


def _tables(database: Database) -> Iterator[str]:
    yield "## Tables\n"
    yield "Private: granted to nobody, changed by functions alone, read through the views.\n"
    yield "| table | what it holds |\n| --- | --- |"
    for _, name, comment, _ in database.admin.execute(RELATIONS, [["r", "p"]]).fetchall():
        yield f"| `{name}` | {_cell(comment)} |"
    yield ""


def _paragraphs(text: Any) -> str:
    # A line of a comment is a sentence of its own: the first is the summary, what follows is detail.
    first, _, rest = str(text or "").partition("\n")
    return f"{first}\n\n{rest}".strip()


def _cell(text: Any) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|")
