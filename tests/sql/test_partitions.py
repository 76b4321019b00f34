"""Partitions: made ahead, dropped when the time of their runs is over, and never without a home for a row."""

from __future__ import annotations

import subprocess
import tempfile
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from perdure._build import SOURCES, bundle
from support.clock import Clock
from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
)

TABLES = ("run", "outcome", "step", "step_attempt", "signal", "act")


@pytest.fixture
def weeks(database: Database) -> Database:
    """A database whose clock stands at noon of the day of its install."""
    database.clock.stop(
        database.admin.execute("select date_trunc('day', now(), 'UTC') + interval '12 hours'").fetchone()[0]
    )  # type: ignore[index]
    return database


def rotate(database: Database) -> dict[str, Any]:
    """One call."""
    done: dict[str, Any] = scalar(database.connect(), "rotate")
    return done


def turn(database: Database, **ahead: float) -> list[str]:
    """Let time pass, then rotate until nothing is left to do; returns what was done to periods."""
    done = []
    if ahead:
        database.clock.advance(**ahead)
    for _ in range(200):
        did = rotate(database)
        if not did:
            return done
        if "period" in did:
            done.append(did["period"])
        if did.get("period") in ("waits", "kept") and "rows" not in did:
            return done
    raise AssertionError(f"never at rest: {done[-5:]}")


def periods(database: Database) -> list[str]:
    """What partitions there are, the oldest first."""
    return [row[0] for row in database.admin.execute("select name from perdure.periods order by begins_at nulls first")]


def violations(database: Database) -> list[Any]:
    """What is broken, if anything."""
    return database.admin.execute("select * from perdure.violations").fetchall()


def home(database: Database, run_id: UUID, table: str = "run") -> str:
    """The partition in which a run is."""
    [row] = database.admin.execute(
        f"select distinct tableoid::regclass::text from perdure.{table} where run_id = %s", [run_id]
    )
    return str(row[0]).removeprefix("perdure.")


def finish(database: Database, count: int = 1, **options: Any) -> list[UUID]:
    """Runs that complete now."""
    worker, held = a_run(database, **options)
    ids = [held.run_id]
    worker.save(held, "a")
    assert worker.complete(held) == "done"
    worker.stop()
    return ids


def test_an_install_begins_with_a_period_and_one_ahead(weeks: Database) -> None:
    assert len(periods(weeks)) == 3
    assert turn(weeks) == []


def test_a_period_is_made_ahead_before_the_last_one_begins(weeks: Database) -> None:
    before = periods(weeks)
    assert turn(weeks, days=4) == ["made ahead"]
    after = periods(weeks)
    assert after[:3] == before
    assert len(after) == 4
    begins = weeks.admin.execute("select max(begins_at) - perdure._now() from perdure.periods").fetchone()
    assert begins is not None
    assert begins[0].days > 3
    assert violations(weeks) == []


def test_few_partitions_are_alive_however_long_it_goes_on(weeks: Database) -> None:
    most = 0
    for _ in range(20):
        finish(weeks)
        turn(weeks, days=3)
        most = max(most, len(periods(weeks)))
    assert most <= 5
    assert violations(weeks) == []


def test_nobody_ticked_for_a_year_and_every_row_has_a_home(weeks: Database, conn: Connection) -> None:
    [early] = finish(weeks)
    weeks.clock.advance(days=365)
    late = start(conn)
    assert state(weeks, late) == "ready"
    done = turn(weeks)
    assert done[0] == "made ahead"
    assert state(weeks, late) == "ready"
    assert state(weeks, early) is None
    assert violations(weeks) == []


def test_rows_of_a_clock_that_was_ahead_move_to_the_period_that_is_theirs(weeks: Database, conn: Connection) -> None:
    weeks.clock.advance(days=13)
    ahead = start(conn)
    weeks.clock.advance(days=-9)
    before = start(conn)
    assert turn(weeks) == ["made ahead"]
    assert [state(weeks, run_id) for run_id in (before, ahead)] == ["ready", "scheduled"]
    assert violations(weeks) == []
    weeks.clock.advance(days=30)
    assert len(Worker(weeks).claim(10)) == 2


