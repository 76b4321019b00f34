"""A database prepared for the simulation, and sessions on it that one thread can hold by the dozen.

Invariants:

* Whatever is chance or time in the engine comes from here: `_now()` reads a sequence that the simulation moves,
  `_random_uuid()` counts, `random()` is seeded for each session, nothing sleeps, no lock wait ends by itself.
* A statement has either ended or waits for a lock when `settle` returns; which of the two is no matter of speed.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from psycopg import pq

from sim import periods
from support import provision
from support.bodies import between_statements
from support.database import FORGETFUL, Database, PostgresServer, any_server, private_server, remove

EPOCH = "2030-01-01 00:00:00+00"
_OPTIONS = (
    "-c jit=off -c max_parallel_workers_per_gather=0 -c client_min_messages=error -c timezone=UTC "
    "-c statement_timeout=0 -c application_name=simulation"
)
_PAUSE = 4711  # the advisory lock that the onlooker holds, and whoever pauses waits for
_KEPT = ("setting", "install", "role_grant")

_PREPARE = f"""
create schema sim;
grant usage on schema sim to public;
create unlogged sequence sim.clock;
create unlogged sequence sim.started;
create unlogged sequence sim.timeline;
create unlogged sequence sim.dice;
create unlogged sequence sim.pauses;
create table sim.ledger (run_id uuid not null, key text not null);
grant select, usage on all sequences in schema sim to public;
grant select, insert on sim.ledger to public;
create or replace function perdure._now() returns timestamptz language sql volatile parallel restricted
set search_path = pg_catalog, pg_temp as
$$ select timestamptz '{EPOCH}' + c.last_value * interval '1 microsecond' from sim.clock as c $$;
create or replace function perdure._server_started_at() returns timestamptz language sql stable parallel restricted
set search_path = pg_catalog, pg_temp as
$$ select timestamptz '{EPOCH}' + c.last_value * interval '1 microsecond' from sim.started as c $$;
create or replace function perdure._timeline() returns integer language sql volatile parallel restricted
set search_path = pg_catalog, pg_temp as
$$ select c.last_value::integer from sim.timeline as c $$;
create or replace function perdure._random_uuid() returns uuid language sql volatile parallel restricted
set search_path = pg_catalog, pg_temp as
$$ select md5(nextval('sim.dice')::text)::uuid $$;
create unlogged sequence sim.place;
grant select on sim.place to public;
create function sim.pause(point integer, place integer) returns boolean language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
begin
  if (
    select p.last_value > 1 and (f.last_value = pause.place
      or abs(hashint4(pause.point + p.last_value::integer) % 12) = 0)
    from sim.pauses as p cross join sim.place as f
  ) and random() < 0.2 then
    perform pg_advisory_lock_shared({_PAUSE}), pg_advisory_unlock_shared({_PAUSE});
  end if;
  return true;
end;
$$;
"""

# No real time may pass: neither is a lock wait given up, nor does a stopping worker sleep between two looks. And a claim
# brings few checkpoints.
_TIMELESS = """
do $do$
declare
  v_function regprocedure;
  v_text text;
begin
  for v_function in
    select p.oid::regprocedure from pg_proc as p
    where p.pronamespace = 'perdure'::regnamespace and p.proconfig::text like '%lock_timeout%'
  loop
    execute format('alter function %s set lock_timeout = ''1h''', v_function);
  end loop;
  for v_function, v_text in
    select p.oid::regprocedure, pg_get_functiondef(p.oid) from pg_proc as p
    where p.pronamespace = 'perdure'::regnamespace and p.prokind = 'f'
      and (p.prosrc like '%pg_sleep(%' or p.proname in ('_bound_idleness', 'claim_runs'))
  loop
    v_text := replace(v_text, ', 0, 262144)', ', 0, 800)');
    v_text := replace(v_text, 'epoch from _bound_idleness.bound', 'epoch from interval ''1 hour''');
    execute regexp_replace(v_text, 'perform pg_sleep\\([^;]*;', 'null;');
  end loop;
  for v_text in
    select c.oid::regclass::text from pg_class as c
    where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'r'
  loop
    execute format('alter table %s set (autovacuum_enabled = off)', v_text);
  end loop;
