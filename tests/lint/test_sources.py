"""Rules about the files themselves: what stands where, and how long it may be."""

from __future__ import annotations

import re
from pathlib import Path

import pglast
import pytest
from pglast import ast

from support.checks import assert_none
from support.provision import ROOT

SQL = ROOT / "sql"
DRIVER = ROOT / "python" / "src" / "perdure"

SQL_FILE, SQL_FUNCTION, PYTHON_FILE = 350, 60, 400

# What is longer than its ceiling, and why it is still one concept.
LONGER: dict[str, str] = {}

ORDER = ["language", "volatility", "strict", "leakproof", "parallel", "security", "set", "as"]

FUNCTION = re.compile(r"create or replace function perdure\.(\w+)\(.*?\nas \$\w*\$(.*?)\$\w*\$;", re.DOTALL)

BEHAVIOUR = sorted((SQL / "functions").glob("*.sql"))
VIEWS = sorted((SQL / "views").glob("*.sql"))


def statements(path: Path) -> list[ast.Node]:
    return [raw.stmt for raw in pglast.parse_sql(path.read_text())]


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_source_is_built_in_exactly_once() -> None:
    def included(manifest: Path) -> list[Path]:
        found: list[Path] = []
        for line in manifest.read_text().splitlines():
            if line.startswith("\\ir "):
                path = (manifest.parent / line.removeprefix("\\ir ").strip()).resolve()
                found += [path, *(included(path) if path.suffix == ".sql" else [])]
        return found

    listed = included(SQL / "install.sql")
    assert_none({where(path) for path in listed if listed.count(path) > 1}, "built in more than once")
    entries = {SQL / "install.sql", SQL / "uninstall.sql"}
    forgotten = {*SQL.glob("*.sql"), *SQL.glob("schema/*.sql"), *BEHAVIOUR, *VIEWS} - set(listed) - entries
    assert_none(map(where, forgotten), "in no manifest")


def test_behaviour_is_only_replaced_and_described() -> None:
    allowed = (ast.CreateFunctionStmt, ast.ViewStmt, ast.CommentStmt)
    odd = [
        f"{where(path)}: {type(statement).__name__}"
        for path in [*BEHAVIOUR, *VIEWS]
        for statement in statements(path)
        if not isinstance(statement, allowed) or getattr(statement, "replace", True) is False
    ]
    assert_none(odd, "code is rerun whole by every upgrade: create or replace, comment on, nothing else")


def test_attributes_of_functions_stand_in_order_and_volatility_is_stated() -> None:
    odd = []
    for path in BEHAVIOUR:
        for statement in statements(path):
            if not isinstance(statement, ast.CreateFunctionStmt):
                continue
            name = f"{where(path)}: {statement.funcname[-1].sval}"
            options = [option.defname for option in statement.options]
            if options != sorted(options, key=ORDER.index):
                odd.append(f"{name}: {', '.join(options)}")
            if not statement.is_procedure and "volatility" not in options:
                odd.append(f"{name} states no volatility")
    assert_none(odd, f"the order is {', '.join(ORDER)}")


def test_every_file_opens_with_what_holds_in_it() -> None:
    silent = [where(path) for path in SQL.rglob("*.sql") if not path.read_text().startswith("-- ")]
    silent += [
        where(path)
        for path in DRIVER.rglob("*.py")
        if path.stat().st_size and not path.read_text().startswith(('"""', 'r"""'))
    ]
    assert_none(silent, "opens with neither comment nor docstring")


@pytest.mark.parametrize(
    ("files", "ceiling"),
    [(sorted(SQL.rglob("*.sql")), SQL_FILE), (sorted(DRIVER.rglob("*.py")), PYTHON_FILE)],
    ids=["sql", "python"],
)
def test_no_file_holds_two_concepts(files: list[Path], ceiling: int) -> None:
    lengths = {where(path): len(path.read_text().splitlines()) for path in files}
    assert_none(
        (f"{name}: {length} lines" for name, length in lengths.items() if length > ceiling and name not in LONGER),
        f"longer than {ceiling} lines",
    )


def test_no_function_holds_two_concepts() -> None:
    long = [
        f"{where(path)}: {match[1]}, {length} lines"
        for path in BEHAVIOUR
        for match in FUNCTION.finditer(path.read_text())
        if (length := match[2].count("\n") - 1) > SQL_FUNCTION and match[1] not in LONGER
    ]
    assert_none(long, f"longer than {SQL_FUNCTION} lines")


def test_no_literal_depends_on_how_a_session_reads_backslashes() -> None:
    literal = re.compile(r"--[^\n]*|(?P<escaped>\b[eE])?(?P<text>'(?:[^']|'')*')")
    odd = [
        f"{where(path)}: {found['text']}"
        for path in sorted(SQL.glob("*/*.sql"))
        for found in literal.finditer(path.read_text())
        if found["text"] and not found["escaped"] and "\\" in found["text"]
    ]
    assert_none(odd, "read otherwise with standard_conforming_strings off: use [(] or an e'' literal")
