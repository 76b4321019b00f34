"""What a call did, apart from the names and times that differ from one call to the next."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

_CHANGING = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9.]+(?:[+-][0-9]{2}(?::[0-9]{2})?)?"
)
_TABLES = """
select c.relname from pg_class as c
where c.relnamespace = 'perdure'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
order by c.relname
"""
_GRANTS = """
select a.grantee::regrole::text || ' ' || p.oid::regprocedure::text
from pg_proc as p, aclexplode(p.proacl) as a
where p.pronamespace = 'perdure'::regnamespace
"""

Snapshot = Counter[tuple[str, str]]


def tables(conn: psycopg.Connection[Any]) -> list[str]:
    """The engine's tables."""
    return [name for (name,) in conn.execute(_TABLES)]


@cache
def plain(text: str) -> str:
    """A text without what differs from one call to the next: ids and times."""
    return _CHANGING.sub("#", text)


def exact(conn: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """All rows of all tables, and the grants, as they are: equal means that nothing at all happened."""
    parts = [
        sql.SQL("select {}, (to_jsonb(t) - 'sequence')::text from perdure.{} as t").format(name, sql.Identifier(name))
        for name in tables(conn)
    ]
    found = conn.execute(sql.SQL(" union all ").join(parts)).fetchall()
    return sorted([*found, *(("grant", text) for (text,) in conn.execute(_GRANTS))])


def snapshot(conn: psycopg.Connection[Any]) -> Snapshot:
    """Count the rows that look alike but for ids and times."""
    return Counter((table, plain(row)) for (table, row) in exact(conn))


def added(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """By how many rows each table grew; tables that lost rows or changed some count as they are."""
    return {
        name: change
        for name in sorted({table for table, _ in before | after})
        if (change := _rows(after, name) - _rows(before, name))
    }


def _rows(found: Snapshot, table: str) -> int:
    return sum(count for (name, _), count in found.items() if name == table)
