"""Ids are UUIDv7 of the engine's own clock: what their bits say, and that they are ordered as time is."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from uuid import UUID

from support.database import Database

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)


def ids(database: Database, moments: list[datetime]) -> list[UUID]:
    rows = database.admin.execute(
        "select perdure._uuid7(a.at) from unnest(%s::timestamptz[]) with ordinality as a (at, n) order by a.n",
        [moments],
    )
    return [row[0] for row in rows.fetchall()]


def moments(first: str, last: str, count: int) -> list[datetime]:
    dice = random.Random(7)
    begin, end = datetime.fromisoformat(first), datetime.fromisoformat(last)
    return [begin + (end - begin) * dice.random() for _ in range(count)]


def test_an_id_tells_its_millisecond_and_the_fraction_behind_it(database: Database) -> None:
    some = moments("1970-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00", 5_000)
    some += [at.replace(microsecond=at.microsecond // 1000 * 1000) for at in some]
    some += [at.replace(microsecond=at.microsecond // 1000 * 1000 + 999) for at in some]
    for at, made in zip(some, ids(database, some), strict=True):
        millis, micros = divmod((at - EPOCH) // MICROSECOND, 1000)
        assert made.version == 7
        assert made.int >> 62 & 3 == 2
        assert made.int >> 80 == millis, at
        assert abs((made.int >> 64 & 0xFFF) - micros * 4.096) <= 1, at


def test_ids_are_ordered_by_microsecond(database: Database) -> None:
    for first in ("1970-01-01T00:00:00+00:00", "2026-11-23T08:00:00+00:00", "2099-12-31T23:59:59.99+00:00"):
        begin = datetime.fromisoformat(first)
        row = [begin + n * MICROSECOND for n in range(5_000)]
        made = ids(database, row)
        assert made == sorted(made)
        assert len({each.int >> 64 for each in made}) == len(made)


def test_ids_are_ordered_as_far_as_clocks_go(database: Database) -> None:
    some = sorted(moments("1970-01-01T00:00:00+00:00", "9999-01-01T00:00:00+00:00", 1_000))
    made = ids(database, some)
    assert made == sorted(made)


def test_two_ids_of_one_moment_differ(database: Database) -> None:
    assert len(set(ids(database, [EPOCH] * 1_000))) == 1_000