end;
$do$
"""


class Refused(Exception):
    """The database answered with an error."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate} {message}")
        self.sqlstate = sqlstate


class Lost(Exception):
    """The connection broke; what the last statement did is not known to whoever sent it."""


def with_pauses(definition: str) -> str:
    """Put a pause between any two statements of a function in PL/pgSQL: what a rival does there, it may do here.

    Each seed chooses a twelfth of the places, and pauses there often.
    """
    name = definition.split("(", 1)[0].rpartition(".")[2]

    def pause(line: str) -> str:
        point = zlib.crc32(f"{name} {line}".encode()) % 1_000_000
        return f"assert sim.pause({point}, {_place_of(name)});"  # unlike perform it leaves FOUND as it is

    return between_statements(definition, pause)


def _place_of(function: str) -> int:
    return zlib.crc32(function.encode()) % 1_000_000 + 1


@lru_cache(maxsize=65536)
def micros(text: str | None) -> float:
    """A timestamp of jsonb as microseconds since the epoch of the simulation; nothing is infinitely far ahead."""
    if text is None or text == "infinity":
        return float("inf")
    if text == "-infinity":
        return float("-inf")
    found = re.fullmatch(r"(\d+)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?\+00:00", text)
    assert found is not None, text
    year, month, day, hour, minute, second = (int(each) for each in found.groups()[:6])
    days = _days(year, month, day) - _days(2030, 1, 1)
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + int((found[7] or "0").ljust(6, "0"))


def _days(year: int, month: int, day: int) -> int:
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year


class Wire:
    """One connection, asynchronous; whoever holds it sends a statement and settles."""

    def __init__(self, dsn: str, seed: float) -> None:
        self.pgconn = pq.PGconn.connect(dsn.encode())
        assert self.pgconn.status == pq.ConnStatus.OK, self.pgconn.error_message
        self.pid = self.pgconn.backend_pid
        self.execute(f"select setseed({seed})")

    def send(self, query: str, parameters: Sequence[str | None] = ()) -> None:
        """Send a statement."""
        values = [None if each is None else each.encode() for each in parameters]
        self.pgconn.send_query_params(query.encode(), values)

    def is_done(self, seconds: float) -> bool:
        """Whether the answer is there, waiting for it a moment."""
        if self.pgconn.is_busy():
            if not select.select([self.pgconn.socket], [], [], seconds)[0]:
                return False
            self.pgconn.consume_input()
        return not self.pgconn.is_busy()

    def fetch(self) -> list[list[str | None]]:
        """Read the answer; raises what it says."""
        last: pq.abc.PGresult | None = None
        while (result := self.pgconn.get_result()) is not None:
            last = result
        assert last is not None
        if last.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
            state = last.error_field(pq.DiagnosticField.SQLSTATE)
            words = last.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
            if state is None:
                raise Lost(self.pgconn.error_message.decode())
            raise Refused(state.decode(), (words or b"").decode())
        return [[_text(last.get_value(row, column)) for column in range(last.nfields)] for row in range(last.ntuples)]

    def execute(self, query: str, parameters: Sequence[str | None] = ()) -> list[list[str | None]]:
        """Send a statement and wait for its answer."""
        self.send(query, parameters)
        while not self.is_done(1.0):
            pass
        return self.fetch()

    def prepare(self, name: str, query: str) -> None:
        """Prepare a statement for `execute_prepared`."""
        self.pgconn.send_prepare(name.encode(), query.encode())
        while not self.is_done(1.0):
            pass
        self.fetch()

    def execute_prepared(self, name: str, parameters: Sequence[str | None] = ()) -> list[list[str | None]]:
        """Execute a prepared statement."""
        self.pgconn.send_query_prepared(name.encode(), [None if each is None else each.encode() for each in parameters])
        while not self.is_done(1.0):
            pass
        return self.fetch()

    def close(self) -> None:
        """Hang up."""
        self.pgconn.finish()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


