"""On hold nothing begins that could have an effect outside, and only adopt() ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors, sql

from support.checks import assert_none
from support.database import OWNER, Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    declare_dead,
    dispatch,
    drain,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
    with_no_grace,
)

ELSEWHERE = "this is not the database that was installed"


def hold(conn: Connection, reason: str = "restored from backup") -> None:
    call(conn, "hold", reason=reason)


def adopt(conn: Connection) -> None:
    call(conn, "adopt", reason="looked at it")


def reason(database: Database) -> str | None:
    """Why the install is on hold, as the onlooker's session sees it."""
    found: str | None = database.value("select reason from perdure.holds")
    return found


def tick(conn: Connection) -> dict[str, object]:
    done: dict[str, object] = scalar(conn, "tick")
    return done


@contextmanager
def copy_of(database: Database) -> Iterator[Database]:
    """A clone of the database, which nobody has told that it is another one."""
    database.close()
    made = database.server.create_database(template=database.name)
    try:
        yield made
    finally:
        made.drop()


@contextmanager
def set_for(database: Database, words: str) -> Iterator[None]:
    """ALTER DATABASE … SET perdure.hold: every session that begins from now on shows the words."""
    name = sql.Identifier(database.name)
    database.admin.execute(sql.SQL("alter database {} set perdure.hold = {}").format(name, sql.Literal(words)))
    yield
    database.admin.execute(sql.SQL("alter database {} reset perdure.hold").format(name))


# What hold() stops, and what not


def test_on_hold_a_claim_brings_nothing_and_after_it_everything(database: Database, conn: Connection) -> None:
    run_id, worker = start(conn), Worker(database)
    hold(conn)
    assert worker.claim(10) == []
    adopt(conn)
    assert [held.run_id for held in worker.claim(10)] == [run_id]


def test_on_hold_what_was_under_way_is_recorded(database: Database, conn: Connection) -> None:
    runs = [start(conn) for _ in range(4)]
    worker = Worker(database)
    done, failed, waiting, released = worker.claim(4)
    hold(conn)
    assert worker.save(done, "charge") == "saved"
    with worker.conn.transaction():
        assert worker.transaction_step(failed, "book", 7)["result"] == 7
    assert worker.fail_step(failed, "mail", 1, policy={"max_attempts": 1})["answer"] == "exhausted"
    assert worker.complete(done, "ok") == "done"
    assert worker.fail(failed) == "done"
    assert worker.suspend(waiting, wait("paid")) == "suspended"
    assert worker.release(released) == "done"
    assert [outcome(database, run_id) for run_id in (done.run_id, failed.run_id)] == ["completed", "failed"]
    assert worker.claim(4) == []
    adopt(conn)
    assert [held.run_id for held in worker.claim(4)] == [released.run_id]
    assert {held.run_id for held in (done, failed, waiting, released)} == set(runs)


