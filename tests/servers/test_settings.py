"""Whatever a caller has set, the functions answer the same; and what a worker is told is saved, is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import errors, sql

import perdure
from perdure import _install
from perdure.cli.root import cli
from support.aio import until
from support.database import OWNER, Database, PostgresServer
from support.engine import Worker, start, wait
from support.scenario import play

PAID = perdure.Signal("paid", str)
Settings = Mapping[str, str]

# The ways to read and write values.
FORMATS: tuple[Settings, ...] = (
    {"timezone": "Asia/Kathmandu", "datestyle": "SQL, DMY"},
    {"timezone": "America/St_Johns", "datestyle": "German"},
    {"timezone": "<+1030>-10:30", "datestyle": "Postgres, MDY"},
    {"intervalstyle": "sql_standard"},
    {"intervalstyle": "postgres_verbose"},
    {"intervalstyle": "iso_8601"},
    {"extra_float_digits": "-15", "bytea_output": "escape"},
    {"standard_conforming_strings": "off", "escape_string_warning": "off", "backslash_quote": "off"},
    {"quote_all_identifiers": "on", "xmlbinary": "hex", "xmloption": "document"},
    {"array_nulls": "off", "transform_null_equals": "on"},
    {"client_encoding": "SQL_ASCII"},
    {"client_encoding": "WIN1254"},  # Turkish
)

# The ways to execute.
EXECUTION: tuple[Settings, ...] = (
    {"search_path": "evil, pg_catalog"},
    {"search_path": ""},
    {"plpgsql.variable_conflict": "use_column", "plpgsql.check_asserts": "off"},
    {"plpgsql.extra_errors": "all", "plpgsql.print_strict_params": "on"},
    {"plpgsql.extra_warnings": "all", "client_min_messages": "debug1"},
    {"row_security": "off"},
    {"session_replication_role": "replica"},
    {"synchronous_commit": "off"},
    {"synchronous_commit": "local"},
    {"default_transaction_deferrable": "on", "check_function_bodies": "off"},
    {"default_tablespace": "pg_default", "temp_tablespaces": "pg_default", "default_toast_compression": "pglz"},
    {"statement_timeout": "1min", "lock_timeout": "10s", "idle_session_timeout": "5min"},
    {"transaction_timeout": "1min"},
    {"plan_cache_mode": "force_custom_plan"},
    {"plan_cache_mode": "force_generic_plan"},
    {"jit": "on", "jit_above_cost": "0", "jit_inline_above_cost": "0", "jit_optimize_above_cost": "0"},
    {"geqo_threshold": "2", "join_collapse_limit": "1", "from_collapse_limit": "1"},
    {"work_mem": "64kB", "hash_mem_multiplier": "1", "temp_buffers": "800kB"},
    {"debug_parallel_query": "on", "parallel_setup_cost": "0", "min_parallel_table_scan_size": "0"},
    {"force_parallel_mode": "on", "parallel_setup_cost": "0", "min_parallel_table_scan_size": "0"},
    {"cursor_tuple_fraction": "0.001", "constraint_exclusion": "off", "enable_partition_pruning": "off"},
    {"enable_seqscan": "off", "enable_hashagg": "off", "enable_nestloop": "off", "enable_sort": "off"},
    {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "enable_memoize": "off"},
    {"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_material": "off", "enable_incremental_sort": "off"},
)


@dataclass
class Stage:
    """A database for many plays, and what a play answers when nothing is set."""

    database: Database
    usual: dict[str, Any]
    numbers: Iterator[int]

    def play(self, conn: psycopg.Connection[Any]) -> dict[str, Any]:
        """Play under a name of its own."""
        return play(conn, f"play{next(self.numbers)}")


@pytest.fixture(scope="module")
def stage(server: PostgresServer) -> Iterator[Stage]:
    """A stage whose owner may set what else only superusers may, and with a schema that shadows everything."""
    database = server.installed_database()
    for name in ("session_replication_role", "plpgsql.variable_conflict"):
        database.admin.execute(f"grant set on parameter {name} to {OWNER}".encode())
    shadow(database)
    with database.connect() as conn:
        usual = play(conn, "play0")
    yield Stage(database, usual, count(1))
    database.drop()


def shadow(database: Database) -> None:
    """Make a schema with functions, operators and types that are called as the system's and do harm."""
    with database.connect() as conn:
        conn.execute("create schema evil")
        for name, arguments in (
            ("clock_timestamp", ""), ("now", ""), ("coalesce_", "int"), ("count", "anyelement"), ("format", "text"),
            ("jsonb_array_elements", "jsonb"), ("length", "text"), ("set_config", "text, text, boolean"),
        ):  # fmt: skip
            conn.execute(
                f"create function evil.{name}({arguments}) returns text language plpgsql"
                " as $$ begin raise exception 'evil'; end $$".encode()
            )
        conn.execute("create table evil.run (run_id int); create view evil.dispatch as select 1 as run_id")
        conn.execute(
            "create function evil.never(text, text) returns boolean language sql as 'select false';"
            " create operator evil.= (leftarg = text, rightarg = text, procedure = evil.never)"
        )