_IS_COPY = "(table_id <> tableoid or system_identifier <> (select c.system_identifier from pg_control_system() as c))"
# Tables by the columns that name a row; what is written once and judged nowhere is left out.
_TABLES = {
    "run": (
        "run_id",
        "run_id, workflow, queue, priority, key, predecessor_id, start_at, deadline, timeout, created_at",
    ),
    "dispatch": ("run_id", "*"),
    "outcome": ("run_id", "*"),
    "step": ("run_id key", "*"),
    "step_attempt": ("run_id key attempt", "*"),
    "signal": ("run_id id", "*"),
    "act": ("act_id", "*"),
    "worker": ("worker_id", "worker_id, is_direct, timeline, registered_at"),
    "worker_beat": ("worker_id", "*"),
    "run_key": ("workflow key", "workflow, key, run_id"),
    "holds": ("reason", "reason, held_at"),
    "install": ("is_installed", f"is_installed, {_IS_COPY} as is_copy"),
}
_SNAPSHOT = (
    "select "
    + ", ".join(
        f"(select json_agg(t) from (select {what} from perdure.{name}) as t)" for name, (_, what) in _TABLES.items()
    )
    + ", (select json_agg(w.run_id) from perdure.wake as w), "
    "(select json_agg(l.run_id || ' ' || l.key) from sim.ledger as l), (select json_agg(v) from sim.violations as v)"
)
# The catalog does not change here: what violations says about it is read once, at the end.
_VIOLATIONS = """
do $do$
declare
  v_text text := pg_get_viewdef('perdure.violations'::regclass);
begin
  v_text := substr(v_text, strpos(v_text, 'SELECT ''a_run_is_unfinished'));
  v_text := left(v_text, strpos(v_text, 'SELECT ''partitions_are_cut_alike') - 1);
  execute 'create view sim.violations as ' || regexp_replace(v_text, 'UNION ALL\\s*$', '');
end;
$do$
"""


@contextmanager
def quiet_server(prefix: str) -> Iterator[PostgresServer]:
    """A server on which nothing happens by itself: vacuum would decide where rows lie, and so in which order they come."""
    binaries = provision.own_binaries() if "PERDURE_TEST_DSN" not in os.environ else None
    if binaries is None:
        with any_server(provision.provide(), prefix) as server:
            yield server
        return
    server = private_server(binaries, prefix, {**FORGETFUL, "autovacuum": "off", "deadlock_timeout": "1h"})
    try:
        yield server
    finally:
        remove(server)


class Past:
    """What was committed at some moment: a standby that lags behind, or a backup."""

    def __init__(self, arena: Arena, tables: Sequence[str]) -> None:
        self._arena = arena
        self._tables = tables
        arena.script("create schema past; create table past.sequence (last_value bigint)")
        for table in tables:
            arena.script(f"create unlogged table past.{table.partition('.')[2]} (like {table})")

    def remember(self) -> None:
        """Note all that is committed now."""
        kept = [(table, f"past.{table.partition('.')[2]}") for table in self._tables]
        self._arena.script(
            f"truncate past.sequence, {', '.join(name for _, name in kept)};"
            "insert into past.sequence select s.last_value from perdure.signal_sequence as s;"
            + ";".join(f"insert into {name} select * from {table}" for table, name in kept)
        )

    def go_back(self) -> None:
        """Let everything later be lost. No time goes back, and no random id is given again."""
        self._arena.script(
            f"truncate {', '.join(self._tables)};"
            "select setval('perdure.signal_sequence', s.last_value) from past.sequence as s;"
            + ";".join(f"insert into {table} select * from past.{table.partition('.')[2]}" for table in self._tables)
        )