def test_a_clock_set_back_behind_all_periods_finds_a_home_for_its_runs(weeks: Database, conn: Connection) -> None:
    weeks.clock.advance(days=-400)
    [old] = finish(weeks)
    assert home(weeks, old) == "run_old"
    turn(weeks)
    assert outcome(weeks, old) == "completed"
    assert violations(weeks) == []


def test_completed_runs_go_after_their_time_with_their_whole_period(weeks: Database, conn: Connection) -> None:
    [run_id] = finish(weeks)
    period = home(weeks, run_id)
    assert "dropped" not in turn(weeks, days=12)
    assert outcome(weeks, run_id) == "completed"
    assert turn(weeks, days=3) == ["dropped"]
    assert period not in periods(weeks)
    for table in TABLES:
        assert weeks.value(f"select count(*) from perdure.{table} where run_id = %s", run_id) == 0
    assert violations(weeks) == []


def test_a_period_goes_without_a_delete_per_row(weeks: Database, conn: Connection) -> None:
    """20,000 deletes would be more than a megabyte of log, and dead rows in what stays."""
    weeks.admin.execute(
        "with made as materialized (select perdure._uuid7(perdure._now() + n * interval '1 ms') as id from generate_series(1, 20000) as n), "
        "runs as (insert into perdure.run (run_id, workflow, queue, priority, input, tags, headers, max_recoveries, created_at, "
        "created_by) select id, 'order', 'default', 3, '{}', '{}', '{}', 10, perdure._now(), 'me' from made) "
        "insert into perdure.outcome (run_id, status, result, finished_at) select id, 'completed', '1', perdure._now() from made"
    )
    weeks.clock.advance(days=15)
    assert rotate(weeks)["period"] == "made ahead"
    before = weeks.value("select pg_current_wal_insert_lsn()")
    assert rotate(weeks)["period"] == "dropped"
    assert weeks.value("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)", before) < 1_000_000
    assert weeks.value("select count(*) from perdure.run") == 0
    weeks.admin.execute("select pg_stat_force_next_flush()")
    assert (
        weeks.value(
            "select sum(s.n_tup_del) from pg_stat_all_tables as s join pg_class as c on c.oid = s.relid "
            "where c.relispartition and s.schemaname = 'perdure'"
        )
        == 0
    )


def test_a_failed_run_outlives_its_period_and_then_goes_too(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks, key="k")
    worker.save(held, "a")
    worker.fail(held)
    worker.stop()
    assert "dropped" in turn(weeks, days=20)
    assert home(weeks, held.run_id) == "run_old"
    assert home(weeks, held.run_id, "step") == "step_old"
    assert outcome(weeks, held.run_id) == "failed"
    assert scalar(conn, "find_run", workflow="order", key="k") == held.run_id
    turn(weeks, days=11)
    assert state(weeks, held.run_id) is None
    assert scalar(conn, "find_run", workflow="order", key="k") is None
    assert weeks.value("select count(*) from perdure.run_key") == 0
    assert violations(weeks) == []


def test_a_failed_run_in_old_can_be_retried(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks)
    worker.save(held, "a")
    worker.fail(held)
    assert "dropped" in turn(weeks, days=20)
    assert act(conn, "retry", held.run_id) == "accepted"
    turn(weeks, days=40)
    [again] = Worker(weeks).claim()
    assert [step["key"] for step in again.steps] == ["a"]


def test_an_unfinished_run_of_a_dropped_period_goes_on_where_it_was(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks)
    worker.save(held, "a", 41)
    assert worker.suspend(held, wait("paid")) == "suspended"
    worker.stop()
    assert "dropped" in turn(weeks, days=15)
    assert home(weeks, held.run_id) == "run_old"
    assert signal(conn, held.run_id) == "accepted"
    assert act(conn, "pause", held.run_id) == "accepted"
    weeks.clock.advance(seconds=1)
    assert act(conn, "resume", held.run_id) == "accepted"
    other = Worker(weeks)
    again = other.claim_one()
    assert [(step["key"], step["result"]) for step in again.steps if step["key"] == "a"] == [("a", 41)]
    assert other.save(again, "b") == "saved"
    assert other.fail_step(again, "c", 1, policy={"max_attempts": 3})["answer"] != "lost"
    assert other.complete(again, "done") == "done"
    assert {home(weeks, held.run_id, table).rpartition("_")[2] for table in TABLES} == {"old"}
    assert violations(weeks) == []


