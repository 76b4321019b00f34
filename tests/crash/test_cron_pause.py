"""Housekeeping is away for an hour and comes back: all is caught up, each thing once, in bounded rounds, without a storm.

The hour is the database's, whose clock stands; who alone ticks, dies, and is cut off is real.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from support.calls import CALLS, CRON
from support.database import Database, eventually, in_background
from support.effects import exact
from support.ending import kill_backend
from support.engine import Row, Worker, scalar, wait
from support.gates import AT_GATE, Gates
from support.proxy import Proxy

TIMERS, LATE, TOLD, DEAD, HELD = 100, 1100, 120, 6, 10
ROUND = {"overdue": 1000, "drained": 1000, "recovered": 10000}  # what a tick does at most
DONE = {"overdue": LATE, "drained": TOLD, "recovered": DEAD * HELD}


class Hour:
    """An install in which an hour passes, and nobody ticks, beats or claims."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect()
        self.now = database.clock.stop()
        self.tick()
        database.clock.advance(seconds=9)  # the grace of the server's start is over
        self.tick()
        self.timers, self.alive = self._worker("timer"), self._worker("kept")
        self._suspend(self.timers, TIMERS, "timer", lambda n: wait("t", "sleep", until=self.now + timedelta(minutes=1)))
        self._start("late", LATE, deadline=self.now + timedelta(minutes=5))
        told = self._suspend(self._worker("told"), TOLD, "told", lambda _: wait("paid"))
        self._start("kept", HELD)
        self.kept = {held.run_id for held in self.alive.claim(HELD)}
        self._start("held", DEAD * HELD)
        for _ in range(DEAD):
            assert len(self._worker("held").claim(HELD)) == HELD  # and never heard of again
        assert set(self.tick().values()) == {0}
        self.conn.execute("select perdure.signal(u.run_id, 'paid') from unnest(%s::uuid[]) as u (run_id)", [told])
        database.clock.advance(hours=1)

    def tick(self) -> Row:
        """Tick once."""
        done: Row = scalar(self.conn, "tick")
        return done

    def go_on(self) -> None:
        """Let those come back who are alive, and the others stay away for longer than anybody's grace."""
        for worker in (self.alive, self.timers):
            worker.beat()
        self.database.clock.advance(seconds=6)

    def come_back(self) -> None:
        """Connect again."""
        self.conn = self.database.connect()
        self.timers, self.alive = self.timers.on(self.conn), self.alive.on(self.conn)

    def check(self) -> None:
        """All is caught up, once; who is alive still holds what it held."""
        value = self.database.value
        assert self.alive.runs() == self.kept
        assert value("select array_agg(worker_id order by worker_id) from perdure.worker") == sorted(
            [self.alive.worker_id, self.timers.worker_id]
        )
        charged = self.conn.execute("select workflow, recoveries, count(*) from perdure.dispatch group by 1, 2")
        assert {(name, times): count for name, times, count in charged} == {
            ("timer", 0): TIMERS, ("told", 0): TOLD, ("kept", 0): HELD, ("held", 1): DEAD * HELD,
        }  # fmt: skip
        ended = self.conn.execute("select status, count(*) from perdure.outcome group by status").fetchall()
        assert ended == [("timed_out", LATE)]
        fired = [held for _ in range(TIMERS // 50 + 1) for held in self.timers.claim(50)]
        assert Counter(tuple(step["key"] for step in held.steps) for held in fired) == {("t",): TIMERS}
        assert value("select count(*) from perdure.step") == TIMERS
        assert value("select count(*) from perdure.wake") == 0
        assert self.conn.execute("select invariant, run_id, detail from perdure.violations").fetchall() == []

    def is_caught_up(self) -> bool:
        """Whether nothing is left to be done."""
        row = self.conn.execute(
            "select not exists (select from perdure.wake)"
            " and (select count(*) from perdure.outcome) = %s"
            " and (select count(*) from perdure.dispatch where recoveries = 1) = %s",
            [LATE, DEAD * HELD],
        ).fetchone()
        return row is not None and bool(row[0])

    def _worker(self, name: str) -> Worker:
        self.conn.execute("select perdure.put_workflow(%s, %s)", [name, name])
        return Worker(self.database, conn=self.conn, queues=[name], workflows=[name])

    def _start(self, workflow: str, count: int, deadline: Any = None) -> None:
        self.conn.execute("select perdure.put_workflow(%s, %s)", [workflow, workflow])
        self.conn.execute(
            "select perdure.start(%s, deadline => %s) from generate_series(1, %s)", [workflow, deadline, count]
        )

    def _suspend(self, worker: Worker, count: int, workflow: str, make: Any) -> list[Any]:
        self._start(workflow, count)
        claimed = worker.claim(count)
        suspensions = [held.named(waits=[make(n)]) for n, held in enumerate(claimed)]
        answers = worker.call("suspend_runs", suspensions=suspensions)
        assert Counter(row["answer"] for row in answers) == {"suspended": count}
        return [held.run_id for held in claimed]


def test_an_hour_without_ticks_is_caught_up_in_bounded_rounds_and_nobody_alive_dies_of_it(database: Database) -> None:
    hour = Hour(database)
    rounds = [hour.tick()]
    assert rounds[0]["recovered"] == 0, "nobody looked for an hour: nobody can be said to have been silent"
    hour.go_on()
    while any(rounds[-1][what] for what in ROUND):
        rounds.append(hour.tick())
    assert len(rounds) <= 4
    for done in rounds:
        assert all(done[what] <= most for what, most in ROUND.items()), done
    assert {what: sum(done[what] for done in rounds) for what in ROUND} == DONE, "each once"
    hour.check()


def test_ticks_that_were_held_up_are_not_made_up_for(database: Database) -> None:
    database.admin.execute(
        "create sequence public.ticks; grant all on sequence public.ticks to public;"
        " create or replace function perdure._meet_deadlines(now timestamptz) returns integer language sql volatile"
        " as $$ select nextval('public.ticks')::integer * 0 $$"
    )
    database.clock.stop()
    holder = database.connect(autocommit=False)
    holder.execute("lock table perdure_test.clock in access exclusive mode")  # who asks for the time, waits
    conn = database.connect()
    result = in_background(conn.execute, "call perdure.run_ticks(2, '10 milliseconds')")
    database.wait_blocked(conn, by=holder.info.backend_pid)
    pid = conn.info.backend_pid
    database.wait_until(
        "select clock_timestamp() > query_start + interval '2.1 seconds' from pg_stat_activity where pid = %s", pid
    )
    holder.rollback()
    result.result(60)
    assert database.value("select last_value from public.ticks") == 1


@pytest.fixture
def gated(cron_database: Database) -> Gates:
    """A database on a server with pg_cron, with gates in the engine's functions."""
    return Gates(cron_database)


def relaunch(database: Database) -> None:
    """Kill pg_cron's launcher, and with it all sessions; the one that follows starts the jobs that begin with it.

    One that is ended in good order stays away until the server is started again.
    """
    launcher = "select pid from pg_stat_activity where backend_type = 'pg_cron launcher'"
    kill_backend(database, database.wait_until(launcher, seconds=60))


@pytest.mark.cron
@pytest.mark.slow
def test_pg_cron_catches_up_although_its_launcher_is_killed_and_its_job_ended_in_mid_tick(gated: Gates) -> None:
    database = gated.database
    hour = Hour(database)
    hour.conn.execute("select perdure.enable_cron()")
    # what it does each minute, it does at once after its launcher's start
    database.admin.execute(
        "select cron.alter_job(jobid, schedule => '@reboot') from cron.job where jobname like '%tick%'"
    )
    assert scalar(hour.conn, "recover") == 0
    hour.go_on()
    before = exact(database.admin)
    gate = gated.passed(hour.conn, "tick") // 2  # right after a crash it passes fewer: nobody is judged to be dead
    database.admin.execute(f"alter database {database.name} set gate.closed = {gate}".encode())
    at_gate = "select pid from pg_stat_activity where application_name = %s"

    relaunch(database)
    job = database.wait_until(at_gate, AT_GATE, seconds=60)
    database.admin.execute("select pg_terminate_backend(%s, 60000)", [job])
    assert exact(database.admin) == before, "a trace of the tick that was ended"

    relaunch(database)
    database.wait_until(at_gate, AT_GATE, seconds=60)
    assert exact(database.admin) == before
    database.admin.execute(f"alter database {database.name} reset gate.closed".encode())
    relaunch(database)
    hour.come_back()
    database.wait_until("select count(*) = %s from perdure.outcome", LATE, seconds=50)
    assert database.value("select count(*) from perdure.dispatch where recoveries > 0") == 0, "all may come back first"
    hour.go_on()
    eventually(hour.is_caught_up, seconds=50, what="what a job does in its minute")
    hour.conn.execute("select perdure.disable_cron()")
    database.admin.execute(
        "select pg_terminate_backend(pid, 60000) from pg_stat_activity where query ~* '^call perdure.run_ticks'"
    )
    assert set(hour.tick().values()) == {0}
    hour.check()


@pytest.mark.cron
def test_jobs_are_there_once_whenever_the_call_that_makes_or_removes_them_is_cut_off(gated: Gates) -> None:
    database = gated.database
    names = [f"perdure.purge@{database.name}", f"perdure.tick@{database.name}"]

    def jobs() -> list[str]:
        return [name for (name,) in database.admin.execute("select jobname from cron.job order by jobname")]

    called = {call.function: call for call in CALLS if call.function in CRON}
    conn = database.connect()
    with Proxy(database.dsn()) as proxy:
        for function, was, becomes in (("enable_cron", [], names), ("disable_cron", names, [])):
            call = called[function]
            passed, _ = gated.rehearse(conn, call, {})
            for gate in range(1, passed + 1):
                with gated.inside(call, {}, gate) as (pid, result):
                    database.admin.execute("select pg_terminate_backend(%s, 60000)", [pid])
                    with pytest.raises(psycopg.errors.AdminShutdown):
                        result.result(60)
                assert jobs() == was
            for moment, found in (("unsent", was), ("unanswered", becomes)):
                for is_open in (False, True):
                    with psycopg.connect(proxy.dsn, autocommit=not is_open) as cut:
                        if is_open:
                            call.make(cut, {})
                        proxy.cut_next(moment)
                        with pytest.raises(psycopg.OperationalError):
                            cut.commit() if is_open else call.make(cut, {})
                    eventually(lambda found=found: jobs() == found, seconds=60)
                    assert jobs() == found
            for _ in range(2):
                call.make(conn, {})
                assert jobs() == becomes
