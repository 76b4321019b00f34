"""The driver decides nothing: each SQL text in it is a call of one function of Perdure's in named notation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.bodies import Routine
from support.checks import assert_none
from support.provision import ROOT

DRIVER = ROOT / "python" / "src" / "perdure"

# Modules that speak more of SQL, and why.
OTHERWISE = {
    "_install.py": "installs and uninstalls: it runs the built file and looks whether it is there",
    "_build.py": "puts the built file together",
    "statements.py": "all the SQL of the command line, which reads the public views too",
}

# Rooms that show things to people.
VIEWERS = {"cli", "ui"}

# Single statements that have to be, and why.
NEEDED = {
    "create database perdure": "perdure dev makes its database in the server that it just started",
    "call perdure.run_ticks(max_seconds => 0)": "without a parameter it is one message, so that tick knows it is alone",
}

STATEMENT = re.compile(
    r"\s*(select\b|insert\s+into\b|update\s+\S+\s+set\b|delete\s+from\b|merge\s+into\b|with\s+\w+\s+as\b|call\s+[\w{}]+\.|copy\s+\w+"
    r"|truncate\b|do\s+\$|(create|alter|drop)\s+(or|table|function|schema|role|view|index|database)\b|grant\s+\w+\s+on\b"
    r"|lock\s+table\b|listen\s+\w+$|unlisten\b|notify\s+\w+|set\s+(local|session|transaction|role)\b|set\s+\w+\s*(=|to)\b"
    r"|begin\b\s*;?$|commit\b\s*;?$|rollback\b|savepoint\b|show\s+\w+$|explain\s+(\(|analyze\b|select\b))",
    re.IGNORECASE,
)
SCHEMA = r"(?:perdure|\{\w*\})"
NAMED = r"\w+\s*=>\s*(?:null|%s|%\(\w+\)s|\{\w*\})(?:::[\w.\[\]]+)?"
ONE_CALL = re.compile(
    rf"\s*(?:select\s+(?:[\w.*,\s]+\s+from\s+)?|call\s+){SCHEMA}\.(?P<name>\w+)"
    rf"\(\s*(?:{NAMED}(?:\s*,\s*{NAMED})*)?\s*\)(?:::\w+)?(?:\s+as\s+\w+(?:\s*\([\w\s,]+\))?)?\s*",
    re.IGNORECASE,
)
# The command line also shows views to people; it changes nothing by them.
LOOK = re.compile(
    rf"\s*select\b(?:(?!\b(?:insert|update|delete|merge|for)\b).)*\bfrom\s+{SCHEMA}\.\w+\b.*", re.IGNORECASE | re.DOTALL
)


def test_every_statement_is_a_call_of_one_function_in_named_notation() -> None:
    odd = [
        f"{path.relative_to(ROOT)}:{line}: {' '.join(text.split())[:100]}"
        for path in sorted(DRIVER.rglob("*.py"))
        if path.name not in OTHERWISE
        for line, text in texts(path)
        if STATEMENT.match(text) and not ONE_CALL.fullmatch(text) and text not in NEEDED
        if not (path.parent.name in VIEWERS and LOOK.fullmatch(text))
    ]
    assert_none(odd, "SQL in the driver that decides something")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each literal text of a module but its docstrings, those put together of parts as one."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in ast.walk(node) if part is not node}
            yield node.lineno, "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            yield node.lineno, node.value


def test_every_call_names_a_function_and_parameters_that_exist(routines: list[Routine]) -> None:
    known = {r.name: set(r.arguments or []) for r in routines if r.is_public}
    odd = []
    for path in sorted(DRIVER.rglob("*.py")):
        for line, text in texts(path):
            if not (STATEMENT.match(text) and (call := ONE_CALL.fullmatch(text))):
                continue
            name, named = call["name"], set(re.findall(r"(\w+)\s*=>", text))
            if name not in known:
                odd.append(f"{path.relative_to(ROOT)}:{line}: there is no perdure.{name}")
            elif strangers := named - known[name]:
                odd.append(f"{path.relative_to(ROOT)}:{line}: perdure.{name} has no {', '.join(sorted(strangers))}")
    assert_none(odd, "a call that the database would refuse")
