"""Periods that are made anew while everybody goes on: whatever happens between two rounds of the copy is in it."""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg
import pytest

from perdure._build import SOURCES, bundle
from support.database import Database, eventually
from support.engine import Connection, Held, Worker, act, call, outcome, scalar, signal, start, state, wait

TABLES = ("run", "outcome", "step", "step_attempt", "signal", "act")


@pytest.fixture
def weeks(database: Database) -> Database:
    """A database whose clock stands, and where each period that is due is made anew, however small it is."""
    database.clock.stop(database.value("select date_trunc('day', now(), 'UTC') + interval '12 hours'"))
    always_rewrite(database)
    return database


def always_rewrite(database: Database) -> None:
    """Let no period be small enough to move into another one, nor too small to be made anew."""
    for name, answer in (("_take_over", "null"), ("_pays", "true")):
        head, _, _ = database.value("select pg_get_functiondef(%s::regproc)", f"perdure.{name}").partition(
            "AS $function$"
        )
        database.admin.execute(f"{head} as $$ begin return {answer}; end $$".encode())


def rows(database: Database) -> dict[str, list[Any]]:
    """All there is of every run."""
    return {
        table: [
            row[0] for row in database.admin.execute(f"select to_jsonb(t)::text from perdure.{table} as t order by 1")
        ]
        for table in TABLES
    }


def rotate(conn: Connection) -> str:
    """One round; a copy that is given up for one that begins anew comes to its end as well."""
    done: dict[str, Any] = scalar(conn, "rotate")
    return str(done.get("period"))


class Week:
    """Runs of one period, and what may become of them."""

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.chance = random.Random(seed)
        self.worker = Worker(database, lease="1 day")
        self.client = database.connect()
        self.held: list[Held] = []
        self.n = 0
        for i in range(24):
            start(self.client, key=f"k{i}" if i % 2 else None)
        self.held = self.worker.claim(24)
        assert len(self.held) == 24
        for held in self.held[:4]:
            self.worker.complete(held, 1)
        for held in self.held[4:8]:
            self.worker.fail(held)
        del self.held[:4]
        self.ended = [held.run_id for held in self.held[:4]]
        del self.held[:4]
        for _ in range(12):
            self.happen()

    def pass_time(self, **ahead: float) -> None:
        """Let time pass, with a worker who is alive afterwards."""
        self.database.clock.advance(**ahead)
        self.worker.beat()

    def broken(self) -> list[Any]:
        """What is broken once the engine has looked at what was told."""
        scalar(self.client, "tick")
        return self.database.admin.execute("select * from perdure.violations").fetchall()

    def happen(self) -> None:
        """Let something happen to some run."""
        self.n += 1
        held = self.chance.choice(self.held) if self.held else None
        what = self.chance.choice(
            (
                "save",
                "save",
                "signal",
                "pause",
                "fail_step",
                "complete",
                "fail",
                "suspend",
                "claim",
                "retry",
                "late",
                "drain",
            )
        )
        if what == "claim" or held is None:
            self.held += self.worker.claim(2)
        elif what == "save":
            assert self.worker.save(held, f"s{self.n}") == "saved"
        elif what == "fail_step":
            self.worker.fail_step(held, f"t{self.n}", 1, policy={"max_attempts": 3})
        elif what == "signal":
            assert signal(self.client, held.run_id, name=self.chance.choice(("paid", "other"))) == "accepted"
        elif what == "pause":
            act(self.client, self.chance.choice(("pause", "resume")), held.run_id)
        elif what == "drain":
            scalar(self.client, "tick")
        elif what == "retry":
            call(self.client, "retry_many", run_ids=[self.chance.choice(self.ended)])
        elif what == "late":  # a message of somebody who saw it unfinished, and commits when it has ended
            late = self.database.connect(autocommit=False)
            assert signal(late, held.run_id, name="late") == "accepted"
            self.worker.complete(held, 2)
            self.held.remove(held)
            late.commit()
            late.close()
        else:
            if what == "suspend":
                self.worker.suspend(held, wait("paid"))
            else:
                (self.worker.complete if what == "complete" else self.worker.fail)(held)
            self.held.remove(held)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_of_a_run_that_is_kept_is_lost_or_twice_whatever_happens_between_the_rounds(
    weeks: Database, seed: int
) -> None:
    week = Week(weeks, seed)
    week.pass_time(days=15)
    ticker = weeks.connect()
    rewritten = 0
    for _ in range(120):
        before = rows(weeks)
        did = rotate(ticker)
        if did == "rewritten":
            rewritten += 1
            after = rows(weeks)
            over = set(
                weeks.value("select coalesce(array_agg(o), '{}') from unnest(%s::text[]) as o", before["outcome"])
            )
            over -= set(after["outcome"])
            gone = [weeks.value("select (%s::jsonb) ->> 'run_id'", row) for row in over]
            for table in TABLES:
                kept = [row for row in before[table] if not any(run_id in row for run_id in gone)]
                assert after[table] == kept, table
            assert all('"completed"' in row for row in over)
            assert week.broken() == []
            week.pass_time(hours=1)
        elif did in ("kept", "None"):  # such as while keys are freed
            week.pass_time(hours=1)
        elif week.chance.random() < 0.4:
            for _ in range(week.chance.randrange(4)):
                week.happen()
        if rewritten == 3:
            return
    raise AssertionError("it was never made anew")


