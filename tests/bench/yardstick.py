"""The yardsticks: what this server does in this very minute, with nothing but inserts."""

from __future__ import annotations

import psycopg

from bench.pgbench import pgbench
from bench.server import BenchServer

_DATABASE = "yardstick"
_TABLE = "drop table if exists yardstick; create table yardstick (id uuid primary key, note text, at timestamptz)"
_ID = (
    "(lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7'"
    " || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid"
)
_ROWS = "insert into yardstick select {id}, 'note ' || g, now() from generate_series(1, {rows}) as g;\n"
_ROW = "insert into yardstick values ({id}, 'a note', now());\n"

# name: script, clients, rows in each statement
YARDSTICKS = {
    "ins1(1)": (_ROW.format(id=_ID), 1, 1),
    "ins1(4)": (_ROW.format(id=_ID), 4, 1),
    "ins1(16)": (_ROW.format(id=_ID), 16, 1),
    "ins100(4)": (_ROWS.format(id=_ID, rows=100), 4, 100),
}


def prepare(server: BenchServer) -> None:
    """Make the database that the yardsticks are taken in."""
    server.create(_DATABASE)


def measure(server: BenchServer, name: str, seconds: float) -> float:
    """Return rows a second, into a table that begins empty."""
    script, clients, rows = YARDSTICKS[name]
    dsn = server.dsn(_DATABASE)
    with psycopg.connect(dsn) as conn:
        conn.execute(_TABLE)
    if seconds:
        return pgbench(server.bin, dsn, script, clients=clients, seconds=seconds).rate * rows
    return pgbench(server.bin, dsn, script, clients=clients, each=20).rate * rows
