"""Build the one file that installs Perdure, and the one that uninstalls it, from the sources under `sql/`.

Standard library only, and runnable by itself: `python3 python/src/perdure/_build.py [install|uninstall]
[--schema x]` prints the built file. The file has no psql meta-commands and no BEGIN or COMMIT: whoever runs it
(psql -1, psycopg, Flyway, Alembic) wraps it in one transaction, and the file refuses to run without.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

__all__ = ["SOURCES", "BuildError", "bundle", "check_schema", "read_version", "render"]

SOURCES = Path(__file__).resolve().parents[3] / "sql"

_INCLUDE = re.compile(r"\\ir\s+(?P<path>\S+)\s*")
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_PLACE_OF_NAME = re.compile(
    r"\bperdure(?=\.)"
    r"|(?<=\bschema )perdure\b"
    r"|(?<=')perdure(?=')"
    r"|\bperdure(?=_(?:client|worker|observer|admin|owner)\b)"
)
_VERSION = re.compile(r"function perdure\.version\(\).*?\$\$\s*select '([^']+)'", re.DOTALL)

# Words that Postgres does not take unquoted in every place where a schema's name is written.
_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    loop all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
    boolean both case cast char character check coalesce collate collation column concurrently
    constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user dec decimal default deferrable desc distinct do else end except
    exists extract false fetch float for foreign freeze from full grant greatest group grouping
    having ilike in initially inner inout int integer intersect interval into is isnull join json
    json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar
    json_serialize json_table json_value lateral leading least left like limit localtime
    localtimestamp merge_action national natural nchar none normalize not notnull null nullif
    numeric offset on only or order out outer overlaps overlay placing position precision primary
    real references returning right row select session_user setof similar smallint some substring
    symmetric system_user table tablesample then time timestamp to trailing treat trim true union
    unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat
    xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """,
    )
)
_TAKEN = frozenset({"information_schema", "public"})


class BuildError(ValueError):
    """The sources or the schema name cannot be built into a file; the message says why."""


def bundle(manifest: Path) -> str:
    r"""Inline every `\ir` line below a manifest, in order, and return the one text."""
    return "".join(_inlined(manifest, ())).rstrip() + "\n"


def _inlined(path: Path, above: tuple[Path, ...]) -> list[str]:
    if path in above:
        raise BuildError(f"{path} includes itself, through {above[-1]}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise BuildError(f"{path} is listed in {above[-1] if above else 'nothing'} but does not exist") from None
    pieces: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("\\"):
            pieces.append(line)
        elif include := _INCLUDE.fullmatch(line):
            target = (path.parent / include["path"]).resolve()
            pieces.append("\n")
            pieces += _inlined(target, (*above, path))
        else:
            raise BuildError(f"{path}:{number}: only \\ir may stand at the start of a line, found {line.split()[0]!r}")
    if pieces and not pieces[-1].endswith("\n"):
        pieces.append("\n")
    return pieces


def check_schema(schema: str) -> str:
    """Return the name, or raise `BuildError` with the reason why it cannot be a schema's."""
    if not _SCHEMA_NAME.fullmatch(schema):
        raise BuildError(
            f"schema name {schema!r} is refused: use 1 to 41 lower-case letters, digits and underscores, "
            "not beginning with a digit"
        )
    if schema.startswith("pg_"):
        raise BuildError(f"schema name {schema!r} is refused: Postgres keeps names that begin with pg_ for itself")
    if schema in _KEYWORDS:
        raise BuildError(f"schema name {schema!r} is refused: it is a word of the SQL language")
    if schema in _TAKEN:
        raise BuildError(f"schema name {schema!r} is refused: Perdure needs a schema of its own")
    return schema


def render(text: str, schema: str) -> str:
    """Return a bundled text with its schema, and the roles named after it, called `schema`."""
    return _PLACE_OF_NAME.sub(check_schema(schema), text)


def read_version(text: str) -> str:
    """Return the version that a bundled text (not yet rendered) installs."""
    found = _VERSION.search(text)
    if found is None:
        raise BuildError("the sources define no function perdure.version() that selects a literal")
    return found[1]


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the SQL that installs or uninstalls Perdure.")
    parser.add_argument("file", nargs="?", choices=["install", "uninstall"], default="install")
    parser.add_argument("--schema", default="perdure", help="the name of its schema (default: perdure)")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(render(bundle(SOURCES / f"{arguments.file}.sql"), arguments.schema))
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except BrokenPipeError:  # psql has said why it does not listen
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
