"""A backend is killed, as by the kernel when memory runs out: the postmaster lives, and all sessions end with it."""

from __future__ import annotations

from support.database import Database
from support.ending import kill_backend
from support.engine import Worker, scalar, start


def test_the_sessions_that_a_killed_backend_takes_along_are_no_deaths(own_database: Database) -> None:
    """Recovery may take long, and whoever ticks first is seldom a worker: its session tells nothing of the others."""
    database = own_database
    worker = Worker(database, is_direct=True)
    database.connect().execute("select perdure.put_workflow('order')")
    run_id = start(database.connect())
    worker.claim_one()
    for _ in range(2):  # the server has been up for long, and somebody looks all the while
        worker.beat(1)
        assert scalar(database.connect(), "recover") == 0
        database.clock.advance(seconds=9)
    worker.beat(1)
    started = database.value("select pg_postmaster_start_time()")

    kill_backend(database, database.connect().info.backend_pid)
    assert database.value("select pg_postmaster_start_time()") == started
    database.clock.advance(seconds=3)
    conn = database.connect()
    assert scalar(conn, "recover") == 0, "nobody could come back as yet"
    back = worker.on(database.connect())
    assert scalar(back.conn, "worker_lock", worker_id=worker.worker_id)
    assert back.beat(1)["reconcile"] is False
    database.clock.advance(seconds=9)
    assert scalar(conn, "recover") == 0
    assert back.runs() == {run_id}

    back.conn.close()
    database.wait_until("select count(*) = 0 from pg_locks where locktype = 'advisory'")
    assert scalar(conn, "recover") == 1, "the grace is over"
