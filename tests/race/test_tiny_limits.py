"""A role whose statements may take no time and wait for nothing: each call takes effect or does not, and works again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Connection, Worker, a_run, call, keys, signal, start

GIVEN_UP = ("57014", "55P03", "25P04")  # statement_timeout, lock_timeout, transaction_timeout
TABLES = ("run", "dispatch", "step", "step_attempt", "signal", "act", "outcome", "run_key", "worker", "wake", "audit",
          "queue", "workflow", "setting", "role_grant")  # fmt: skip


def everything(database: Database) -> list[object]:
    return [
        database.value(f"select coalesce(jsonb_agg(to_jsonb(t) order by t::text), '[]') from perdure.{t} as t")  # type: ignore[arg-type]
        for t in TABLES
    ]


class Impatient:
    """A session whose limits grow with each failure, until the call works."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = database.connect()
        self.failed: Counter[str] = Counter()

    def until_it_works(self, do: Callable[[], Any]) -> Any:
        """Call it under limits of 1 ms, 2 ms ...; what fails leaves nothing behind."""
        milliseconds = 1
        while True:
            before = everything(self.database)
            for limit in ("statement_timeout", *(["transaction_timeout"] if self.database.server.major >= 17 else [])):
                self.conn.execute(f"set {limit} = {milliseconds if milliseconds < 4000 else 0}".encode())
            try:
                return do()
            except psycopg.Error as error:
                if error.sqlstate not in GIVEN_UP:
                    raise
                self.failed[error.sqlstate] += 1
                assert everything(self.database) == before, "half of it took effect"
                if self.conn.closed:  # transaction_timeout ends the session
                    self.conn = self.database.connect()
            finally:
                if not self.conn.closed:
                    self.conn.execute("set statement_timeout = 0")
                    if self.database.server.major >= 17:
                        self.conn.execute("set transaction_timeout = 0")
            milliseconds += 1 + milliseconds // 4


@pytest.mark.slow
def test_a_call_that_ran_out_of_time_has_done_nothing_and_works_again(database: Database) -> None:
    """Every function that changes something, from a start to an end, each first under a limit of 1 ms."""
    role = "perdure_test_one"
    database.server.create_role(role)
    hasty = Impatient(database)

    def again(function: str, **arguments: Any) -> Any:
        return hasty.until_it_works(lambda: call(hasty.conn, function, **arguments))

    again("put_workflow", name="order")
    again("put_queue", name="slow")
    again("put_setting", name="allow_unknown_names", value=Jsonb(False))
    statement = "select perdure.grant_role(%s::name, 'client')"
    hasty.until_it_works(lambda: hasty.conn.execute(statement.encode(), [role]))
    statement_back = "select perdure.revoke_role(%s::name, 'client')"
    hasty.until_it_works(lambda: hasty.conn.execute(statement_back.encode(), [role]))
    [row] = again("register_worker", queues=["default"], workflows=["order"], lease="1 day")
    w = row["register_worker"]
    [row] = again("start", workflow="order", key="k")
    run_id = row["start"]
    again("start_many", workflow="order", inputs=[Jsonb({})], keys=["k"])
    [row] = again("claim_runs", worker_id=w)
    named = {"run_id": str(run_id), "claim": str(row["claim"])}
    step = {**named, "kind": "step", "ordinal": 1, "result": 1}
    again("save_steps", worker_id=w, saves=[{**step, "key": "a"}])
    tried = {**named, "key": "t", "kind": "step", "ordinal": 2, "attempt": 1, "error": {"type": "E", "message": ""}}
    again("fail_steps", worker_id=w, tries=[{**tried, "policy": {"delay": 0}}])
    again("save_transaction_step", worker_id=w, save={**step, "key": "x", "kind": "transaction", "ordinal": 3})
    again("beat", worker_id=w, runs_held=1)
    again("signal", run_id=run_id, name="paid", id="1")
    again("signal_key", workflow="order", key="k", name="paid", id="2")
    again("drain")
    waits = [{"key": "w", "kind": "signal", "name": "paid"}]
    [row] = again("suspend_runs", worker_id=w, suspensions=[{**named, "waits": waits}])
    assert row["answer"] == "answered"
    [row] = again("suspend_runs", worker_id=w, suspensions=[{**named, "waits": [{**waits[0], "key": "v"}]}])
    assert row["answer"] == "answered"
    for act in ("pause", "resume", "cancel"):
        again(act, run_id=run_id, reason="why")
        again("tick")
    again("resume_many", run_ids=[run_id])
    [row] = again("fail_runs", worker_id=w, ends=[{**named, "error": {"type": "E"}}])
    assert row["answer"] == "cancelled"
    again("retry", run_id=run_id)
    [row] = again("claim_runs", worker_id=w)
    named["claim"] = str(row["claim"])
    again("release_runs", worker_id=w, releases=[named])
    [row] = again("claim_runs", worker_id=w)
    named["claim"] = str(row["claim"])
    again("complete_runs", worker_id=w, ends=[named])
    again("recover")
    again("stop_worker", worker_id=w)
    assert hasty.failed, "everything worked at once"
    assert keys(database, run_id) == ["a", "x", "w", "v"]
    assert database.value("select count(*) from perdure.signal") == 2
    assert database.value("select count(*) from perdure.run") == 1
    assert database.value("select count(*) from perdure.violations") == 0


