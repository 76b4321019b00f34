"""`install`, `uninstall` and `sql`: from an empty database to an empty database."""

from __future__ import annotations

from support.build import install_sql
from support.database import Database

from .conftest import Shell


def test_install_then_uninstall(shell: Shell, empty_database: Database) -> None:
    shell.environment["PERDURE_DSN"] = empty_database.dsn()
    said = shell("install", "--schema", "shop_flows")
    assert said.code == 0, said.err
    assert f'in schema "shop_flows" of database "{empty_database.name}"' in said.out
    assert "note: role" in said.err and "may not create roles" in said.err
    assert empty_database.value("select shop_flows.version()") in said.out

    again = shell("install", "--schema", "shop_flows")
    assert again.code == 1
    assert "is already installed" in again.err and "uninstall it first" in again.err

    gone = shell("uninstall", PERDURE_SCHEMA="shop_flows")
    assert gone.code == 0, gone.err
    assert empty_database.value("select count(*) from pg_namespace where nspname = 'shop_flows'") == 0
    nothing = shell("uninstall", "--schema", "shop_flows")
    assert nothing.code == 1
    assert "shop_flows" in nothing.err


def test_uninstall_spares_what_others_have_built_on_it_unless_forced(perdure: Shell, database: Database) -> None:
    database.connect().execute("create view public.mine as select * from perdure.runs")
    said = perdure("uninstall")
    assert said.code == 1
    assert "mine" in said.err and "perdure uninstall --force" in said.err
    assert perdure("uninstall", "--force").code == 0
    assert database.value("select to_regclass('public.mine') is null")


def test_a_role_that_may_not_create_a_schema_is_told(shell: Shell, empty_database: Database) -> None:
    empty_database.server.create_role("perdure_test_stranger")
    said = shell("install", "--dsn", empty_database.dsn("perdure_test_stranger"))
    assert said.code == 1
    assert "may not create a schema" in said.err and "grant create on database" in said.err


def test_sql_prints_the_built_file(shell: Shell) -> None:
    assert shell("sql", "install", "--schema", "shop_flows").out == install_sql("shop_flows")
    assert shell("sql").out == install_sql()
    assert "drop" in shell("sql", "uninstall").out
    said = shell("sql", "--schema", "select")
    assert said.code == 2 and "it is a word of the SQL language" in said.err
