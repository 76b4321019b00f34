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
  and c.relname !~ '^_'
order by c.relname
"""

COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)
from pg_attribute as a
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


# Who calls the functions of a section, in the order in which a newcomer meets them; what else there is comes last.
CALLERS = ["client, admin", "client, observer, admin", "observer, admin", "admin", "worker", "worker, admin"]


def reference(database: Database) -> str:
    """The whole text of sql/REFERENCE.md."""
    parts = (_routines, _views, _acts, _errors, _settings, _invariants, _tables)
    return "\n".join([HEAD, *(line for part in parts for line in part(database))])


def _routines(database: Database) -> Iterator[str]:
    found = database.admin.execute(ROUTINES).fetchall()
    callers = {row[-1] for row in found}
    for kinds in sorted(callers, key=lambda each: (CALLERS.index(each) if each in CALLERS else len(CALLERS), each)):
        yield f"## Functions for {kinds or 'the owner alone'}\n"
        yield from _section([row for row in found if row[-1] == kinds])


def _section(routines: list[Any]) -> Iterator[str]:
    for _, name, kind, comment, result, arguments, _ in routines:
        inside = "".join(f"\n  {argument}," for argument in arguments).rstrip(",")
        call = f"{name}({inside}{chr(10) if inside else ''})"
        yield f"### {name}\n"
        yield f"```sql\n{'call ' if kind == 'p' else ''}{call}{_returns(result)}\n```\n"
        yield f"{_paragraphs(comment)}\n"


def _returns(result: str | None) -> str:
    if result is None:
        return ""
    if result.startswith("TABLE("):
        columns = result.removeprefix("TABLE(").removesuffix(")").split(", ")
        return " returns table (\n  " + ",\n  ".join(columns) + "\n)"
    return f" returns {result.replace('SETOF', 'setof')}"


def _views(database: Database) -> Iterator[str]:
    yield "## Views\n"
    for oid, name, comment, kinds in database.admin.execute(RELATIONS, [["v", "m"]]).fetchall():
        yield f"### {name}\n"
        yield f"{_paragraphs(comment)}\n"
        yield "| column | type | meaning |\n| --- | --- | --- |"
        for column, kind, meaning in database.admin.execute(COLUMNS, [oid]).fetchall():
            yield f"| `{column}` | {kind} | {_cell(meaning)} |"
        yield f"\nFor: {kinds}.\n" if kinds else ""


def _acts(database: Database) -> Iterator[str]:
    yield "## What an act answers in each state\n"
    rules = database.admin.execute("select r.state, r.act, r.answer, r.error from perdure.act_rules as r").fetchall()
    acts = list(dict.fromkeys(act for _, act, _, _ in rules))
    answers = {(state, act): f"`{error}`" if error else answer for state, act, answer, error in rules}
    yield f"| state | {' | '.join(acts)} |\n| --- {'| --- ' * len(acts)}|"
    for state in dict.fromkeys(state for state, _, _, _ in rules):
        yield f"| {state} | {' | '.join(answers[state, act] for act in acts)} |"
    yield "\nA code is raised by the act on one run; its `_many` twin answers `finished` or `illegal` instead.\n"


def _settings(database: Database) -> Iterator[str]:
    yield "## Settings\n"
    yield "Changed by `put_setting`.\n"
    yield "| setting | value at first | meaning |\n| --- | --- | --- |"
    query = "select s.name, s.value::text, s.description from perdure.setting as s order by s.name"
    for name, value, description in database.admin.execute(query).fetchall():
        yield f"| `{name}` | {value} | {_cell(description)} |"
    yield ""


def _invariants(database: Database) -> Iterator[str]:
    yield "## Invariants\n"
    yield "What always holds. `selftest()` counts how often each does not, the view `violations` has the details.\n"
    yield "| invariant | meaning |\n| --- | --- |"
    query = "select i.invariant, i.meaning from perdure._invariants as i"
    for invariant, meaning in database.admin.execute(query).fetchall():
        yield f"| `{invariant}` | {_cell(meaning)} |"
    yield ""


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
