"""Read the bodies of functions: their code without words, and their statements as trees."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pglast

# A comment, or a literal; what is left is code.
_NO_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)

# pglast reads PL/pgSQL without a catalog and stumbles over types that it would have to look up there.
_OWN_ARRAY = re.compile(r"perdure\.\w+\[\]")
_OWN_TYPE = re.compile(
    r"(?<=RETURNS )perdure\.\w+|(?<=RETURNS SETOF )perdure\.\w+"
    r"|\bperdure\.\w+(%\w+)?(?=\s*(\[\])?\s*(;|:=|,|\)|default\b))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Routine:
    """A function or procedure of schema perdure."""

    oid: int
    name: str
    signature: str
    kind: str
    language: str
    is_definer: bool
    config: list[str] | None
    arguments: list[str] | None
    body: str
    definition: str

    @property
    def is_public(self) -> bool:
        """Whether it is there to be called from outside."""
        return not self.name.startswith("_")


def code(body: str) -> str:
    """The body with every comment and literal blanked."""
    return _NO_CODE.sub("''", body)


def without_comments(body: str) -> str:
    """The body with every comment blanked; literals stay."""
    return _COMMENT.sub(" ", body)


def statements(definition: str, language: str) -> Iterator[tuple[str, Any]]:
    """Each SQL statement of a function as (text, tree), nested expressions of PL/pgSQL aside."""
    if language == "sql":
        yield from _parsed(_body(definition))
        return
    for query in queries(definition):
        yield from _parsed(query)


def queries(definition: str) -> Iterator[str]:
    """The texts of all queries in a PL/pgSQL function that are statements of their own or loops over one."""
    yield from _texts(tree(definition))


def tree(definition: str) -> Any:
    """A PL/pgSQL function as the server's own parser reads it."""
    return pglast.parse_plpgsql(_OWN_TYPE.sub("record", _OWN_ARRAY.sub("text[]", definition)))


def nodes(tree: Any, kind: str) -> Iterator[Any]:
    """Every node of one kind, however deep, in the JSON of a PL/pgSQL function."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == kind:
                yield value
            yield from nodes(value, kind)
    elif isinstance(tree, list):
        for value in tree:
            yield from nodes(value, kind)


def between_statements(definition: str, make: Callable[[str], str]) -> str:
    """Put a statement between any two of a function in PL/pgSQL, made from the first line of the one that follows."""
    head, begin, body = definition.partition("\nbegin\n")
    lines, last = [], "begin"
    for line in body.split("\n"):
        is_statement = re.match(r"  (?!end\b|get\b|exception\b|elsif\b|else\b|when\b|--|declare\b)\S", line)
        if is_statement and (last == "begin" or last.endswith(";")):
            lines.append(f"  {make(line)}")
        lines.append(line)
        stripped = line.split("  --")[0].strip()
        if stripped and not stripped.startswith("--"):
            last = stripped
    return head + begin + "\n".join(lines)


def _texts(tree: Any) -> Iterator[str]:
    for expression in nodes(tree, "PLpgSQL_expr"):
        text = expression["query"]
        if re.match(r"\s*(select|insert|update|delete|merge|with)\b", text, re.IGNORECASE):
            yield text


def _parsed(text: str) -> Iterator[tuple[str, Any]]:
    for statement in pglast.parse_sql(text):
        yield text, statement.stmt


def _body(definition: str) -> str:
    found = re.search(r"AS \$(\w*)\$(.*)\$\1\$", definition, re.DOTALL)
    assert found is not None, f"no body in {definition[:80]}"
    return found[2]
