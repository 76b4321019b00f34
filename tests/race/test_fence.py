"""A worker at work and its death, in every order: nobody waits long, and who was declared dead changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import (
    Connection,
    Worker,
    a_run,
    call,
    declare_dead,
    dispatch,
    keys,
    outcome,
    start,
    state,
    wait,
    with_no_grace,
)


def look_dead(database: Database, worker: Worker) -> None:
    with_no_grace(database)
    database.admin.execute(
        "update perdure.worker_beat set beat_at = '2000-01-01' where worker_id = %s", [worker.worker_id]
    )


def test_a_worker_at_work_is_not_buried_and_nobody_waits_for_it(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    working = database.connect(autocommit=False)
    assert worker.on(working).save(held, "a") == "saved"
    look_dead(database, worker)
    conn.execute("set lock_timeout = '50ms'")
    assert conn.execute("select perdure.recover()").fetchone() == (0,)
    working.commit()
    assert conn.execute("select perdure.recover()").fetchone() == (1,), "at the next tick"
    assert keys(database, held.run_id) == ["a"]
    with pytest.raises(psycopg.Error) as lost:
        worker.save(held, "b")
    assert lost.value.sqlstate == "PD002"


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_call_during_a_burial_waits_for_its_end(database: Database, conn: Connection, ends: str) -> None:
    worker, held = a_run(database)
    look_dead(database, worker)
    undertaker = database.connect(autocommit=False)
    assert undertaker.execute("select perdure.recover()").fetchone() == (1,)
    saving = in_background(worker.save, held, "a")
    database.wait_blocked(worker.conn, by=undertaker.info.backend_pid)
    getattr(undertaker, ends)()
    if ends == "rollback":
        assert saving.result(timeout=10) == "saved"
    else:
        with pytest.raises(psycopg.Error) as lost:
            saving.result(timeout=10)
        assert lost.value.sqlstate == "PD002"
        assert keys(database, held.run_id) == []


def everything(database: Database) -> object:
    tables = ("dispatch", "step", "step_attempt", "outcome", "act", "signal", "worker")
    return [database.value(f"select coalesce(jsonb_agg(to_jsonb(t) order by t::text), '[]') from perdure.{t} as t") for t in tables]  # fmt: skip


def test_a_worker_that_was_declared_dead_changes_nothing_however_late(database: Database, conn: Connection) -> None:
    zombie, held = a_run(database)
    zombie.save(held, "a")
    declare_dead(database, zombie)
    heir = Worker(database)
    again = heir.claim_one()
    heir.save(again, "b")
    before = everything(database)
    calls = {
        "claim": lambda: zombie.claim(),
        "save": lambda: zombie.save(held, "z"),
        "fail_step": lambda: zombie.fail_step(held, "z", 1, policy={}),
        "suspend": lambda: zombie.suspend(held, wait("w")),
        "look": lambda: zombie.suspend(held, wait("w"), keep=True),
        "complete": lambda: zombie.complete(held),
        "fail": lambda: zombie.fail(held),
        "release": lambda: zombie.release(held, "because"),
        "transaction": lambda: zombie.transaction_step(held, "z"),
        "beat": lambda: zombie.beat(1),
    }
    for name, late in calls.items():
        with pytest.raises(psycopg.Error) as lost:
            late()
        assert (lost.value.sqlstate, name) == ("PD002", name)
        assert lost.value.diag.message_hint
    assert zombie.runs() == set()
    assert zombie.stop() == 0
    assert everything(database) == before
    assert heir.complete(again) == "done"


def test_a_worker_that_lost_one_run_changes_nothing_of_it(database: Database, conn: Connection) -> None:
    """It is alive, and has been given the run again: what comes late by the old claim is refused."""
    worker, held = a_run(database)
    worker.release(held)
    again = worker.claim_one()
    assert again.run_id == held.run_id
    before = everything(database)
    assert worker.save(held, "z") == "lost"
    assert worker.fail_step(held, "z", 1, policy={})["answer"] == "lost"
    assert worker.suspend(held, wait("w")) == "lost"
    assert worker.complete(held) == worker.fail(held) == worker.release(held) == "lost"
    with pytest.raises(psycopg.Error) as lost:
        worker.transaction_step(held, "z")
    assert lost.value.sqlstate == "PD002"
    with pytest.raises(psycopg.Error) as mixed:  # in one batch the valid claim must not carry the lost one
        worker.call("save_steps", saves=[held.named(**held.save("z")), again.named(**again.save("a"))])
    assert mixed.value.sqlstate == "22023"
    assert everything(database) == before
    assert worker.save(again, "a") == "saved"


def test_a_beat_never_waits_for_a_fence_nor_a_fence_for_a_beat(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    working, beating = (database.connect(autocommit=False) for _ in range(2))
    for each in (working, beating):
        each.execute("set lock_timeout = '50ms'")
    assert worker.on(working).save(held, "a") == "saved"
    worker.on(beating).beat(1)
    assert worker.on(working).save(held, "b") == "saved"
    working.commit()
    assert worker.save(held, "c") == "saved"
    beating.commit()


def test_twenty_recoveries_at_once_take_each_run_back_once(database: Database, conn: Connection) -> None:
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(200)])
    dead = [Worker(database) for _ in range(4)]
    for worker in dead:
        assert len(worker.claim(50)) == 50
        look_dead(database, worker)
    sessions = [database.connect() for _ in range(20)]

    def recover(session: Connection) -> int:
        row = session.execute("select perdure.recover()").fetchone()
        assert row is not None
        return int(row[0])

    with ThreadPoolExecutor(20) as pool:
        taken = sum(pool.map(recover, sessions))
    taken += recover(conn)
    assert taken == 200
    assert database.value("select count(*) from perdure.dispatch where recoveries = 1 and worker_id is null") == 200
    assert database.value("select count(*) from perdure.worker") == 0


@pytest.mark.parametrize("step", ["save", "transaction_step"])
def test_a_frozen_client_holds_the_fence_no_longer_than_its_lease(
    database: Database, conn: Connection, step: str
) -> None:
    worker = Worker(database, lease="1 second")
    run_id = start(conn)
    held = worker.claim_one()
    frozen = database.connect(autocommit=False)
    getattr(worker.on(frozen), step)(held, "a")
    assert frozen.execute("show idle_in_transaction_session_timeout").fetchone() == ("1s",)
    with_no_grace(database)
    database.wait_until("select not exists (select from pg_stat_activity where pid = %s)", frozen.info.backend_pid)
    look_dead(database, worker)
    assert conn.execute("select perdure.recover()").fetchone() == (1,)
    assert (state(database, run_id), keys(database, run_id)) == ("ready", [])


def test_the_limits_of_a_fence_end_with_its_transaction(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.conn.execute("set synchronous_commit = off")
    with worker.conn.transaction():
        worker.save(held, "a")
        assert worker.conn.execute("show synchronous_commit").fetchone() == ("local",)
    assert worker.conn.execute("show idle_in_transaction_session_timeout").fetchone() == ("0",)
    assert worker.conn.execute("show synchronous_commit").fetchone() == ("off",)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_what_must_see_later_commits_is_refused_under_an_older_snapshot(
    database: Database, conn: Connection, isolation: str
) -> None:
    worker, held = a_run(database)
    client = database.connect(autocommit=False)
    client.execute("begin")
    client.execute(f"set transaction isolation level {isolation}")
    for statement in ("select perdure.tick()", "select perdure.recover()"):
        with pytest.raises(psycopg.Error) as refused, client.transaction():
            client.execute(statement)
        assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == ("55000", True)
    with pytest.raises(psycopg.Error) as refused, client.transaction():
        worker.on(client).save(held, "a")
    assert refused.value.sqlstate == "55000"
    assert outcome(database, held.run_id) is None and dispatch(database, held.run_id)["worker_id"]


def test_a_worker_that_stops_waits_for_its_own_open_transactions(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    working = database.connect(autocommit=False)
    worker.on(working).save(held, "a")
    stopping = in_background(worker.stop)
    database.wait_blocked(worker.conn, by=working.info.backend_pid)
    working.commit()
    assert stopping.result(timeout=10) == 1
    assert (state(database, held.run_id), keys(database, held.run_id)) == ("ready", ["a"])


def test_a_worker_that_is_stopped_between_its_beat_and_its_claim_hears_of_it(
    database: Database, conn: Connection
) -> None:
    """The beat locks its own row and then the fence the worker's: who stops it takes them the other way round."""
    worker = Worker(database)
    start(conn)
    working = database.connect(autocommit=False)
    worker.on(working).beat()
    assert worker.on(conn).stop() == 0
    with pytest.raises(psycopg.Error) as refused:
        worker.on(working).claim()
    assert refused.value.sqlstate == "PD002"
    working.rollback()
    conn.execute("select perdure.recover()")
    assert database.value("select count(*) from perdure.worker_beat") == 0