def test_a_run_in_a_workers_hands_is_saved_and_completed_after_its_period_is_gone(weeks: Database) -> None:
    worker, held = a_run(weeks)
    worker.save(held, "a")
    assert "dropped" in turn(weeks, days=15)
    assert worker.save(held, "b") == "saved"
    assert worker.complete(held, 1) == "done"
    assert scalar(weeks.connect(), "result", run_id=held.run_id) == 1


def test_a_queue_may_keep_its_runs_for_longer_or_less(weeks: Database, conn: Connection) -> None:
    call(conn, "put_queue", name="ledger", retention="60 days")
    call(conn, "put_queue", name="scratch", retention="1 day", failed_retention="2 days")
    turn(weeks, days=5)
    runs = {queue: start(conn, queue=queue) for queue in ("default", "ledger", "scratch")}
    worker = Worker(weeks, queues=list(runs))
    for held in worker.claim(10):
        assert worker.complete(held) == "done"
    turn(weeks, days=4)
    assert {queue for queue, run_id in runs.items() if state(weeks, run_id)} == {"default", "ledger"}
    turn(weeks, days=4)
    assert {queue for queue, run_id in runs.items() if state(weeks, run_id)} == {"ledger"}
    turn(weeks, days=51)
    assert state(weeks, runs["ledger"]) == "completed"
    turn(weeks, days=2)
    assert state(weeks, runs["ledger"]) is None
    assert violations(weeks) == []


def test_a_run_that_ended_late_is_kept_from_its_end_on(weeks: Database) -> None:
    worker, held = a_run(weeks)
    turn(weeks, days=14)
    assert worker.complete(held) == "done"
    turn(weeks, days=6)
    assert outcome(weeks, held.run_id) == "completed"
    turn(weeks, days=2)
    assert state(weeks, held.run_id) is None


def test_a_key_whose_run_is_gone_starts_anew_before_and_after_it_is_freed(weeks: Database, conn: Connection) -> None:
    [early] = finish(weeks, key="a")
    [late] = finish(weeks, key="b")
    weeks.clock.advance(days=15)
    while rotate(weeks).get("period") != "dropped":
        pass
    assert weeks.value("select count(*) from perdure.run_key") == 2
    assert scalar(conn, "find_run", workflow="order", key="a") is None
    again = start(conn, key="a", input=Jsonb({"other": 1}))
    assert again != early
    assert start(conn, key="a", input=Jsonb({"other": 1})) == again
    assert violations(weeks) == []
    turn(weeks)
    assert weeks.value("select array_agg(key) from perdure.run_key") == ["a"]
    assert scalar(conn, "find_run", workflow="order", key="a") == again
    assert start(conn, key="b", on_duplicate="error") != late
    assert not [name for name in tables(weeks) if "dropped" in name]


def tables(database: Database) -> list[str]:
    """All tables."""
    return [
        row[0]
        for row in database.admin.execute(
            "select relname from pg_class where relnamespace = 'perdure'::regnamespace and relkind in ('r', 'p')"
        )
    ]


def test_start_many_takes_keys_of_gone_runs_and_two_alike_are_one_run(weeks: Database, conn: Connection) -> None:
    finish(weeks, key="a")
    weeks.clock.advance(days=15)
    while rotate(weeks).get("period") != "dropped":
        pass
    rows = conn.execute(
        "select * from perdure.start_many('order', array['{}', '{}', '{}']::jsonb[], array['a', 'a', 'b'])"
    ).fetchall()
    assert [row[2] for row in rows] == [True, False, True]
    assert rows[0][1] == rows[1][1]
    assert violations(weeks) == []