def apply(conn: psycopg.Connection[Any], settings: Settings) -> None:
    """Set what is to be set; a setting that this version does not know skips the test."""
    known = {row[0].lower() for row in conn.execute("select name from pg_settings").fetchall()}
    if unknown := [name for name in settings if name not in known]:
        pytest.skip(f"this PostgreSQL has no {', '.join(unknown)}")
    for name, value in settings.items():
        conn.execute(
            sql.SQL("select pg_catalog.set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        )


def told(settings: Settings) -> str:
    return ",".join(f"{name}={value}" for name, value in settings.items())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*FORMATS, *EXECUTION], ids=told)
def test_the_answers_are_the_same_whatever_the_session_has_set(stage: Stage, settings: Settings) -> None:
    conn = stage.database.connect()
    conn.execute("do 'begin end'")  # loads plpgsql, whose settings are known then
    apply(conn, settings)
    assert stage.play(conn) == stage.usual
    conn.close()


HOSTILE_DATABASE = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "America/St_Johns",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "search_path": "evil",
    "synchronous_commit": "off",
    "plan_cache_mode": "force_custom_plan",
    "idle_session_timeout": "3s",
}


async def test_a_worker_and_its_clients_bear_what_a_database_has_set(database: Database) -> None:
    shadow(database)
    for name, value in HOSTILE_DATABASE.items():
        alter = sql.SQL("alter database {} set {} = {}").format(
            sql.Identifier(database.name),
            sql.Identifier(name),
            sql.SQL(value) if name == "search_path" else sql.Literal(value),
        )
        database.admin.execute(alter)
    app = perdure.App(database.dsn())
    tries = 0

    @perdure.step(retry=perdure.Retry(delay=timedelta(milliseconds=10)))
    async def flaky(at: datetime) -> datetime:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("the first time")
        return at + timedelta(hours=1)

    async def read(conn: psycopg.AsyncConnection[Any]) -> str:
        cursor = await conn.execute("select current_setting('transaction_isolation')")
        [[isolation]] = await cursor.fetchall()
        return str(isolation)

    @app.workflow(timeout=timedelta(hours=1))
    async def order(run: perdure.AsyncRun, at: datetime) -> list[str]:
        later = await run.step(flaky, at)
        await run.sleep(timedelta(milliseconds=5))
        return [later.isoformat(), await run.transaction(read), await run.wait_signal(PAID, timeout=timedelta(hours=1))]

    at = datetime(2026, 3, 8, 5, 29, 59, tzinfo=timezone.utc)  # an hour before the clocks change there
    ticked = "select ticked_at from perdure.timeline"
    async with app.worker():
        handle = await app.start(order, at)
        await handle.signal(PAID, "cash")
        told = await handle.result(timeout=timedelta(seconds=60))
        assert told == ["2026-03-08T06:29:59+00:00", "read committed", "cash"]
        before = database.value(ticked)
        await until(lambda: database.value(ticked) != before, seconds=30, what="a tick")
    environment = {"PERDURE_DSN": database.dsn()}
    for words in (["runs"], ["show", str(handle.id)], ["explain", str(handle.id)], ["doctor"]):
        said = CliRunner().invoke(cli, words, env=environment, catch_exceptions=False)
        assert "error" not in said.output, said.output


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_workers_functions_refuse_an_older_snapshot_and_say_what_to_set(stage: Stage, isolation: str) -> None:
    worker = Worker(stage.database)
    start(worker.conn)  # of the workflow and in the queue that only these tests use
    held = worker.claim_one()
    conn = stage.database.connect()
    conn.execute("select set_config('default_transaction_isolation', %s, false)", [isolation])
    other = worker.on(conn)
    for attempt in (
        lambda: other.claim(),
        lambda: other.save(held, "a"),
        lambda: other.suspend(held, wait("w")),
        lambda: other.complete(held),
        lambda: other.fail(held),
        lambda: other.release(held),
        lambda: conn.execute("select perdure.tick()"),
        lambda: conn.execute("select perdure.recover()"),
    ):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="READ COMMITTED") as refused:
            attempt()
        assert "read committed" in (refused.value.diag.message_hint or "")
    assert worker.complete(held) == "done"


