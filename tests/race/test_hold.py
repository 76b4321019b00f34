"""Holds and adoptions beside workers at work: nobody waits for long, nobody is in anybody's way."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from support.database import Database, PostgresServer, in_background
from support.engine import Worker, a_run, call, dispatch, scalar, start


def an_old_worker(database: Database) -> None:
    """Let all workers be from before the server's start, as after a restore in place."""
    database.admin.execute("update perdure.worker set registered_at = pg_postmaster_start_time() - interval '1 s'")


def test_a_hold_does_not_wait_for_a_claim_under_way_which_may_bring_its_runs(database: Database) -> None:
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    first, second = start(conn), start(conn)
    worker = Worker(database)
    under_way = worker.on(database.connect(autocommit=False))
    held = under_way.claim_one()
    conn.execute("set statement_timeout = '20s'")
    call(conn, "hold", reason="restored")
    under_way.conn.commit()
    assert held.run_id == first
    assert dispatch(database, first)["claim"] == str(held.claim)
    assert worker.claim() == []
    assert worker.beat(1)["hold"] == "restored"
    assert worker.save(held, "charge") == "saved"
    assert worker.release(held) == "done"
    assert [worker.claim(), dispatch(database, second)["claim"]] == [[], None]


def test_a_claim_that_begins_after_the_hold_in_an_older_transaction_brings_nothing(database: Database) -> None:
    worker, held = a_run(database)
    start(worker.conn)
    open_before = worker.on(database.connect(autocommit=False))
    assert open_before.save(held, "charge") == "saved"
    call(database.connect(), "hold", reason="restored")
    assert open_before.claim() == []
    open_before.conn.commit()
    assert worker.claim() == []


def test_nobody_waits_for_a_hold_or_an_adoption_that_is_not_committed(database: Database) -> None:
    worker, held = a_run(database)
    run_id = start(worker.conn)
    operator = database.connect(autocommit=False)
    other = database.connect()
    other.execute("set statement_timeout = '20s'")
    for ask, arguments in (("hold", {"reason": "restored"}), ("adopt", {})):
        call(operator, ask, **arguments)
        is_held = ask == "adopt"
        assert ("held" in scalar(other, "tick")) == is_held
        late = Worker(database, conn=other)
        assert (worker.beat()["hold"] is not None) == is_held
        assert worker.save(held, f"during {ask}") == "saved"
        claimed = late.claim()
        assert [each.run_id for each in claimed] == ([] if is_held else [run_id])
        operator.commit()
    assert worker.complete(held) == "done"


def test_an_adoption_waits_for_the_open_transaction_of_a_past_worker_and_forgets_it_then(database: Database) -> None:
    worker, held = a_run(database)
    at_work = worker.on(database.connect(autocommit=False))
    assert at_work.save(held, "charge") == "saved"
    conn = database.connect()
    an_old_worker(database)
    call(conn, "hold", reason="restored")
    conn.execute("set lock_timeout = '60s'")  # the function has its own
    adopting = in_background(call, conn, "adopt")
    database.wait_blocked(conn, by=at_work.conn.info.backend_pid)
    at_work.conn.commit()
    adopting.result(timeout=30)
    with pytest.raises(psycopg.Error, match="is not registered"):
        worker.complete(held)
    again = Worker(database).claim_one()
    assert [step["key"] for step in again.steps] == ["charge"]
    assert again.row["recoveries"] == 0


def test_an_adoption_gives_up_when_a_past_workers_transaction_stays_open_and_has_changed_nothing(
    database: Database,
) -> None:
    worker, held = a_run(database)
    at_work = worker.on(database.connect(autocommit=False))
    at_work.save(held, "charge")
    an_old_worker(database)
    conn = database.connect()
    call(conn, "hold", reason="restored")
    with pytest.raises(errors.LockNotAvailable):
        call(conn, "adopt")
    assert worker.beat(1)["hold"] == "restored"
    at_work.conn.commit()
    call(conn, "adopt")
    assert Worker(database).claim_one().run_id == held.run_id


def test_of_two_that_note_a_hold_at_once_one_does_and_nobody_waits(database: Database) -> None:
    database.admin.execute("update perdure.install set system_identifier = system_identifier + 1")
    first, second = database.connect(autocommit=False), database.connect()
    second.execute("set statement_timeout = '20s'")
    assert "pg_upgrade" in scalar(first, "tick")["held"]
    assert "pg_upgrade" in scalar(second, "tick")["held"]
    Worker(database, conn=second)
    first.commit()
    assert database.value("select count(*) from perdure.audit where act = 'hold'") == 1


@pytest.mark.slow
def test_the_setting_in_the_servers_file_holds_before_anybody_connects(
    own_server: PostgresServer, own_database: Database
) -> None:
    worker, held = a_run(own_database)
    run_id = start(worker.conn)
    own_database.close()
    own_server.server.kill()  # what a snapshot of the disk looks like: the same identity, crash recovery
    config = own_server.server.directory / "data" / "postgresql.conf"
    before = config.read_text()
    config.write_text(before + "\nperdure.hold = 'from the snapshot of Monday'\n")
    own_server.server.start()
    conn = own_database.connect()
    survivor = worker.on(conn)  # it did not hear of the restore, and has its id still
    assert survivor.claim(10) == []
    assert survivor.beat(1)["hold"] == "from the snapshot of Monday"
    assert scalar(conn, "tick") == {"held": "from the snapshot of Monday"}
    with pytest.raises(psycopg.Error, match="still holds the install"):
        call(conn, "adopt")
    config.write_text(before)
    own_database.admin.execute("select pg_reload_conf()")
    own_database.wait_until("select coalesce(current_setting('perdure.hold', true), '') = ''")
    call(own_database.connect(), "adopt")
    with pytest.raises(psycopg.Error, match="is not registered"):
        survivor.save(held, "mail")
    assert {each.run_id for each in Worker(own_database).claim(10)} == {held.run_id, run_id}
    assert own_database.value("select max(recoveries) from perdure.dispatch") == 0