def test_a_run_that_another_waits_for_is_kept_with_the_way_to_it(weeks: Database, conn: Connection) -> None:
    worker, first = a_run(weeks, key="k")
    second = start(conn, key="k", on_duplicate="replace")
    third = start(conn, key="k", on_duplicate="replace")
    scalar(conn, "tick")
    turn(weeks, days=25)
    assert [state(weeks, run_id) for run_id in (first.run_id, second, third)] == ["running", "cancelled", "scheduled"]
    turn(weeks, days=25)
    assert state(weeks, second) == "cancelled", "the third finds the first by it"
    worker.complete(first)
    turn(weeks)
    assert [held.run_id for held in Worker(weeks).claim(5)] == [third]
    assert violations(weeks) == []


def test_what_is_gone_is_unknown_everywhere_and_its_audit_is_kept(weeks: Database, conn: Connection) -> None:
    worker, held = a_run(weeks)
    act(conn, "cancel", held.run_id, reason="by mistake")
    assert worker.complete(held) == "cancelled"
    turn(weeks, days=15)
    turn(weeks, days=20)
    assert signal(conn, held.run_id) == "unknown"
    for function in ("explain", "result", "retry", "cancel"):
        with pytest.raises(psycopg.Error, match="is not known") as caught:
            call(conn, function, run_id=held.run_id)
        assert caught.value.sqlstate == "PD001"
    assert weeks.value("select count(*) from perdure.runs where run_id = %s", held.run_id) == 0
    assert weeks.value("select reason from perdure.audit where run_id = %s", held.run_id) == "by mistake"


def test_a_period_of_which_too_much_is_to_be_kept_waits_and_says_so(weeks: Database, conn: Connection) -> None:
    conn.execute("select perdure.start_many('order', array_fill('{}'::jsonb, array[3001]))")
    assert "waits" in turn(weeks, days=15)
    waiting = weeks.admin.execute("select name, waits from perdure.periods where waits is not null").fetchall()
    assert len(waiting) == 1
    assert "3,000" in waiting[0][1]
    overdue = weeks.value("select value from perdure.metrics where name = 'perdure_retention_overdue_seconds'")
    assert overdue > 3600
    one = weeks.value("select run_id from perdure.run limit 1")
    act(conn, "terminate", one)
    scalar(conn, "tick")
    call(conn, "put_setting", name="failed_retention", value=Jsonb("1 minute"))
    assert "dropped" in turn(weeks, hours=2)
    assert weeks.value("select count(*) from perdure.run_old") == 3000
    assert violations(weeks) == []


def test_a_large_old_is_not_read_again_when_it_grows(weeks: Database, conn: Connection) -> None:
    weeks.clock.advance(days=-100)
    for _ in range(3):
        start(conn, input=Jsonb({"large": "x" * 100}))
    weeks.admin.execute(
        "insert into perdure.run select perdure._uuid7(perdure._now() + n * interval '1 ms'), workflow, queue, priority, "
        "input || jsonb_build_object('n', (select string_agg(md5(n || '/' || g), '') from generate_series(1, 50) as g)), key, tags, headers, start_at, deadline, timeout, max_recoveries, "
        "scheduled_at, predecessor_id, created_at, created_by from perdure.run, generate_series(1, 1000) as n"
    )
    weeks.admin.execute(
        "insert into perdure.dispatch (run_id, workflow, queue, priority, ready_at, max_recoveries) "
        "select run_id, workflow, queue, priority, 'infinity', max_recoveries from perdure.run on conflict do nothing"
    )
    assert weeks.value("select pg_relation_size('perdure.run_old')") > 4194304
    weeks.clock.advance(days=100)
    done = turn(weeks, days=15)
    assert done == ["made ahead", *["guarded"] * 12, "dropped"]
    assert weeks.value("select count(*) from pg_constraint where conname like '%%is_before%%'") == 0
    assert weeks.value("select count(*) from perdure.run") == 3003


def test_on_hold_nothing_is_dropped(weeks: Database, conn: Connection) -> None:
    [run_id] = finish(weeks)
    call(conn, "hold", reason="looking")
    assert turn(weeks, days=40) == []
    assert outcome(weeks, run_id) == "completed"


def test_run_ticks_turns_periods_too(weeks: Database, conn: Connection) -> None:
    [run_id] = finish(weeks)
    weeks.clock.advance(days=15)
    for _ in range(20):
        conn.execute("call perdure.run_ticks(0)")
    assert state(weeks, run_id) is None


