"""A backend is killed, as by the kernel when memory runs out: the postmaster lives, and all sessions end with it."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest

from support.calls import CALLS, CRON, Stage
from support.database import Database
from support.effects import exact
from support.ending import kill_backend
from support.engine import Worker, scalar, start, with_no_grace
from support.gates import Gates


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


# They drain or take back what others have begun, and so come out otherwise beside them; or there is one of its kind.
ALONE = {"claim_runs", "drain", "recover", "tick", "run_ticks", "hold", "adopt", "grant_role", "revoke_role", "version"}


@pytest.mark.slow
def test_a_killed_backend_leaves_no_trace_of_any_call_that_was_under_way_in_the_server(own_database: Database) -> None:
    database = own_database
    with_no_grace(database)
    database.clock.stop()
    gates = Gates(database)
    conn = database.connect()
    calls = [call for call in CALLS if call.function not in CRON | ALONE]
    prepared = {call.name: call.prepare(Stage(database, conn, call.name)) for call in calls}
    passed = {call.name: gates.rehearse(conn, call, prepared[call.name])[0] for call in calls}
    before = exact(conn)
    with ExitStack() as stack:
        inside = [stack.enter_context(gates.inside(call, prepared[call.name], passed[call.name])) for call in calls]
        kill_backend(database, inside[0][0])
        for _, result in inside:
            with pytest.raises(psycopg.OperationalError):
                result.result(60)
    conn = database.connect()
    assert exact(conn) == before
    for call in calls:
        call.make(conn, prepared[call.name])
    assert conn.execute("select invariant, run_id, detail from perdure.violations").fetchall() == []
