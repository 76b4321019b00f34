"""Gates inside the engine's functions: a call stops before the n-th statement that it comes to, to be ended there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import psycopg

from support.bodies import between_statements
from support.calls import Arguments, Call
from support.database import Database, eventually, in_background
from support.effects import Snapshot, snapshot
from support.engine import Connection, Row

AT_GATE = "at its gate"  # its application_name
# It sleeps there: a wait for a lock would be given up where the engine limits those.
_PREPARE = f"""
create schema gate;
grant usage on schema gate to public;
create function gate.pass() returns boolean language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  v_passed constant integer := coalesce(nullif(current_setting('gate.passed', true), ''), '0')::integer + 1;
begin
  perform set_config('gate.passed', v_passed::text, false);
  if v_passed = nullif(current_setting('gate.closed', true), '')::integer then
    perform set_config('application_name', '{AT_GATE}', false);
    perform pg_sleep(600);
  end if;
  return true;
end;
$$;
"""
# A function in SQL has a gate at its beginning, where it may be called from outside.
_FUNCTIONS = """
select l.lanname, pg_get_functiondef(p.oid)
from pg_proc as p join pg_language as l on l.oid = p.prolang
where p.pronamespace = 'perdure'::regnamespace
  and (l.lanname = 'plpgsql' or l.lanname = 'sql' and p.proname !~ '^_') and p.provolatile <> 'i'
"""


class Gates:
    """The gates of one database. All are open but for whoever is told to stop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.admin.execute(_PREPARE.encode())
        for language, definition in database.admin.execute(_FUNCTIONS).fetchall():
            database.admin.execute(_with_gates(language, definition).encode())

    def rehearse(self, conn: Connection, call: Call, arguments: Arguments) -> tuple[int, Snapshot]:
        """Make the call and take it back; tell how many gates it passes, and what there is after it."""
        conn.execute("select set_config('gate.passed', '0', false), setseed(0)")  # whom a claim probes is drawn by lot
        if call.function != "await":
            conn.execute("begin")
        if call.function == "run_ticks":
            conn.execute("select perdure.tick()")
        else:
            call.make(conn, arguments)
        row = conn.execute("select current_setting('gate.passed')::integer").fetchone()
        found = snapshot(conn)
        conn.rollback()
        assert row is not None
        return row[0], found

    def passed(self, conn: Connection, function: str) -> int:
        """How many gates a call without arguments passes that is taken back."""
        return self.rehearse(conn, Call(function, lambda _: {}), {})[0]

    @contextmanager
    def inside(self, call: Call, arguments: Arguments, gate: int) -> Iterator[tuple[int, Future[list[Row]]]]:
        """Make the call, as far as its n-th gate; give its backend, and what becomes of it."""
        conn = psycopg.connect(self.database.dsn(), autocommit=True)
        try:
            conn.execute("select set_config('gate.closed', %s, false), setseed(0)", [str(gate)])
            result = in_background(call.make, conn, arguments)
            self._wait(conn, result)
            yield conn.info.backend_pid, result
        finally:
            conn.close()

    def _wait(self, conn: Connection, result: Future[list[Row]]) -> None:
        look = "select application_name = %s from pg_stat_activity where pid = %s"

        def is_at_gate() -> bool:
            if result.done():
                raise AssertionError(f"it came through: {result.result()}")
            return bool(self.database.value(look, AT_GATE, conn.info.backend_pid))

        eventually(is_at_gate, seconds=60, what="the call is at its gate")


def _with_gates(language: str, definition: str) -> str:
    if language == "plpgsql":
        return between_statements(definition, lambda _: "assert gate.pass();")
    return re.sub(r"(AS \$\w*\$)", r"\1 select gate.pass();", definition, count=1)