def test_a_longer_retention_makes_longer_periods(weeks: Database, conn: Connection) -> None:
    call(conn, "put_setting", name="retention", value=Jsonb("90 days"))
    for _ in range(20):
        turn(weeks, days=10)
    assert len(periods(weeks)) <= 7


@pytest.mark.parametrize(
    ("name", "value"),
    [("retention", "soon"), ("retention", "-1 day"), ("failed_retention", "200 years"), ("partition_period", "1 hour")],
)
def test_a_time_that_cannot_be_is_refused(conn: Connection, name: str, value: str) -> None:
    with pytest.raises(psycopg.Error, match="must be") as caught:
        call(conn, "put_setting", name=name, value=Jsonb(value))
    assert caught.value.sqlstate == "22023"


def test_a_restored_dump_has_all_periods_and_goes_on_turning_them(weeks: Database, conn: Connection) -> None:
    local = weeks.server.local
    if local is None:
        pytest.skip("needs pg_dump and psql of the server's version")
    worker, failed = a_run(weeks, key="a")
    worker.fail(failed)
    finish(weeks, key="b")
    weeks.clock.advance(days=15)
    while rotate(weeks).get("period") != "dropped":
        pass
    [kept] = finish(weeks)
    made = weeks.server.create_database()
    try:
        with tempfile.NamedTemporaryFile(suffix=".sql") as dump:
            source, target = weeks.dsn(weeks.superuser), made.dsn(made.superuser)
            subprocess.run([local.binaries.bin / "pg_dump", "--file", dump.name, source], check=True)
            psql = [local.binaries.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump.name, target]
            subprocess.run(psql, check=True, stdout=subprocess.DEVNULL)
        made.connect().execute("select perdure.adopt()")
        assert periods(made) == periods(weeks)
        assert [home(made, run_id) for run_id in (failed.run_id, kept)] == [
            home(weeks, run_id) for run_id in (failed.run_id, kept)
        ]
        assert start(made.connect(), key="b") != kept
        made.admin.execute("update perdure_test.clock set stands_at = stands_at + interval '40 days'")
        assert "dropped" in turn(made)
        assert state(made, kept) is None
        assert state(made, failed.run_id) is None
        assert made.value("select count(*) from perdure.run_key") == 1
        assert violations(made) == []
    finally:
        made.drop()


def test_code_can_be_replaced_over_periods_made_since(weeks: Database, conn: Connection) -> None:
    turn(weeks, days=15)
    before = periods(weeks)
    now = weeks.clock.now()
    with conn.transaction():
        conn.execute(bundle(SOURCES / "code.sql").encode())
    assert periods(weeks) == before
    weeks.clock = Clock(weeks.admin)
    weeks.clock.stop(now)
    assert turn(weeks, days=15)
    assert violations(weeks) == []


def test_what_is_made_later_belongs_to_nobody_else_whatever_the_owner_gives_away_by_default(
    weeks: Database, conn: Connection
) -> None:
    weeks.server.create_role("perdure_test_curious")
    for objects in ("tables", "types"):
        conn.execute(f"alter default privileges grant all on {objects} to public".encode())
        conn.execute(f"alter default privileges grant all on {objects} to perdure_test_curious".encode())
    assert turn(weeks, days=4) == ["made ahead"]
    given = weeks.admin.execute(
        "select c.relname, a.grantee::regrole from pg_class as c join pg_type as t on t.oid = c.reltype "
        "cross join lateral (select * from aclexplode(c.relacl) union all "
        "select * from aclexplode(coalesce(t.typacl, acldefault('T', t.typowner)))) as a "
        "where c.relnamespace = 'perdure'::regnamespace and a.grantee <> c.relowner"
    ).fetchall()
    assert given == []
    owners = weeks.admin.execute(
        "select distinct relowner from pg_class where relnamespace = 'perdure'::regnamespace"
    ).fetchall()
    assert len(owners) == 1


