"""run_ticks: the loop that pg_cron, or any scheduler, calls each minute."""

from __future__ import annotations

import time

import pytest
from psycopg import errors
from typing_extensions import LiteralString

from support.database import Database, in_background

# A tick that counts itself, and may be told to fail.
COUNTING: LiteralString = """
create table public.ticked (at timestamptz, xid bigint);
create table public.fails (how text);
create or replace function perdure.tick() returns jsonb language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from public.fails) then
    delete from public.fails;
    raise exception 'no luck';
  end if;
  insert into public.ticked values (clock_timestamp(), txid_current());
  return '{}';
end;
$$;
grant select on public.ticked to public;
"""


@pytest.fixture
def counting(database: Database) -> Database:
    database.connect().execute(COUNTING)
    return database


def test_it_ticks_again_and_again_each_round_committed(counting: Database) -> None:
    conn = counting.connect()
    began = time.monotonic()
    done = in_background(conn.execute, "call perdure.run_ticks(2, '200 ms')")
    counting.wait_until("select count(*) >= 2 from public.ticked")  # seen by others while it goes on
    assert not done.done()
    done.result(timeout=10)
    assert 1.5 < time.monotonic() - began < 2.5
    ticks, transactions = counting.admin.execute(
        "select count(*), count(distinct xid) from public.ticked"
    ).fetchone() or (0, 0)
    assert ticks == transactions
    assert 8 <= ticks <= 11


def test_one_round_is_done_even_in_no_time(counting: Database) -> None:
    counting.connect().execute("call perdure.run_ticks(0)")
    assert counting.value("select count(*) from public.ticked") == 1


def test_it_ends_before_statement_timeout_would_end_it(counting: Database) -> None:
    conn = counting.connect()
    conn.execute("set statement_timeout = '1s'")
    began = time.monotonic()
    conn.execute("call perdure.run_ticks(60, '100 ms')")
    assert time.monotonic() - began < 1
    assert counting.value("select count(*) from public.ticked") >= 5


def test_a_tick_that_fails_is_a_warning_and_not_the_end(counting: Database) -> None:
    counting.connect().execute("insert into public.fails values ('once')")
    conn = counting.connect()
    warnings: list[str] = []
    conn.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary or ""))
    counting.connect().execute("grant delete on public.fails to public")
    conn.execute("call perdure.run_ticks(1, '100 ms')")
    # The failed round was rolled back with its delete, so every round fails, and still the loop went on.
    assert 5 <= len(warnings) <= 11
    assert set(warnings) == {"tick failed with P0001: no luck"}
    counting.connect().execute("delete from public.fails")
    conn.execute("call perdure.run_ticks(0)")
    assert counting.value("select count(*) from public.ticked") == 1


def test_it_can_be_cancelled(counting: Database) -> None:
    conn = counting.connect()
    calling = in_background(conn.execute, "call perdure.run_ticks(60)")
    counting.wait_until("select exists (select from public.ticked)")
    counting.admin.execute("select pg_cancel_backend(%s)", [conn.info.backend_pid])
    with pytest.raises(errors.QueryCanceled):
        calling.result(timeout=5)


def test_inside_a_transaction_it_says_that_it_cannot(counting: Database) -> None:
    conn = counting.connect(autocommit=False)
    with pytest.raises(errors.InvalidTransactionTermination):
        conn.execute("call perdure.run_ticks(0)")


def test_uninstalled_meanwhile_it_ends(counting: Database) -> None:
    from perdure import _install

    conn = counting.connect()
    calling = in_background(conn.execute, "call perdure.run_ticks(60, '100 ms')")
    counting.wait_until("select exists (select from public.ticked)")
    _install.uninstall(counting.connect(), force=True)
    calling.result(timeout=5)


def test_nobodys_search_path_gets_into_it(counting: Database) -> None:
    admin = counting.admin
    admin.execute("create schema evil; grant usage on schema evil to public")
    for name, arguments, result in (
        ("clock_timestamp", "", "timestamptz"), ("pg_sleep", "double precision", "void"), ("pg_sleep", "numeric", "void"),
        ("make_interval", "secs double precision", "interval"), ("add", "timestamptz, interval", "timestamptz"),
        ("sub", "timestamptz, timestamptz", "interval"), ("ge", "timestamptz, timestamptz", "boolean"),
        ("gt", "double precision, double precision", "boolean"), ("gt", "double precision, numeric", "boolean"),
        ("mul", "double precision, double precision", "double precision"), ("eq", "text, text", "boolean"),
    ):  # fmt: skip
        admin.execute(
            f"create function evil.{name}({arguments}) returns {result} language plpgsql as $$ begin raise 'caught'; end $$"  # type: ignore[arg-type]
        )
    for symbol, function, left, right in (
        ("+", "add", "timestamptz", "interval"), ("-", "sub", "timestamptz", "timestamptz"),
        (">=", "ge", "timestamptz", "timestamptz"), (">", "gt", "double precision", "double precision"),
        (">", "gt", "double precision", "numeric"), ("*", "mul", "double precision", "double precision"),
        ("=", "eq", "text", "text"),
    ):  # fmt: skip
        admin.execute(
            f"create operator evil.{symbol} (function = evil.{function}, leftarg = {left}, rightarg = {right})"  # type: ignore[arg-type]
        )
    conn = counting.connect()
    conn.execute("set search_path = evil, pg_catalog; set statement_timeout = '30s'")
    conn.execute("call perdure.run_ticks(1, '300 ms')")
    assert counting.value("select count(*) from public.ticked") >= 3