class Arena:
    """The prepared database, empty between two simulations; its own onlooker moves the clock and looks."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._originals: dict[str, str] = {}
        self._changed: set[str] = set()
        self.onlooker = Wire(self.dsn(database.superuser), 0.5)
        self.onlooker.execute("set plan_cache_mode = force_generic_plan")
        for statement in (_PREPARE, periods.PREPARE, _TIMELESS, _VIOLATIONS):
            self.script(statement)
        self._add_pauses()
        self.onlooker.execute(f"select pg_advisory_lock({_PAUSE})")
        self.onlooker.prepare("look", _SNAPSHOT)
        self.onlooker.prepare("time", "select setval('sim.clock', $1::bigint)")
        self.onlooker.prepare(
            "waits",
            "select array_to_json(pg_blocking_pids(a.pid)) from pg_stat_activity as a "
            "where a.pid = $1::integer and a.wait_event_type = 'Lock'",
        )
        self.onlooker.prepare("in the way", "select array_to_json(pg_blocking_pids($1::integer))")
        self._stopped: set[int] = set()
        self._pauses = -1
        self.can_stop = database.server.local is not None
        names = [
            str(name)
            for [name] in self.onlooker.execute(
                "select c.relname from pg_class as c where c.relnamespace = 'perdure'::regnamespace "
                "and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> all(string_to_array($1, ','))",
                [",".join(_KEPT)],
            )
        ]
        self._tables = ", ".join(f"perdure.{name}" for name in names)
        self.past = Past(self, [*(f"perdure.{name}" for name in names), "perdure.install", "sim.ledger"])

    def script(self, statements: str) -> None:
        """Execute statements of the superuser's, in one transaction."""
        done = self.onlooker.pgconn.exec_(statements.encode())
        assert done.status in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK), done.error_message.decode()

    def _add_pauses(self) -> None:
        rows = self.onlooker.execute(
            "select p.proname, pg_get_functiondef(p.oid) from pg_proc as p join pg_language as l on l.oid = p.prolang "
            "where p.pronamespace = 'perdure'::regnamespace and l.lanname = 'plpgsql' and p.prokind = 'f' "
            "and p.provolatile = 'v' and p.prosrc not like '%sim.pause%'"
        )
        for name, definition in rows:
            assert name is not None and definition is not None
            self._originals[name] = definition
            self.onlooker.execute(with_pauses(definition))

    def dsn(self, role: str | None = None) -> str:
        """The connection string, with the settings that leave nothing to chance."""
        return f"{self.database.dsn(role)} options='{_OPTIONS}'"

    def connect(self, seed: float) -> Wire:
        """Open a session of a worker or client, as the plain owner."""
        return Wire(self.dsn(), seed)

    def empty(self) -> None:
        """Remove every trace of an earlier simulation."""
        self._pauses = -1
        self.onlooker.execute(f"truncate {self._tables}, sim.ledger restart identity")
        self.onlooker.execute(
            "update perdure.install set held_at = null, held_by = null, hold_reason = null, ended_reason = null"
        )
        self.onlooker.execute("select perdure._write_identity(), sim.begin_periods()")
        self.onlooker.execute(
            "select setval('sim.clock', 1), setval('sim.started', 1), setval('sim.timeline', 1), "
            "setval('sim.dice', 1), setval('sim.pauses', 1), setval('perdure.signal_sequence', 1)"
        )

    def replace(self, function: str, *changes: tuple[str, str]) -> None:
        """Change the text of one of the engine's functions; `restore` undoes it."""
        if function not in self._originals:
            [[text]] = self.onlooker.execute("select pg_get_functiondef(to_regproc($1))", [f"perdure.{function}"])
            assert text is not None
            self._originals[function] = text
        changed = self._originals[function]
        for old, new in changes:
            assert old in changed, f"{function} does not say {old!r}"
            changed = changed.replace(old, new)
        self.onlooker.execute(with_pauses(changed) if "LANGUAGE plpgsql" in changed else changed)
        self._changed.add(function)

    def restore(self) -> None:
        """Undo every change."""
        for function in sorted(self._changed):
            self.replace(function)
        self._changed.clear()

    def set_pauses(self, choice: int) -> None:
        """Tell where functions pause between two of their statements; 0: nowhere."""
        if choice == self._pauses:
            return
        self._pauses = choice
        self.onlooker.execute("select setval('sim.pauses', $1::bigint)", [str(choice + 1)])

    def pause_in(self, function: str) -> None:
        """Name a function in which every place is chosen; none for the empty name."""
        assert not function or function in self._originals, f"no pauses in {function}"
        place = _place_of(function) if function else 1
        self.onlooker.execute("select setval('sim.place', $1::bigint)", [str(place)])

    def is_pause(self, blockers: Sequence[int]) -> bool:
        """Whether who waits only pauses."""
        return self.onlooker.pid in blockers

    def unpause(self) -> None:
        """Let who pauses go on."""
        self.onlooker.execute(f"select pg_advisory_unlock({_PAUSE})")
        self.onlooker.execute(f"select pg_advisory_lock({_PAUSE})")

    def set_time(self, now: int) -> None:
        """Move the clock."""
        self.onlooker.execute_prepared("time", [str(now)])

    def look(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read everything that is committed, and what is wrong with it."""
        [row] = self.onlooker.execute_prepared("look")
        *tables, wakes, ledger, wrong = [json.loads(each) if each else [] for each in row]
        snapshot: dict[str, Any] = {"wake": sorted(wakes), "ledger": ledger}
        for (name, (key, _)), rows in zip(_TABLES.items(), tables, strict=True):
            names = key.split()
            snapshot[name] = {" ".join(str(each[part]) for part in names): each for each in rows}
        return snapshot, wrong

    def catalog_violations(self) -> list[str | None]:
        """Read what is wrong with the whole install."""
        return [row[0] for row in self.onlooker.execute("select v::text from perdure.violations as v")]

    def blockers(self, pid: int) -> list[int]:
        """Who is in a backend's way; empty when it does not wait for a lock."""
        rows = self.onlooker.execute_prepared("waits", [str(pid)])
        return json.loads(rows[0][0] or "[]") if rows else []

    def in_the_way(self, pid: int) -> list[int]:
        """Who is in the way of a backend that was stopped while it waited; nobody, once it got what it waited for."""
        [row] = self.onlooker.execute_prepared("in the way", [str(pid)])
        return list(json.loads(row[0] or "[]"))

    def stop(self, pid: int) -> None:
        """Stop a backend that waits for a lock: it may get it, and does not go on."""
        self._stopped.add(pid)
        if self.can_stop:
            os.kill(pid, signal.SIGSTOP)

    def is_stopped(self, pid: int) -> bool:
        """Whether a backend was stopped."""
        return pid in self._stopped

    def go_on(self, pid: int) -> None:
        """Let a backend that was stopped go on."""
        self._stopped.discard(pid)
        if self.can_stop:
            os.kill(pid, signal.SIGCONT)

    def terminate(self, pid: int) -> None:
        """Kill a backend and wait until it is gone, with its locks."""
        if pid in self._stopped:
            self.onlooker.execute("select pg_terminate_backend($1::integer)", [str(pid)])
            self.go_on(pid)
        self.onlooker.execute("select pg_terminate_backend($1::integer, 30000)", [str(pid)])

    def cancel(self, pid: int) -> None:
        """Cancel what a backend is doing."""
        self.onlooker.execute("select pg_cancel_backend($1::integer)", [str(pid)])

    def settle(self, wire: Wire) -> list[int]:
        """Wait until a statement has ended, or waits for a lock: then return who is in its way."""
        deadline = time.monotonic() + 120
        patience = 0.004
        while not wire.is_done(patience):
            if blockers := self.blockers(wire.pid):
                return blockers
            assert time.monotonic() < deadline, "a statement neither ends nor waits for a lock"
            patience = min(patience * 2, 0.05)
        return []

    def close(self) -> None:
        """Hang up."""
        self.onlooker.close()