def many(database: Database, count: int, failed: int, **at: float) -> None:
    """Runs with a step each that ended at once, of which so many have failed; every third has a key."""
    database.admin.execute(
        "with made as materialized (select n, perdure._uuid7(perdure._now() + n * interval '1 ms') as id "
        "from generate_series(1, %(count)s) as n), "
        "runs as (insert into perdure.run (run_id, workflow, queue, priority, input, key, tags, headers, max_recoveries, "
        "created_at, created_by) select id, 'order', 'default', 3, '{}', case when n %% 3 = 0 then id::text end, '{}', '{}', 10, "
        "perdure._now(), 'me' from made), "
        "keys as (insert into perdure.run_key select 'order', id::text, id, decode(repeat('00', 16), 'hex') "
        "from made where n %% 3 = 0), "
        "steps as (insert into perdure.step (run_id, key, kind, ordinal, result, saved_at) "
        "select id, 'a', 'step', 1, '1', perdure._now() from made) "
        "insert into perdure.outcome (run_id, status, result, error, finished_at) "
        "select id, case when n > %(failed)s then 'completed' else 'failed' end, case when n > %(failed)s then '1'::jsonb end, "
        "case when n <= %(failed)s then '{}'::jsonb end, perdure._now() from made",
        {"count": count, "failed": failed},
    )


def test_a_period_of_which_much_is_kept_is_made_anew_without_the_rest(weeks: Database, conn: Connection) -> None:
    many(weeks, 6000, failed=3500)
    worker, open_one = a_run(weeks)
    worker.save(open_one, "a", 41)
    done = turn(weeks, days=15)
    assert "rewritten" in done
    assert "waits" not in done
    for table in ("run", "step", "outcome"):
        assert weeks.value(f"select count(*) from perdure.{table}") == 3500 + (table != "outcome"), table
    assert weeks.value("select count(*) from perdure.run_key") == 3500 // 3
    assert not [name for name in tables(weeks) if "staged" in name or "dropped" in name]
    assert worker.save(open_one, "b") == "saved"
    assert worker.complete(open_one) == "done"
    assert weeks.value("select count(*) from perdure.periods where waits is not null or due_at < perdure._now()") == 0
    assert violations(weeks) == []
    assert "dropped" in turn(weeks, days=23)
    assert weeks.value("select count(*) from perdure.run") == 0
    assert weeks.value("select count(*) from perdure.run_key") == 0
    assert violations(weeks) == []


def let_a_hundred_be_many(database: Database) -> None:
    """Let a hundred runs be too many to be moved at once, and not three thousand, and the rest alike."""
    for function in ("_take_over", "_pays"):
        definition = database.value("select pg_get_functiondef(%s::regproc)", f"perdure.{function}")
        edited = definition.replace("3001", "101").replace("3000", "100").replace("1000", "33")
        assert edited != definition, function
        database.admin.execute(edited.encode())


def test_few_partitions_are_alive_where_many_failed_runs_are_kept_for_long(weeks: Database, conn: Connection) -> None:
    let_a_hundred_be_many(weeks)
    call(conn, "put_setting", name="failed_retention", value=Jsonb("200 days"))
    most = 0
    for week in range(16):
        many(weeks, 107, failed=67 if week % 3 else 104)
        turn(weeks, days=7)
        most = max(most, len(periods(weeks)))
    assert most <= 9, "and not one for each week"
    kept = weeks.value("select count(*) from perdure.outcome where status = 'failed'")
    assert kept == 10 * 67 + 6 * 104
    assert weeks.value(
        "select count(*) from perdure.outcome where finished_at < perdure._now() - interval '30 days'"
    ) == (
        weeks.value(
            "select count(*) from perdure.outcome where status = 'failed' and finished_at < perdure._now() - interval '30 days'"
        )
    )
    assert violations(weeks) == []


