"""The hunt for a deadlock: 64 sessions call everything there is, in any order, on the same few runs and keys.

PERDURE_HUNT is how many transactions each session makes; PERDURE_SEED repeats the calls of an earlier hunt, though not
its timing. A transaction that fails as it may is made again until it takes effect.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Held, Worker, call, scalar, with_no_grace

SESSIONS = 64
TRANSACTIONS = int(os.environ.get("PERDURE_HUNT", "6"))

KEYS = [f"k{n}" for n in range(4)]
IDS = ["1", "2", "3"]
RULES = ("attach", "restart_if_failed", "restart_if_finished", "replace", "error")
ACTS = ("cancel", "terminate", "pause", "resume")
ROLES = ("perdure_test_one", "perdure_test_two")

REFUSED = ("PD", "22023")  # an answer, not a failure


class Session:
    """One session: a client, operator, worker and ticker in turn."""

    def __init__(self, hunt: Hunt, number: int) -> None:
        self.hunt = hunt
        self.random = random.Random(f"{hunt.seed} {number}")
        self.is_strict = number % 8 == 7  # a client whose snapshot is one for the whole transaction
        self.is_single = hunt.is_single  # transactions of one call: not one may be given up as a deadlock
        self.conn = hunt.database.connect(hunt.database.superuser, autocommit=False)
        self.conn.execute("set deadlock_timeout = '10ms'")
        self.conn.commit()
        if self.is_strict:
            self.conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self.worker: Worker | None = None
        self.held: list[Held] = []
        self.counted: Counter[str] = Counter()  # what this transaction will have done
        self.named = 0  # how many calls of it lock a name that others lock

    def live(self) -> None:
        """Make all transactions, each until it takes effect or is refused."""
        for _ in range(TRANSACTIONS):
            names = self.random.choices(
                [*self.clients(), *([] if self.is_strict else self.engine())],
                k=1 if self.is_single else self.random.randint(1, 4),
            )
            seed = self.random.random()
            for attempt in range(200):
                if self.attempt(names, seed):
                    break
                time.sleep(self.random.random() * 0.01 * min(attempt, 20))
            else:
                raise AssertionError(f"never took effect: {names}")
        self.conn.close()

    def attempt(self, names: list[str], seed: float) -> bool:
        """Make the calls in one transaction; false when it has to be made again."""
        self.random.seed(seed)  # the same calls again
        self.counted.clear()
        self.named = 0
        worker, held = self.worker, self.held
        try:
            for name in names:
                getattr(self, name)()
            if self.random.random() < 0.1:
                self.conn.rollback()
                self.worker, self.held = worker, held
                return True
            self.conn.commit()
        except psycopg.Error as error:
            self.conn.rollback()
            self.worker, self.held = worker, held
            return self.judge(names, error)
        self.hunt.done(self.counted)
        return True

    def judge(self, names: list[str], error: psycopg.Error) -> bool:
        """Whether an error is an answer; what is none has to be one of the documented failures."""
        code = error.sqlstate or type(error).__name__
        self.hunt.failed[code] += 1
        if code == "PD002":
            self.worker, self.held = None, []
        if code.startswith(REFUSED):
            return True
        # two names in opposite order; the one that is given up may be any that waits for a name behind those two
        documented = {"40P01": self.named >= 1 and not self.is_single, "55P03": True, "40001": self.is_strict}
        assert documented.get(code, False), (names, error)
        return False

    # clients

    def clients(self) -> list[str]:
        """Names of the calls that need no READ COMMITTED."""
        return ["start", "start_keyed", "start_keyed", "start_many", "signal", "signal", "signal_id", "signal_key",
                "act", "act", "act_many", "retry", "retry_many", "look", "put", "grant"]  # fmt: skip

    def run_id(self) -> UUID:
        return self.random.choice(self.hunt.run_ids)

    def start(self) -> None:
        scalar(self.conn, "start", workflow="order", priority=self.random.randint(1, 5))
        self.counted["runs"] += 1

    def start_keyed(self) -> None:
        self.named += 1
        rule = self.random.choice(RULES)
        # the input is always the same, so what is refused is `error` only
        scalar(self.conn, "start", workflow="order", key=self.random.choice(KEYS), on_duplicate=rule)

    def start_many(self) -> None:
        keys = self.random.sample(KEYS, 3)
        self.named += 1
        rule = self.random.choice(("attach", "restart_if_failed", "restart_if_finished"))
        call(self.conn, "start_many", workflow="order", inputs=[Jsonb({})] * 3, keys=keys, on_duplicate=rule)

    def signal(self) -> None:
        answer = scalar(self.conn, "signal", run_id=self.run_id(), name="paid")
        self.counted["signals"] += answer == "accepted"

    def signal_id(self) -> None:
        self.named += 1
        answer = scalar(self.conn, "signal", run_id=self.run_id(), name="paid", id=self.random.choice(IDS))
        self.counted["signals"] += answer == "accepted"

    def signal_key(self) -> None:
        self.named += 1
        key = self.random.choice(KEYS)
        answer = scalar(self.conn, "signal_key", workflow="order", key=key, name="paid", start_input=Jsonb({}))
        self.counted["signals"] += answer == "accepted"

    def act(self) -> None:
        name = self.random.choice(ACTS)
        answer = scalar(self.conn, name, run_id=self.run_id())
        self.counted["acts"] += answer == "accepted" and name != "cancel"  # a replacement cancels, too

    def act_many(self) -> None:
        name = self.random.choice(ACTS)
        rows = call(self.conn, f"{name}_many", run_ids=[self.run_id() for _ in range(4)])
        self.counted["acts"] += sum(row["answer"] == "accepted" for row in rows) if name != "cancel" else 0

    def retry(self) -> None:
        self.named += 2  # the outcome and the key
        self.counted["retries"] += scalar(self.conn, "retry", run_id=self.run_id()) == "accepted"

    def retry_many(self) -> None:
        self.named += 2
        rows = call(self.conn, "retry_many", run_ids=[self.run_id() for _ in range(4)])
        self.counted["retries"] += sum(row["answer"] == "accepted" for row in rows)

    def look(self) -> None:
        call(self.conn, "explain", run_id=self.run_id())
        call(self.conn, "run_results", run_ids=[self.run_id()])
        call(self.conn, "find_run", workflow="order", key=self.random.choice(KEYS))

    def put(self) -> None:
        self.named += 1
        what = self.random.choice(("queue", "workflow", "setting"))
        if what == "queue":
            call(self.conn, "put_queue", name=self.random.choice(("default", "slow")))
        elif what == "workflow":
            call(self.conn, "put_workflow", name="order", max_recoveries=self.random.randint(3, 9))
        else:
            call(self.conn, "put_setting", name="allow_unknown_names", value=Jsonb(False))

    def grant(self) -> None:
        self.named += 1
        function = self.random.choice(("grant_role", "revoke_role"))
        kind = self.random.choice(("client", "worker"))
        statement = f"select perdure.{function}(%s::name, %s)"
        self.conn.execute(statement.encode(), [self.random.choice(ROLES), kind])

    # workers and tickers

    def engine(self) -> list[str]:
        """Names of the calls that see what is committed meanwhile."""
        return ["claim"] * 5 + ["go_on"] * 8 + ["beat", "tick", "drain", "recover", "stop"]

    def registered(self) -> Worker:
        if self.worker is None:
            lease = self.random.choice(("1 second", "30 seconds"))
            self.worker, self.held = Worker(self.hunt.database, conn=self.conn, lease=lease), []
        return self.worker

    def claim(self) -> None:
        self.held = self.held + self.registered().claim(self.random.randint(1, 4))

    def go_on(self) -> None:
        worker = self.registered()
        if not self.held:
            self.claim()
        held, self.held = self.held, []
        for each in held:
            what = self.random.choice(("save", "transaction", "try", "suspend", "look", "complete", "fail", "release"))
            each.ordinal += 3
            if what == "save":
                worker.save(each, self.random.choice("abc"))
                self.held = [*self.held, each]
            elif what == "transaction":
                worker.transaction_step(each, f"t{each.ordinal}")
                self.held = [*self.held, each]
            elif what == "try":
                worker.fail_step(each, "a", 1, policy={"delay": 0})
                self.held = [*self.held, each]
            elif what in ("suspend", "look"):
                wait = {"key": f"w{each.ordinal}", "kind": "signal", "name": "paid"}
                worker.suspend(each, wait, keep=what == "look")
            elif what == "complete":
                worker.complete(each)
            elif what == "fail":
                worker.fail(each)
            else:
                worker.release(each)

    def beat(self) -> None:
        self.registered().beat(len(self.held))

    def stop(self) -> None:
        self.registered().stop()
        self.worker, self.held = None, []

    def tick(self) -> None:
        call(self.conn, "tick")

    def drain(self) -> None:
        call(self.conn, "drain")

    def recover(self) -> None:
        call(self.conn, "recover")


class Hunt:
    """What the sessions share."""

    def __init__(self, database: Database, seed: str, *, is_single: bool) -> None:
        self.database = database
        self.is_single = is_single
        self.seed = seed
        self.counted: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        conn = database.connect()
        conn.execute("select perdure.put_workflow('order'), perdure.put_queue('slow')")
        with_no_grace(database)
        self.run_ids = [row["run_id"] for row in call(conn, "start_many", workflow="order", inputs=[Jsonb({})] * 8)]
        worker = Worker(database, conn=conn)
        for held in worker.claim(4):
            worker.fail(held)
        worker.stop()
        self.counted["runs"] = len(self.run_ids)

    def done(self, counted: Counter[str]) -> None:
        """A transaction took effect."""
        self.counted.update(counted)


def drive_to_the_end(database: Database) -> None:
    """Let every run end: a worker that completes all, and somebody who resumes and tells."""
    worker = Worker(database, lease="1 day")
    give_up = time.monotonic() + 120
    while database.value("select exists (select from perdure.dispatch)"):
        assert time.monotonic() < give_up, database.value("select jsonb_agg(to_jsonb(d)) from perdure.dispatch as d")
        worker.conn.execute("select count(*) from perdure.resume_many(array(select run_id from perdure.dispatch))")
        worker.conn.execute("select perdure.signal(run_id, 'paid') from perdure.dispatch where waits is not null")
        database.admin.execute(
            "update perdure.worker_beat set beat_at = '2000-01-01' where worker_id <> %s", [worker.worker_id]
        )
        worker.conn.execute("select perdure.tick()")
        for held in worker.claim(1000):
            worker.complete(held)
    worker.stop()
    worker.conn.execute("select perdure.tick()")


@pytest.mark.slow
@pytest.mark.parametrize("calls", ["one", "several"])
def test_sixty_four_sessions_call_everything_and_nobody_deadlocks(database: Database, calls: str) -> None:
    """With several calls to a transaction, two may take two keys in opposite order: one of them begins again."""
    seed = os.environ.get("PERDURE_SEED") or str(time.time_ns())
    sys.stderr.write(f"PERDURE_SEED={seed}\n")
    for role in ROLES:
        database.server.create_role(role)
    hunt = Hunt(database, seed, is_single=calls == "one")
    sessions = [Session(hunt, number) for number in range(SESSIONS)]
    with ThreadPoolExecutor(SESSIONS) as pool:
        for future in [pool.submit(session.live) for session in sessions]:
            future.result()
    sys.stderr.write(f"{SESSIONS} sessions, {TRANSACTIONS} transactions each: {dict(hunt.failed)}\n")
    signals = database.value("select count(*) from perdure.signal")
    assert signals == hunt.counted["signals"]
    count: Callable[[str], Any] = lambda acts: database.value(  # noqa: E731
        "select count(*) from perdure.audit where act = any(%s::text[])", acts
    )
    assert count("{terminate,pause,resume}") == hunt.counted["acts"]
    assert count("{retry}") == hunt.counted["retries"]
    assert database.value("select count(*) from perdure.run where key is null") == hunt.counted["runs"]

    drive_to_the_end(database)
    assert database.admin.execute("select invariant, run_id, detail from perdure.violations").fetchall() == []
    assert database.value("select count(*) from perdure.outcome") == database.value("select count(*) from perdure.run")
    assert database.value("select count(*) from perdure.wake") == 0
    assert database.value("select count(*) from perdure.act where applied_at is null") == 0
    # what a role may do is what its grants say, however many gave and took at once
    for role in ROLES:
        kinds = {
            row[0] for row in database.admin.execute("select kind from perdure.role_grant where role_name = %s", [role])
        }
        for kind, function in (("client", "start"), ("worker", "claim_runs")):
            may = database.value(
                "select bool_and(has_function_privilege(%s, p.oid, 'execute')) from pg_proc as p "
                "where p.proname = %s and p.pronamespace = 'perdure'::regnamespace", role, function,
            )  # fmt: skip
            assert may == (kind in kinds)


@pytest.mark.parametrize("second", ["grant_role", "revoke_role"])
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_the_second_who_grants_waits_for_the_first_and_succeeds(database: Database, ends: str, second: str) -> None:
    for role in ROLES:
        database.server.create_role(role)
    one, two = (database.connect(autocommit=False) for _ in range(2))
    one.execute("select perdure.grant_role(%s::name, 'client')", [ROLES[0]])
    waiting = in_background(two.execute, f"select perdure.{second}(%s::name, 'client')".encode(), [ROLES[1]])
    database.wait_blocked(two, by=one.info.backend_pid)
    getattr(one, ends)()
    waiting.result(timeout=30)
    two.commit()
    assert database.value("select count(*) from perdure.role_grant") == (ends == "commit") + (second == "grant_role")


def test_a_revoke_with_an_older_snapshot_gives_nothing_back(database: Database) -> None:
    """What somebody else took meanwhile is still there for it; it is told to begin again."""
    role = ROLES[0]
    database.server.create_role(role)
    first, second = database.connect(autocommit=False), database.connect()
    for kind in ("client", "worker", "observer"):
        second.execute("select perdure.grant_role(%s, %s)", [role, kind])
    first.execute("set transaction isolation level repeatable read")
    first.execute("select count(*) from perdure.role_grant")
    second.execute("select perdure.revoke_role(%s, 'worker')", [role])
    with pytest.raises(psycopg.errors.SerializationFailure):
        first.execute("select perdure.revoke_role(%s, 'observer')", [role])
    first.rollback()
    may = "select has_function_privilege(%s, p.oid, 'execute') from pg_proc as p where p.proname = 'claim_runs'"
    assert database.value(may, role) is False


def test_nobody_waits_for_a_grant_for_longer_than_five_seconds(database: Database) -> None:
    for function in ("grant_role", "revoke_role"):
        limit = database.value(
            "select proconfig from pg_proc where proname = %s and pronamespace = 'perdure'::regnamespace", function
        )
        assert "lock_timeout=5s" in limit


def test_those_who_move_several_keys_take_them_in_one_order(database: Database) -> None:
    """Runs retried and keys restarted at once, in a single call each: the older run has the greater key."""
    conn = database.connect()
    conn.execute("select perdure.put_workflow('order')")
    run_ids = [scalar(conn, "start", workflow="order", key=key) for key in ("b", "a")]
    worker = Worker(database)
    for held in worker.claim(2):
        worker.fail(held)
    holder, operator, client = (database.connect(database.superuser, autocommit=False) for _ in range(3))
    holder.execute("select from perdure.run_key where key = 'b' for update")
    retrying = in_background(call, operator, "retry_many", run_ids=run_ids)
    database.wait_blocked(operator)
    starting = in_background(
        call, client, "start_many", workflow="order", inputs=[Jsonb({})] * 2, keys=["a", "b"],
        on_duplicate="restart_if_failed",
    )  # fmt: skip
    database.wait_blocked(client)
    holder.commit()
    assert {row["answer"] for row in retrying.result(timeout=60)} == {"accepted"}
    operator.commit()
    assert {row["run_id"] for row in starting.result(timeout=60)} == set(run_ids)