def test_a_kill_in_any_round_costs_that_round(weeks: Database) -> None:
    week = Week(weeks, 7)
    week.pass_time(days=15)
    before = rows(weeks)
    done = []
    while "rewritten" not in done[-2:]:
        for is_killed in (True, False):
            ticker = weeks.connect()
            ticker.execute("begin")
            did = rotate(ticker)
            if is_killed:
                weeks.admin.execute("select pg_terminate_backend(%s)", [ticker.info.backend_pid])
                with pytest.raises(psycopg.OperationalError):
                    ticker.execute("commit")
                pid = ticker.info.backend_pid
                eventually(lambda pid=pid: not weeks.value("select count(*) from pg_locks where pid = %s", pid))  # type: ignore[misc]
                assert rows(weeks) == before
            else:
                ticker.execute("commit")
            done.append(did)
        assert len(done) < 50, done
    assert len(rows(weeks)["run"]) == len(before["run"]) - sum('"completed"' in row for row in before["outcome"])
    assert week.held
    assert week.worker.save(week.held[0], "again") == "saved"
    assert week.broken() == []


def test_a_copy_waits_for_whoever_is_at_work_when_it_begins(weeks: Database, conn: Connection) -> None:
    """What he does to a run that ends meanwhile would not be in the copy."""
    week = Week(weeks, 3)
    held = week.held[0]
    week.pass_time(days=15)
    ticker = weeks.connect()
    assert rotate(ticker) == "made ahead"
    user = weeks.connect(autocommit=False)
    assert signal(user, held.run_id, name="late") == "accepted"
    week.worker.fail(held)
    week.pass_time(minutes=1)
    seen = [rotate(ticker) for _ in range(6)]
    assert seen == ["copying"] + ["busy"] * 5
    user.commit()
    while seen[-1] != "rewritten":
        seen.append(rotate(ticker))
        assert len(seen) < 30, seen
    assert outcome(weeks, held.run_id) == "failed"
    assert "late" in str(rows(weeks)["signal"])
    assert week.broken() == []


def test_an_install_goes_with_a_copy_half_made_and_a_list_of_keys(weeks: Database, conn: Connection) -> None:
    Week(weeks, 1).pass_time(days=15)
    while rotate(conn) != "rewritten":
        pass
    weeks.clock.advance(minutes=2)
    weeks.admin.execute("update perdure.chore set next_at = '-infinity'")
    assert weeks.value("select count(*) from pg_class where relname ~ '^run_dropped_'") == 1
    weeks.admin.execute("create table perdure.run_staged (like perdure.run)")
    weeks.admin.execute(f"alter table perdure.run_staged owner to {weeks.owner}".encode())
    weeks.admin.execute("drop schema perdure_test cascade")
    with conn.transaction():
        conn.execute(bundle(SOURCES / "uninstall.sql").encode())
    assert weeks.value("select to_regnamespace('perdure')") is None


@pytest.mark.slow
def test_periods_are_made_anew_under_load_without_a_deadlock_or_a_loss(database: Database) -> None:
    always_rewrite(database)
    for name, value in (("retention", "1 day"), ("failed_retention", "2 days"), ("partition_period", "1 day")):
        database.admin.execute("select perdure.put_setting(%s, to_jsonb(%s::text))", [name, value])
    database.admin.execute(f"alter database {database.name} set deadlock_timeout = '10ms'")
    stop, problems, kept = threading.Event(), [], []

    def work(worker: Worker) -> None:
        try:
            while not stop.is_set():
                worker.beat()
                run_id = start(worker.conn)
                assert signal(worker.conn, run_id) in ("accepted", "finished")
                for held in worker.claim(3):
                    assert eventually(lambda held=held: (a := worker.save(held, "a")) != "busy" and a) == "saved"  # type: ignore[misc]
                    if len(kept) < 40:
                        kept.append((worker, held))
                    else:
                        assert eventually(lambda held=held: (a := worker.complete(held)) != "busy" and a) == "done"  # type: ignore[misc]
        except BaseException as problem:  # noqa: BLE001 - told at the end
            problems.append(problem)
            stop.set()

    threads = [threading.Thread(target=work, args=(Worker(database, lease="1 day"),)) for _ in range(3)]
    ticker = database.connect()
    done: list[str] = []
    for thread in threads:
        thread.start()
    try:
        for _ in range(800):
            database.clock.advance(hours=1)
            scalar(ticker, "tick")
            done.append(rotate(ticker))
            if done.count("rewritten") >= 5 or stop.is_set():
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not problems, problems
    assert done.count("rewritten") >= 5, done
    assert not database.admin.execute("select * from perdure.violations").fetchall()
    for worker, held in kept:
        assert worker.save(held, "b") == "saved"
        assert worker.complete(held) == "done"
        assert state(database, held.run_id) == "completed"