def test_a_role_that_may_wait_for_no_lock_works(database: Database, conn: Connection) -> None:
    """lock_timeout = 1 ms, as the default of the role: only who waits for a rival's key is refused, and by ours of 5 s."""
    role = "perdure_test_two"
    database.server.create_role(role)
    database.admin.execute(f"alter role {role} in database {database.name} set lock_timeout = '1ms'".encode())
    for kind in ("client", "worker", "admin"):
        database.admin.execute("select perdure.grant_role(%s::name, %s)", [role, kind])
    session = database.connect(role)
    assert session.execute("show lock_timeout").fetchone() == ("1ms",)
    worker = Worker(database, conn=session)
    run_id = start(session, key="k")
    sender = database.connect(autocommit=False)
    for name in ("x", "y"):
        signal(sender, run_id, name)  # left open
    held = worker.claim_one()
    assert worker.save(held, "a") == "saved"
    assert worker.suspend(held, {"key": "x", "kind": "signal", "name": "x"}) == "suspended"
    sender.commit()
    session.execute("select perdure.tick()")
    held = worker.claim_one()
    rival = database.connect(autocommit=False)
    start(rival, key="new")
    waiting = in_background(start, session, key="new")
    database.wait_blocked(session, by=rival.info.backend_pid)
    rival.commit()
    assert waiting.result(timeout=30)
    assert worker.complete(held) == "done"
    assert worker.beat(0)["reconcile"] is False
    assert worker.stop() == 0


@pytest.mark.parametrize(("own", "while_fenced"), [("200ms", "200ms"), ("0", "30s"), ("1h", "30s")])
def test_the_fence_never_loosens_the_limit_of_an_idle_transaction(
    database: Database, conn: Connection, own: str, while_fenced: str
) -> None:
    worker, held = a_run(database)
    session = database.connect(autocommit=False)
    session.execute(f"set idle_in_transaction_session_timeout = '{own}'".encode())
    session.commit()
    worker.on(session).save(held, "a")
    assert session.execute("show idle_in_transaction_session_timeout").fetchone() == (while_fenced,)


def test_a_transaction_that_its_limit_ended_has_done_nothing(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    session = database.connect(autocommit=False)
    session.execute("set idle_in_transaction_session_timeout = '100ms'")
    session.commit()
    worker.on(session).save(held, "a")
    signal(session, held.run_id, "x")
    start(session, key="k")
    database.wait_until("select not exists (select from pg_stat_activity where pid = %s)", session.info.backend_pid)
    assert keys(database, held.run_id) == []
    assert database.value("select count(*) from perdure.signal") == 0
    assert database.value("select count(*) from perdure.run") == 1
    assert worker.save(held, "a") == "saved"
    assert start(conn, key="k")
    assert database.value("select count(*) from perdure.violations") == 0