def test_on_hold_clients_go_on_to_start_and_signal(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    hold(conn)
    assert signal(conn, held.run_id) == "accepted"
    run_id = start(conn, key="late")
    assert worker.claim(10) == []
    assert state(database, held.run_id) == "waiting"
    adopt(conn)
    assert {each.run_id for each in worker.claim(10)} == {held.run_id, run_id}


def test_on_hold_a_tick_only_says_so(database: Database, conn: Connection) -> None:
    with_no_grace(database)
    database.clock.stop()
    overdue = start(conn, timeout="1 minute", priority=1)
    worker = Worker(database)
    held = worker.claim_one()
    assert held.run_id == overdue
    told = start(conn)
    act(conn, "terminate", told)
    hold(conn, "restored")
    database.clock.advance(hours=1)
    assert tick(conn) == {"held": "restored"}
    assert drain(conn) == (0, 0)
    assert scalar(conn, "recover") == 0
    assert database.value("select count(*) from perdure.worker") == 1
    assert [outcome(database, overdue), outcome(database, told)] == [None, None]
    assert dispatch(database, overdue)["cancel"] is None
    assert database.admin.execute("select invariant, detail from perdure.violations").fetchall() == []
    adopt(conn)
    assert "held" not in tick(conn)
    assert outcome(database, told) == "terminated"
    assert dispatch(database, overdue)["cancel"] == "timed_out"


def test_on_hold_a_worker_registers_and_its_beat_is_told_why(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    hold(conn, "restored")
    worker = Worker(database)
    assert worker.beat(0)["hold"] == "restored"
    assert worker.claim() == []
    adopt(conn)
    assert worker.beat(0)["hold"] is None
    assert worker.claim_one().run_id == run_id


def test_a_hold_says_why_who_and_since_when_and_explain_says_it_first(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    database.clock.stop("2030-01-01")
    hold(conn, "restored from last night")
    row = conn.execute("select reason, held_at = perdure._now(), held_by::text from perdure.holds").fetchone()
    assert row == ("restored from last night", True, OWNER)
    first, how, *rest = [line["explain"] for line in call(conn, "explain", run_id=run_id)]
    assert first.startswith("The install is on hold since 2030-01-01")
    assert "restored from last night" in first
    assert "perdure.adopt()" in how
    assert rest
    assert database.value("select value from perdure.metrics where name = 'perdure_held'") == 1
    assert database.value("select reason from perdure.stuck where run_id = %s", run_id) == "held"
    adopt(conn)
    assert reason(database) is None
    assert database.value("select value from perdure.metrics where name = 'perdure_held'") == 0
    assert "hold" not in next(line["explain"] for line in call(conn, "explain", run_id=run_id))


def test_holds_and_adoptions_are_audited_and_repeating_them_is_not(database: Database, conn: Connection) -> None:
    adopt(conn)  # nothing is on hold
    for why in ("restored", "restored", "restored twice"):
        hold(conn, why)
    assert reason(database) == "restored twice"
    assert database.value(
        "select held_at <= (select min(done_at) from perdure.audit where act = 'hold') from perdure.holds"
    ), "the second reason began a hold of its own"
    adopt(conn)
    adopt(conn)
    acts = conn.execute("select act, reason from perdure.audit order by done_at").fetchall()
    assert acts == [("hold", "restored"), ("hold", "restored twice"), ("adopt", "looked at it")]


@pytest.mark.parametrize("why", [None, "", "  \n", "x" * 10_001])
def test_a_hold_needs_a_reason(database: Database, conn: Connection, why: str | None) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        call(conn, "hold", reason=why)
    assert reason(database) is None


def test_only_an_admin_holds_and_adopts_and_lists_what_is_at_risk(database: Database) -> None:
    allowed = {
        name: set(kinds) for name, kinds in database.admin.execute("select name, kinds from perdure._permissions()")
    }
    assert allowed["hold"] == allowed["adopt"] == {"admin"}
    assert allowed["at_risk"] == allowed["recorded_since"] == {"observer", "admin"}


# Whose death it is


def test_adopting_in_place_leaves_a_live_worker_what_it_holds(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    hold(conn, "only for a moment")
    adopt(conn)
    assert worker.save(held, "charge") == "saved"
    assert worker.complete(held) == "done"


def test_after_an_adoption_nobody_is_declared_dead_for_the_grace(database: Database, conn: Connection) -> None:
    database.clock.stop()
    worker, held = a_run(database)
    hold(conn)
    database.clock.advance(hours=1)
    adopt(conn)
    tick(conn)
    assert worker.save(held, "charge") == "saved"
    database.clock.advance(seconds=6)
    tick(conn)
    with pytest.raises(errors.Error, match="is not registered") as caught:
        worker.save(held, "mail")
    assert caught.value.sqlstate == "PD002"


def test_workers_from_before_the_servers_start_are_forgotten_and_their_runs_not_charged(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    database.admin.execute("update perdure.worker set registered_at = pg_postmaster_start_time() - interval '1 s'")
    hold(conn)
    adopt(conn)
    with pytest.raises(errors.Error, match="is not registered"):
        worker.complete(held)
    found = dispatch(database, held.run_id)
    assert (found["worker_id"], found["recoveries"]) == (None, 0)
    assert Worker(database).claim_one().run_id == held.run_id
    declare_dead(database, worker)  # long gone


# A database that is not the one of the install


def test_a_copy_is_held_before_anybody_has_ticked(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    run_id = start(conn)
    with copy_of(database) as copy:
        there = copy.connect()
        assert (reason(copy) or "").startswith(ELSEWHERE)
        assert copy.value("select held_at from perdure.holds") is None
        # a worker of the original that is pointed at the copy: its id is known there
        lost = worker.on(there)
        assert lost.claim(10) == []
        assert lost.beat(1)["hold"].startswith(ELSEWHERE)
        assert drain(there) == (0, 0)
        assert scalar(there, "recover") == 0
        assert Worker(copy).claim(10) == []
        assert copy.value("select held_at is not null from perdure.holds")
        assert str(tick(there)["held"]).startswith(ELSEWHERE)
        # the original knows nothing of it
        conn = database.connect()
        assert "held" not in tick(conn)
        assert [each.run_id for each in worker.on(conn).claim(10)] == [run_id]
        assert worker.on(conn).save(held, "charge") == "saved"


def test_an_adopted_copy_has_forgotten_the_originals_workers_and_charges_nobody(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    worker.save(held, "charge")
    with copy_of(database) as copy:
        there = copy.connect()
        fresh = Worker(copy)
        adopt(there)
        assert reason(copy) is None
        for stale in (worker.on(there), fresh):
            for call_it in (lambda w=stale: w.claim(), lambda w=stale: w.save(held, "mail"), lambda w=stale: w.beat()):
                with pytest.raises(errors.Error, match="is not registered") as caught:
                    call_it()
                assert caught.value.sqlstate == "PD002"
        with_no_grace(copy)
        tick(there)
        assert dispatch(copy, held.run_id)["recoveries"] == 0
        again = Worker(copy).claim_one()
        assert again.run_id == held.run_id
        assert [step["key"] for step in again.steps] == ["charge"]
        assert again.row["recoveries"] == 0
        assert copy.admin.execute("select invariant, detail from perdure.violations").fetchall() == []
        # with the claim of its past under the worker of its present, nothing is changed
        assert worker.on(database.connect()).save(held, "mail") == "saved"


def test_an_adopted_copy_takes_nothing_back_by_an_old_claim(database: Database) -> None:
    worker, held = a_run(database)
    with copy_of(database) as copy:
        adopt(copy.connect())
        other = Worker(copy)
        taken = other.claim_one()
        assert taken.claim != held.claim
        assert other.save(held, "mail") == "lost"
        assert other.complete(held, "stolen") == "lost"
        assert other.complete(taken, "ok") == "done"
    assert worker.worker_id != other.worker_id


def test_a_renamed_database_is_the_same_one(database: Database, conn: Connection) -> None:
    start(conn)
    database.close()
    old, new = database.name, database.name + "_renamed"
    with database.server.admin() as admin:
        admin.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(old), sql.Identifier(new)))
    database.name = new
    assert reason(database) is None
    assert len(Worker(database).claim()) == 1


def test_a_cluster_of_another_identity_is_held_and_the_words_say_what_may_have_happened(
    database: Database, conn: Connection
) -> None:
    database.admin.execute("update perdure.install set system_identifier = system_identifier + 1")  # as pg_upgrade does
    assert Worker(database).claim() == []
    assert "pg_upgrade" in (reason(database) or "")
    adopt(conn)
    assert reason(database) is None
    old = database.value("select detail ->> 'is_copy' from perdure.audit where act = 'adopt'")
    assert old == "true"


# The setting


def test_the_setting_of_the_database_holds_whoever_connects(database: Database, conn: Connection) -> None:
    start(conn)
    worker = Worker(database)
    with set_for(database, "restored from a snapshot"):
        late = database.connect()
        assert worker.on(late).claim() == []
        assert worker.on(late).beat()["hold"] == "restored from a snapshot"
        assert reason(database) is None, "a session from before it, and nobody has ticked"
        assert tick(conn) == {"held": "restored from a snapshot"}
        assert reason(database) == "restored from a snapshot"
        assert worker.claim() == []


def test_the_words_of_the_setting_may_be_any(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    with set_for(database, "a = b ="):
        assert tick(conn) == {"held": "a = b ="}, "this session began before"
        assert worker.claim() == []


def test_a_worker_that_empties_the_setting_for_itself_is_held_all_the_same(
    database: Database, conn: Connection
) -> None:
    start(conn)
    with set_for(database, "restored"):
        late = database.connect()
        late.execute("set perdure.hold = ''")
        worker = Worker(database, conn=late)  # whoever registers notes it
        assert worker.claim() == []
        assert reason(database) == "restored"


def test_a_session_that_sets_it_for_itself_is_held_alone_until_it_ticks(database: Database, conn: Connection) -> None:
    start(conn)
    mine, others = Worker(database), Worker(database)
    mine.conn.execute("set perdure.hold = 'mine'")
    assert mine.claim() == []
    assert len(others.claim()) == 1
    assert tick(mine.conn) == {"held": "mine"}
    start(conn)
    assert others.claim() == []


def test_adopting_is_refused_while_the_setting_is_there(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    worker = Worker(database)
    with set_for(database, "restored"):
        old = database.connect()
        tick(old)
        for there in (conn, old):
            with pytest.raises(psycopg.Error, match="still holds the install") as caught:
                adopt(there)
            assert caught.value.sqlstate == "PD004"
            assert "reset perdure.hold" in (caught.value.diag.message_hint or "")
        assert worker.claim() == []
    with pytest.raises(psycopg.Error, match="still holds the install"):
        adopt(old)  # its session began before the setting went
    adopt(conn)
    # sessions from before the adoption still show the words: that is no new hold
    assert "held" not in tick(old)
    assert reason(database) is None
    assert worker.on(old).claim_one().run_id == run_id
    # other words are one
    old.execute("set perdure.hold = 'restored again'")
    assert tick(old) == {"held": "restored again"}


# What an operator compares


def test_what_may_have_gone_on_elsewhere_is_listed_by_its_risk(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    running = start(conn, key="running", priority=1)
    held = worker.claim_one()
    worker.save(held, "charge")
    told = start(conn, key="told", priority=1)
    worker.suspend(worker.claim_one(), wait("paid"))
    asleep = start(conn, key="asleep", priority=1)
    worker.suspend(worker.claim_one(), wait("nap", "sleep", until="2100-01-01"))
    ended = start(conn, key="ended", priority=1)
    worker.complete(worker.claim_one())
    paused = start(conn, key="paused")
    act(conn, "pause", paused)
    drain(conn)
    due = start(conn, key="due")
    late = start(conn, key="late", delay="1 day")
    restored_to = database.clock.now()
    hold(conn)
    after = start(conn, key="after")
    rows = call(conn, "at_risk", since=restored_to)
    assert [(row["key"], row["risk"]) for row in rows] == [("running", "running"), ("due", "due"), ("told", "told")]
    [first, *_] = rows
    assert (first["run_id"], first["last_step"], first["worker"]) == (running, "charge", str(worker.worker_id))
    assert first["last_saved_at"] is not None
    assert {row["run_id"] for row in rows}.isdisjoint({asleep, ended, paused, late, after})
    assert {row["run_id"] for row in rows} == {running, due, told}
    beyond = call(conn, "at_risk", until="infinity")
    assert {row["run_id"] for row in beyond} >= {asleep, late}


def test_what_was_recorded_after_a_time_is_listed_where_it_was_recorded(database: Database, conn: Connection) -> None:
    worker, held = a_run(database, key="old")
    worker.save(held, "charge")
    restored_to = database.clock.now()
    worker.save(held, "mail", {"secret": 1})
    start(conn, key="new")
    worker.complete(held)
    rows = call(conn, "recorded_since", since=restored_to)
    assert [(row["run_key"], row["what"], row["key"]) for row in rows] == [
        ("old", "step saved", "mail"),
        ("new", "run started", "new"),
        ("old", "run completed", None),
    ]
    assert_none((str(row) for row in rows if "secret" in str(row)), "a payload")


def test_in_a_copy_what_came_due_since_it_was_held_is_at_risk(database: Database, conn: Connection) -> None:
    """Its original may live on, and may have done it."""
    database.clock.stop()
    run_id = start(conn, delay="1 hour")
    with copy_of(database) as copy:
        there = copy.connect()
        assert "held" in tick(there)
        assert call(there, "at_risk") == []
        copy.clock.advance(hours=2)
        assert [(row["run_id"], row["risk"]) for row in call(there, "at_risk")] == [(run_id, "due")]


def test_on_hold_nobody_forecasts_a_death(database: Database, conn: Connection) -> None:
    database.clock.stop()
    _, held = a_run(database)
    hold(conn)
    database.clock.advance(seconds=12)
    said = "\n".join(line for (line,) in conn.execute("select perdure.explain(%s)", [held.run_id]).fetchall())
    assert "On hold nobody judges whether that worker is alive" in said
    assert "declared dead" not in said