def test_a_period_of_which_many_were_retried_and_completed_goes_like_any_other(
    weeks: Database, conn: Connection
) -> None:
    """As after an outage: they all failed, an operator let them go on, and they completed."""
    many(weeks, 3100, failed=3100)
    retried = weeks.value("select max(run_id::text)::uuid from perdure.run")
    assert act(conn, "retry", retried) == "accepted"
    weeks.admin.execute(  # the others as retry leaves them: it takes milliseconds for each
        "insert into perdure.audit (audit_id, act, run_id, reason, detail, done_by, done_at) "
        "select perdure._uuid7(a.done_at), a.act, r.run_id, a.reason, a.detail, a.done_by, a.done_at "
        "from perdure.audit as a cross join perdure.run as r where a.act = 'retry' and r.run_id <> a.run_id; "
        "delete from perdure.dispatch; delete from perdure.outcome; "
        "insert into perdure.outcome (run_id, status, result, finished_at) "
        "select run_id, 'completed', '1', perdure._now() from perdure.run"
    )
    assert weeks.value("select count(*) from perdure.audit where act = 'retry'") == 3100
    assert "dropped" in turn(weeks, days=15)
    assert weeks.value("select count(*) from perdure.run") == 0


def test_runs_with_many_or_large_steps_are_not_moved_while_everybody_waits(weeks: Database, conn: Connection) -> None:
    many(weeks, 1500, failed=40)
    weeks.admin.execute(
        "insert into perdure.step (run_id, key, kind, ordinal, result, saved_at) "
        "select o.run_id, 's' || n, 'step', n + 1, '1', perdure._now() "
        "from perdure.outcome as o, generate_series(1, 300) as n where o.status = 'failed'"
    )
    done = turn(weeks, days=15)
    assert "rewritten" in done
    assert "dropped" not in done
    assert weeks.value("select count(*) from perdure.step") == 40 * 301
    assert violations(weeks) == []


def test_a_period_that_waits_does_not_hold_up_those_after_it(weeks: Database, conn: Connection) -> None:
    conn.execute("select perdure.start_many('order', array_fill('{}'::jsonb, array[3001]))")
    turn(weeks, days=7)
    many(weeks, 2000, failed=0)
    assert "rewritten" in turn(weeks, days=15)
    assert weeks.value("select count(*) from perdure.outcome") == 0
    assert weeks.value("select count(*) from perdure.run") == 3001
    assert weeks.value("select count(*) from perdure.periods where waits is not null") == 1
    assert violations(weeks) == []


@pytest.mark.parametrize("what", ["retention", "retry", "clock"])
def test_what_changes_while_a_copy_is_made_lets_it_begin_anew(weeks: Database, conn: Connection, what: str) -> None:
    many(weeks, 6000, failed=3500)
    weeks.clock.advance(days=15)
    while rotate(weeks).get("period") != "copying":
        pass
    for _ in range(2):
        rotate(weeks)
    [over] = weeks.admin.execute("select run_id from perdure.outcome where status = 'completed' limit 1").fetchone()  # type: ignore[misc]
    [failed] = weeks.admin.execute("select run_id from perdure.outcome where status = 'failed' limit 1").fetchone()  # type: ignore[misc]
    if what == "retention":
        call(conn, "put_queue", name="default", retention="60 days")
    elif what == "retry":
        assert act(conn, "retry", failed) == "accepted"
        worker = Worker(weeks)
        assert worker.complete(worker.claim_one(), 5) == "done"
    else:
        weeks.clock.advance(hours=-1)
    done = turn(weeks)
    if what == "retention":
        assert "rewritten" not in done
        assert outcome(weeks, over) == "completed"
    else:
        assert "rewritten" in done
        assert outcome(weeks, over) is None
    assert outcome(weeks, failed) == ("completed" if what == "retry" else "failed")
    assert not [name for name in tables(weeks) if "staged" in name]
    assert violations(weeks) == []


def test_a_period_that_was_made_anew_goes_only_when_the_keys_of_its_first_loss_are_free(
    weeks: Database, conn: Connection
) -> None:
    many(weeks, 7000, failed=3500)
    weeks.clock.advance(days=15)
    while rotate(weeks).get("period") != "rewritten":
        pass
    assert [name for name in tables(weeks) if "dropped" in name]
    call(conn, "put_setting", name="failed_retention", value=Jsonb("1 day"))
    assert "dropped" in turn(weeks)
    assert weeks.value("select count(*) from perdure.run") == 0
    assert weeks.value("select count(*) from perdure.run_key") == 0
