"""Every failure is one clear sentence that says what to do."""

from __future__ import annotations

import socket

import pytest

from perdure import _install
from support.database import Database

from .conftest import Shell

COMMANDS = [
    ["start", "order"],
    ["signal", "0190", "paid"],
    ["cancel", "0190"],
    ["retry", "0190"],
    ["hold", "--reason", "restored"],
    ["adopt"],
    ["runs"],
    ["show", "0190"],
    ["explain", "0190"],
    ["doctor"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_database_without_perdure_is_told_with_the_cure(
    shell: Shell, empty_database: Database, words: list[str]
) -> None:
    said = shell(*words, PERDURE_DSN=empty_database.dsn())
    assert said.code == 3
    assert f'Perdure is not installed in schema "perdure" of database "{empty_database.name}"' in said.err + said.out
    assert "perdure install" in said.err + said.out


def test_a_server_that_does_not_answer_is_told_with_the_cure(shell: Shell) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said = shell("runs", "--dsn", f"postgresql://u:secret@127.0.0.1:{port}/shop")
    assert said.code == 3
    assert said.err.startswith(f"error: cannot connect to database 'shop' at 127.0.0.1:{port} as role 'u':")
    assert "perdure dev" in said.err
    assert "secret" not in said.err


def test_no_dsn_at_all_says_where_one_is_looked_for(shell: Shell) -> None:
    said = shell("runs", PGHOST="/nowhere")
    assert said.code == 3
    assert "at /nowhere:" in said.err
    assert "--dsn or PERDURE_DSN" in said.err


def test_libpq_finds_the_server_by_its_own_environment(shell: Shell, database: Database) -> None:
    info = database.connect().info
    said = shell(
        "runs",
        PGHOST=info.host,
        PGPORT=str(info.port),
        PGUSER=info.user,
        PGDATABASE=info.dbname,
        PGPASSWORD=info.password,
    )
    assert said.code == 0, said.err


def test_a_missing_database_is_told(shell: Shell, database: Database) -> None:
    said = shell("runs", "--dsn", database.server.dsn("no_such_database"))
    assert said.code == 3
    assert 'database "no_such_database" does not exist' in said.err
    assert "createdb" in said.err


@pytest.mark.parametrize("dsn", ["http://example.org", "host=localhost nonsense=1"])
def test_a_wrong_dsn_is_told(shell: Shell, dsn: str) -> None:
    said = shell("runs", "--dsn", dsn)
    assert said.code == 3
    assert "A DSN looks like" in said.err


@pytest.mark.parametrize(
    ("words", "kind"), [(["start", "order"], "client"), (["pause", "0190" * 8], "admin"), (["runs"], "observer")]
)
def test_a_role_without_rights_is_told_whom_to_ask_for_what(
    perdure: Shell, database: Database, words: list[str], kind: str
) -> None:
    database.server.create_role("perdure_test_stranger")
    said = perdure(*words, "--dsn", database.dsn("perdure_test_stranger"))
    assert said.code == 1
    assert 'role "perdure_test_stranger" may not do this' in said.err
    assert f"select perdure.grant_role('perdure_test_stranger', '{kind}');" in said.err


def test_a_role_with_its_kind_may(perdure: Shell, database: Database, order: str) -> None:
    database.server.create_role("perdure_test_friend")
    database.connect().execute("select perdure.grant_role('perdure_test_friend', 'client')")
    assert perdure("start", order, "--dsn", database.dsn("perdure_test_friend")).code == 0


def test_another_schema_is_chosen_by_option_or_environment(shell: Shell, empty_database: Database) -> None:
    empty_database.install("shop_flows")
    for said in (
        shell("runs", "--dsn", empty_database.dsn(), "--schema", "shop_flows"),
        shell("runs", PERDURE_DSN=empty_database.dsn(), PERDURE_SCHEMA="shop_flows"),
    ):
        assert said.code == 0, said.err
    said = shell("runs", "--dsn", empty_database.dsn(), "--schema", "shop-flows")
    assert said.code == 2
    assert "schema name 'shop-flows' is refused" in said.err


def test_another_version_in_the_database_is_told(perdure: Shell, database: Database) -> None:
    conn = database.connect()
    conn.execute("drop function perdure.start")
    conn.execute(
        "create or replace function perdure.version() returns text language sql immutable as $$ select '9.9.9' $$"
    )
    said = perdure("start", "order")
    assert said.code == 1
    assert f'schema "perdure" has Perdure 9.9.9, this command belongs to {_install.packaged_version()}' in said.err


def test_the_command_itself_ends_with_these_codes(shell: Shell, database: Database) -> None:
    assert shell.real("runs", PERDURE_DSN=database.dsn()).code == 0
    assert shell.real("runs", "--state", "x", PERDURE_DSN=database.dsn()).code == 1
    assert shell.real("runs", "--limit", "0").code == 2
    assert shell.real("runs", PGHOST="/nowhere").code == 3


def test_help_tells_the_exit_codes_and_every_command(shell: Shell) -> None:
    said = shell("--help")
    assert said.code == 0
    assert "Exit codes: 0 done" in said.out
    for name in ("install", "doctor", "terminate"):
        assert f"\n  {name} " in said.out
        assert shell(name, "-h").code == 0


def test_an_unknown_command_is_misuse(shell: Shell) -> None:
    said = shell("strat", "order")
    assert said.code == 2
    assert "No such command" in said.err
