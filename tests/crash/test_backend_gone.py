"""A backend is ended inside a call: no trace of it, nobody waited for it, and the same call takes effect once.

Every public function stops between two of its statements, the last place among them: all is done and not committed.
`PERDURE_GATES=1` ends each at every place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from support.calls import CALLS, CRON, Call, Stage
from support.database import Database, PostgresServer
from support.effects import exact, snapshot
from support.engine import Connection, Worker, act, drain, scalar, signal, start, wait, with_no_grace
from support.gates import Gates

BYSTANDER = "bystander"
CALLED = [call for call in CALLS if call.function not in CRON | {"version"}]  # which reads and does nothing


@pytest.fixture(scope="module")
def gates(server: PostgresServer) -> Iterator[Gates]:
    """One database for all calls, whose clock stands: each call has workflow, queue and workers of its own."""
    made = server.installed_database()
    with_no_grace(made)
    made.clock.stop()
    made.connect().execute("select perdure.put_workflow(%s, %s)", [BYSTANDER, BYSTANDER])
    yield Gates(made)
    made.drop()


@pytest.fixture(scope="module")
def other(gates: Gates) -> Connection:
    """Whoever else is there, in one session that knows its plans."""
    made = gates.database.connect(options="-c lock_timeout=1s")
    made.execute("select set_config('gate.passed', '0', false)")
    return made


def chosen(gates: int) -> range:
    """Where a call is ended: at its last gate, when all is done and nothing committed, or at each."""
    return range(1 if "PERDURE_GATES" in os.environ else gates, gates + 1)


def go_about(database: Database, conn: Connection, workflow: str) -> None:
    """Do what others do meanwhile, and take it back; a wait for who is at a gate would never end."""
    with conn.transaction(force_rollback=True):
        runs = conn.execute("select run_id from perdure.run where workflow = %s", [workflow]).fetchall()
        for (run_id,) in runs:
            signal(conn, run_id, "other")
            act(conn, "terminate", run_id)
        start(conn, workflow=workflow, key="another")
        worker = Worker(database, conn=conn, workflows=[BYSTANDER], queues=[BYSTANDER])
        run_id = start(conn, workflow=BYSTANDER, key="k")
        for held in worker.claim(5):  # none while the install is on hold
            assert held.run_id == run_id
            assert worker.save(held, "a") == "saved"
            assert worker.suspend(held, wait("paid")) == "suspended"
        signal(conn, run_id)
        drain(conn)
        for held in worker.claim(5):
            assert worker.complete(held) == "done"
        scalar(conn, "tick")
        worker.beat()
        worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLED, ids=lambda call: call.name)
def test_a_call_that_is_ended_inside_leaves_no_trace_holds_up_nobody_and_works_afterwards(
    gates: Gates, other: Connection, call: Call
) -> None:
    database, looker = gates.database, gates.database.admin
    arguments = call.prepare(Stage(database, looker, call.name))
    if call.function == "run_ticks":
        arguments = {**arguments, "max_seconds": 0}
    before = exact(looker)
    passed, done = gates.rehearse(other, call, arguments)
    for gate in chosen(passed):
        with gates.inside(call, arguments, gate) as (pid, result):
            go_about(database, other, call.name)
            looker.execute("select pg_terminate_backend(%s, 60000)", [pid])
            with pytest.raises(psycopg.errors.AdminShutdown):
                result.result(60)
        assert exact(looker) == before, f"a trace of the call that was ended at {gate} of {passed}"
    call.make(other, arguments)
    assert snapshot(looker) == done, "one effect"
    if call.afterwards:
        looker.execute(call.afterwards)
    assert looker.execute("select invariant, run_id, detail from perdure.violations").fetchall() == []
