"""Bring a real run into each state and to each outcome that act_rules knows."""

from __future__ import annotations

from uuid import UUID

from support.database import Database
from support.engine import Connection, Worker, act, declare_dead, drain, start, wait

STATES = ("scheduled", "ready", "running", "sleeping", "waiting", "backing_off", "paused", "cancelling")
OUTCOMES = ("completed", "failed", "cancelled", "timed_out", "terminated", "dead")


def bring(database: Database, conn: Connection, to: str) -> UUID:
    """Start a run and bring it there, in a queue of its own, so that nobody else takes it."""
    queue = f"q{database.value('select count(*) from perdure.run')}"
    worker = Worker(database, queues=[queue], conn=conn)
    run_id = start(conn, queue=queue, start_at="infinity" if to == "scheduled" else None, max_recoveries=0)
    if to in ("scheduled", "ready"):
        return run_id
    if to == "terminated":
        act(conn, "terminate", run_id)
        drain(conn)
        return run_id
    held = worker.claim_one()
    if to == "sleeping":
        worker.suspend(held, wait("s", "sleep", until="infinity"))
    elif to in ("waiting", "cancelling", "cancelled", "paused"):
        worker.suspend(held, wait("w"))
    elif to == "backing_off":
        worker.suspend(held, wait("r", "retry", until="2999-01-01 00:00+00"))
    elif to == "completed":
        worker.complete(held)
    elif to == "failed":
        worker.fail(held)
    elif to == "dead":
        declare_dead(database, worker)
    elif to == "timed_out":
        database.admin.execute("update perdure.dispatch set ends_at = '2000-01-01' where run_id = %s", [run_id])
        conn.execute("select perdure._meet_deadlines(perdure._now())")
        worker.complete(held)
    if to in ("cancelling", "cancelled"):
        act(conn, "cancel", run_id)
    elif to == "paused":
        act(conn, "pause", run_id)
    drain(conn)
    if to == "cancelled":
        worker.complete(worker.claim_one())
    return run_id
