"""The built file: one text, one name, nothing that only psql or only psycopg understands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from perdure import _build, _install
from perdure._build import BuildError, bundle, check_schema, read_version, render
from support.provision import ROOT


def test_manifests_are_inlined_from_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "top.sql").write_text("select 1;\n\\ir deep/middle.sql\nselect 4;\n")
    (tmp_path / "deep" / "middle.sql").write_text("select 2;\n\\ir leaf.sql\n")
    (tmp_path / "deep" / "leaf.sql").write_text("select 3;")
    assert bundle(tmp_path / "top.sql").split() == ["select", "1;", "select", "2;", "select", "3;", "select", "4;"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("\\ir gone.sql", "does not exist"),
        ("\\ir top.sql", "includes itself"),
        ("\\set x 1", "top.sql:1: only \\ir"),
        ("\\i top.sql", "only \\ir"),
    ],
)
def test_what_cannot_be_inlined_is_refused_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "top.sql").write_text(line + "\n")
    with pytest.raises(BuildError, match=re.escape(said)):
        bundle(tmp_path / "top.sql")


def test_a_name_replaces_the_schema_and_nothing_else() -> None:
    text = (
        "create schema perdure; select perdure.start('x') from perdure.run; grant x to perdure_client, perdure_owner;"
        " select 'perdure', 'perdure.tick', 'Perdure says: run perdure install', perdure_clients, xperdure.y"
    )
    assert render(text, "shop") == (
        "create schema shop; select shop.start('x') from shop.run; grant x to shop_client, shop_owner;"
        " select 'shop', 'shop.tick', 'Perdure says: run perdure install', perdure_clients, xperdure.y"
    )


def test_the_default_name_changes_nothing() -> None:
    text = bundle(_build.SOURCES / "install.sql")
    assert render(text, "perdure") == text


@pytest.mark.parametrize("name", ["perdure", "_", "a1", "x" * 41, "perdure_owner"])
def test_good_names_pass(name: str) -> None:
    assert check_schema(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Shop",
        "1a",
        "a-b",
        "a b",
        'a"b',
        "a;b",
        "a.b",
        "é",
        "x" * 42,
        "pg_shop",
        "public",
        "user",
        "int",
        "left",
        "a\n",
    ],
)
def test_bad_names_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(BuildError, match="is refused: "):
        check_schema(name)


@pytest.mark.parametrize("file", ["install", "uninstall"])
def test_every_tool_can_run_the_built_file(file: str) -> None:
    text = _install.built_sql(file, "shop")  # type: ignore[arg-type]
    assert not re.search(r"^\\", text, re.MULTILINE), "psql's commands"
    outside = re.sub(r"\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|--[^\n]*", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(begin|commit|start|rollback)\b(?!\()", outside), "statements of a transaction"
    assert "${" not in text, "Flyway's placeholders"
    assert not re.search(r"(?<![:\w\\]):(\w+)(?!:)", text), "SQLAlchemy's bind parameters"
    assert "\r" not in text
    assert text.isascii(), "a database may have another encoding than UTF-8"


def test_no_place_of_the_name_is_forgotten() -> None:
    text = _install.built_sql("install", "shop")
    assert not re.search(r"\bperdure\.|\bschema perdure\b", text)
    # What is left is the name of the command in hints, and of metrics; else it would mean the schema.
    for found in re.findall(r"\bperdure\b.{0,12}", text):
        assert re.match(r"perdure (install|uninstall|register|sql|worker)\b", found), found


def test_the_program_prints_what_the_package_installs() -> None:
    program = [sys.executable, ROOT / "python/src/perdure/_build.py"]
    for file in ("install", "uninstall"):
        done = subprocess.run([*program, file, "--schema", "shop"], capture_output=True, text=True, check=True)
        assert done.stdout == _install.built_sql(file, "shop")  # type: ignore[arg-type]
    refused = subprocess.run([*program, "--schema", "User"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: schema name 'User' is refused")


def test_versions_agree() -> None:
    found = re.search(r'^version = "([^"]+)"', (ROOT / "python/pyproject.toml").read_text(), re.MULTILINE)
    assert found
    assert read_version(bundle(_build.SOURCES / "install.sql")) == found[1] == _install.packaged_version()
