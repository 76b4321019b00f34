"""A clock that obeys: it replaces `perdure._now()` in one test's database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

# The function keeps its attributes and its grants; only where it takes the time from changes. It is a definer so that
# whoever may call it may read the hands.
_INSTALL = """
do $do$
declare
  v_volatility text := (
    select case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end
    from pg_proc as p where p.oid = 'perdure._now()'::regprocedure
  );
begin
  create schema if not exists perdure_test;
  create table if not exists perdure_test.clock (stands_at timestamptz, ahead interval not null default '0');
  insert into perdure_test.clock (stands_at) select null where not exists (select from perdure_test.clock);
  execute format(
    'create or replace function perdure._now() returns timestamptz language sql %s '
    'security definer set search_path = pg_catalog, pg_temp as '
    '$$ select coalesce(c.stands_at, clock_timestamp() + c.ahead) from perdure_test.clock as c $$',
    v_volatility
  );
end;
$do$
"""


class Clock:
    """The time that the database sees. It goes on as usual, ahead by what was advanced, until it is stopped."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.execute(_INSTALL)

    def now(self) -> datetime:
        """The time as the database sees it."""
        row = self._conn.execute("select perdure._now()").fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def stop(self, at: datetime | str | None = None) -> datetime:
        """Stop at a time, by default the present one; it then moves only by `advance`."""
        row = self._conn.execute(
            "update perdure_test.clock set stands_at = coalesce(%s::timestamptz, perdure._now()) returning stands_at",
            [at],
        ).fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    def advance(self, by: timedelta | str | None = None, **units: float) -> datetime:
        """Move on, or back: `advance(hours=2)`, `advance("3 days")`; returns the new time."""
        self._conn.execute(
            "update perdure_test.clock as c set stands_at = c.stands_at + v.by, ahead = c.ahead + v.by "
            "from (select %s::interval) as v (by)",
            [by if by is not None else timedelta(**units)],
        )
        return self.now()

    def go(self) -> None:
        """Let it run again, from where it stands."""
        self._conn.execute(
            "update perdure_test.clock set ahead = stands_at - clock_timestamp(), stands_at = null where stands_at is not null"
        )