def test_a_read_only_caller_changes_nothing(stage: Stage) -> None:
    worker = Worker(stage.database)
    conn = stage.database.connect()
    conn.execute("set default_transaction_read_only = on")
    for statement in ("select perdure.start('order')", "select perdure.put_queue('q')"):
        with pytest.raises(errors.ReadOnlySqlTransaction):
            conn.execute(statement.encode())
    with pytest.raises(errors.ReadOnlySqlTransaction):
        worker.on(conn).beat()
    assert conn.execute("select count(*) from perdure.selftest()").rowcount == 1
    worker.stop()


@pytest.mark.parametrize(
    ("is_set", "used"), [("off", "local"), ("local", "local"), ("on", "on"), ("remote_apply",) * 2]
)
def test_what_a_worker_is_told_is_saved_is_durable(stage: Stage, is_set: str, used: str) -> None:
    worker = Worker(stage.database)
    start(worker.conn)
    held = worker.claim_one()
    conn = stage.database.connect(autocommit=False)
    conn.execute("select set_config('synchronous_commit', %s, false)", [is_set])
    conn.commit()
    other = worker.on(conn)
    for attempt in (lambda: other.save(held, "a"), lambda: other.complete(held)):
        attempt()
        assert conn.execute("show synchronous_commit").fetchone() == (used,)
        conn.commit()
        assert conn.execute("show synchronous_commit").fetchone() == (is_set,), "the caller's own setting is his again"
        conn.commit()


INSTALLS: tuple[Settings, ...] = (
    {name: value for settings in FORMATS[:10] for name, value in settings.items()},
    {
        "search_path": "evil, pg_catalog",
        "check_function_bodies": "off",
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "plpgsql.extra_errors": "all",
        "row_security": "off",
        "default_tablespace": "pg_default",
        "default_toast_compression": "pglz",
        "lock_timeout": "10s",
        "synchronous_commit": "off",
        "enable_seqscan": "off",
    },
)

# All that an installation is made of, as a session with usual settings reads it; partitions are named by their day.
MADE_OF = """
select array_agg(w.what order by w.what) from (
select regexp_replace(x.what::text, '_\\d{8}', '_day', 'g') as what from (
  select pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid), '') || coalesce(p.proacl::text, '')
  from pg_proc as p where p.pronamespace = 'perdure'::regnamespace
  union all
  select c.relname::text || c.relkind::text || coalesce(pg_get_viewdef(c.oid), '') || coalesce(obj_description(c.oid), '')
  from pg_class as c where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'v', 'p', 'S')
  union all
  select pg_get_constraintdef(c.oid) || c.conname::text from pg_constraint as c where c.connamespace = 'perdure'::regnamespace
  union all select i.indexdef from pg_indexes as i where i.schemaname = 'perdure'
  union all select s.name || s.value::text || s.description from perdure.setting as s
) as x (what)
) as w
"""


@pytest.mark.parametrize("settings", INSTALLS, ids=["formats", "execution"])
def test_an_installation_is_the_same_whatever_was_set(
    stage: Stage, empty_database: Database, settings: Settings
) -> None:
    shadow(empty_database)
    conn = empty_database.connect()
    conn.execute("do 'begin end'")
    apply(conn, settings)
    _install.install(conn)
    made = empty_database.value(MADE_OF)
    assert made == stage.database.value(MADE_OF)
    empty_database.connect().execute("select perdure.put_workflow('order')")
    assert empty_database.value("select count(*) from perdure.violations") == 0
    _install.uninstall(conn)
