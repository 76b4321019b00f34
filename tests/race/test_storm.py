"""Everything at once, for some seconds: every run ends, every step is there once, nothing is lost, nobody deadlocks."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest

from support.database import Database
from support.engine import Connection, Held, Row, Worker, call, with_no_grace

SECONDS = 8.0  # clients and operators; then the workers empty what is left
WORKERS, TICKERS, CLIENTS = 5, 2, 6
LEASE = "2 seconds"


class RolledBack(Exception):
    """The worker's transaction failed before its COMMIT, as by a lost connection."""


@dataclass
class Storm:
    """What all the threads share."""

    database: Database
    seed: int
    is_over: threading.Event = field(default_factory=threading.Event)
    is_empty: threading.Event = field(default_factory=threading.Event)
    started: list[UUID] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def connect(self) -> Connection:
        """Connect as whoever may shorten deadlock_timeout."""
        conn = self.database.connect(self.database.superuser, autocommit=False)
        conn.execute("set deadlock_timeout = '10ms'")
        conn.commit()
        return conn

    def note(self, error: psycopg.Error) -> None:
        """Count what went wrong: at the end nothing may have but what is expected."""
        self.errors[error.sqlstate or type(error).__name__] += 1


class StormWorker:
    """A worker that runs `a`, a wait with a time-out, `b` in a transaction of the user, `c`; and dies at random."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.storm = storm
        self.random = random.Random(storm.seed * 100 + number)
        self.conn = storm.connect()
        self.worker: Worker | None = None
        self.beat_at = 0.0
        self.claims = 0
        self.dies_at = number + 2  # this one dies for certain; others may

    def register(self) -> Worker:
        worker = Worker(self.storm.database, conn=self.conn, lease=LEASE, queues=["default", "slow"])
        self.conn.commit()
        return worker

    def commit(self) -> None:
        """Commit, or lose the connection before it; 3 % of all transactions do."""
        if self.random.random() < 0.03:
            self.conn.rollback()
            raise RolledBack
        self.conn.commit()

    def again(self, do: Callable[[], Row]) -> Row:
        """Make a call until it is neither busy nor rolled back; sometimes its answer is lost and it is made twice."""
        while True:
            try:
                row = do()
                self.commit()
            except RolledBack:
                continue
            if row["answer"] == "busy":
                self.storm.counted["busy"] += 1
                time.sleep(0.002)
                continue
            if self.random.random() < 0.05:  # the answer of the COMMIT was lost
                self.storm.counted["twice"] += 1
                twin = do()
                self.conn.commit()
                if twin["answer"] == "busy":
                    continue
                if (row["answer"], twin["answer"]) not in (
                    ("saved", "on_record"),
                    ("suspended", "done"),
                    ("suspended", "lost"),
                ):
                    assert twin["answer"] in (row["answer"], "lost", "ended"), (row, twin)
                if twin["answer"] == "lost":
                    return twin
            return row

    def live(self) -> None:
        """Work until nothing is left."""
        while not self.storm.is_empty.is_set():
            self.survive(self.round)

    def survive(self, do: Callable[[], None]) -> None:
        """Do it, and after whatever went wrong drop all and register anew."""
        try:
            do()
        except RolledBack:
            pass
        except psycopg.Error as error:
            self.conn.rollback()
            if error.sqlstate != "PD002":
                self.storm.note(error)
            self.storm.counted["registered"] += 1
            self.worker = None

    def round(self) -> None:
        """Claim some runs and take them as far as they go."""
        if self.worker is None:
            self.worker = self.register()
        worker = self.worker
        if time.monotonic() - self.beat_at > 0.3:
            worker.beat()
            self.conn.commit()
            self.beat_at = time.monotonic()
        held = worker.claim(self.random.choice((1, 3, 10)))
        try:
            self.commit()
        except RolledBack:
            return
        if not held:
            time.sleep(0.005)
        self.claims += bool(held)
        for each in held:
            if self.claims == self.dies_at or (not self.storm.is_over.is_set() and self.random.random() < 0.02):
                self.claims += 1
                self.become_a_zombie(worker, held)
                return
            self.execute(worker, each)

    def become_a_zombie(self, worker: Worker, held: list[Held]) -> None:
        """Be silent until declared dead; then go on all the same: nothing of it may take effect."""
        self.storm.counted["zombies"] += 1
        give_up_at = time.monotonic() + 15
        onlooker = self.storm.connect()
        while time.monotonic() < give_up_at:
            row = onlooker.execute(
                "select exists (select from perdure.worker where worker_id = %s)", [worker.worker_id]
            ).fetchone()
            onlooker.commit()
            if row == (False,):
                break
            time.sleep(0.05)
        onlooker.close()
        for late in (
            lambda: worker.save(held[0], "zombie"),
            lambda: worker.complete(held[0], "zombie"),
            lambda: worker.suspend(held[-1], {"key": "z", "kind": "sleep"}),
            lambda: worker.transaction_step(held[-1], "zombie"),
        ):
            with pytest.raises(psycopg.Error) as lost:
                late()
            assert lost.value.sqlstate == "PD002"
            self.conn.rollback()
        self.worker = None

    def execute(self, worker: Worker, held: Held) -> None:
        """Run the workflow from its checkpoints; each key is reserved in program order."""
        done = {step["key"] for step in held.steps}
        cancelled = held.cancel is not None
        for key in ("a", "paid", "b", "c"):
            if key in done:
                continue
            if cancelled:
                break
            if key == "paid":
                row = self.wait(worker, held)
                if row["answer"] != "answered":
                    return
                held.ordinal = row["checkpoint"]["ordinal"]
                cancelled = row["checkpoint"]["kind"] == "cancel"
            elif key == "b":
                if not self.transaction_step(worker, held):
                    return
            elif not self.step(worker, held, key):
                return
        if cancelled and "undo" not in done and not self.step(worker, held, "undo"):
            return
        if self.random.random() < 0.1:
            end = "fail_runs", held.named(error={"type": "Unlucky", "message": "so it goes"})
        else:
            end = "complete_runs", held.named(result={"n": 1})
        row = self.again(lambda: worker.call(end[0], ends=[end[1]])[0])
        self.storm.counted[row["answer"]] += 1

    def step(self, worker: Worker, held: Held, key: str) -> bool:
        save = held.named(**held.save(key))
        return str(self.again(lambda: worker.call("save_steps", saves=[save])[0])["answer"]) in ("saved", "on_record")

    def wait(self, worker: Worker, held: Held) -> Row:
        """Suspend; the user's time-out is short, and some look first."""
        until = "infinity" if self.random.random() < 0.5 else None
        waits: list[dict[str, Any]] = [{"key": "paid", "kind": "signal", "name": "paid", "until": until}]
        if until is None:
            row = self.conn.execute(
                "select perdure._now() + make_interval(secs => %s)", [self.random.random()]
            ).fetchone()
            assert row is not None
            waits[0]["until"] = row[0].isoformat()
        saves = []
        if self.random.random() < 0.3:
            saves.append(held.save("extra"))
        suspension = held.named(waits=waits, saves=saves, after=held.ordinal)
        if self.random.random() < 0.2:
            looked = self.again(lambda: worker.call("suspend_runs", suspensions=[suspension], keep=True)[0])
            if looked["answer"] != "waiting":
                return looked
        return self.again(lambda: worker.call("suspend_runs", suspensions=[suspension])[0])

    def transaction_step(self, worker: Worker, held: Held) -> bool:
        """Write a row of the user's and the checkpoint in one commit."""
        save = held.named(key="b", kind="transaction", ordinal=held.ordinal + 1, result=None)
        while True:
            try:
                self.conn.execute("insert into public.ledger values (%s)", [held.run_id])
                worker.call("save_transaction_step", save=save)
                self.commit()
            except RolledBack:
                continue
            except psycopg.errors.LockNotAvailable:
                self.conn.rollback()
                continue
            except psycopg.Error as error:
                self.conn.rollback()
                if error.sqlstate != "PD002":
                    raise
                return False
            held.ordinal += 1
            return True


def client(storm: Storm, number: int) -> None:
    """Start, signal, cancel, pause, resume, terminate, retry; leave the transaction open for a random time."""
    chance = random.Random(storm.seed * 1000 + number)
    conn = storm.connect()
    while not storm.is_over.is_set():
        made: list[UUID] = []
        try:
            for _ in range(chance.randint(1, 4)):
                one_act(storm, conn, chance, made)
            time.sleep(chance.choice((0, 0, 0.01, 0.05, 0.3)))
            if chance.random() < 0.1:
                conn.rollback()
                made = []
            else:
                conn.commit()
            storm.started += made
        except psycopg.Error as error:
            conn.rollback()
            if error.sqlstate not in ("PD003", "PD009", "PD001"):
                storm.note(error)


def one_act(storm: Storm, conn: Connection, chance: random.Random, made: list[UUID]) -> None:
    if not storm.started or chance.random() < 0.35:
        [row] = call(conn, "start", workflow="order", queue=chance.choice(("default", "slow")))
        made.append(row["start"])
        return
    run_id = chance.choice(storm.started[-60:])
    what = chance.choices(("signal", "cancel", "pause", "resume", "terminate", "retry"), weights=(60, 6, 8, 14, 2, 4))[
        0
    ]
    if what == "signal":
        call(conn, "signal", run_id=run_id, name="paid")
    elif what == "retry":
        call(conn, "retry_many", run_ids=[run_id])
    else:
        call(conn, f"{what}_many", run_ids=[run_id])


def ticker(storm: Storm) -> None:
    conn = storm.connect()
    conn.autocommit = True
    while not storm.is_empty.is_set():
        try:
            conn.execute("select perdure.tick()")
        except psycopg.Error as error:
            storm.note(error)
        time.sleep(0.02)


def in_thread(storm: Storm, work: Callable[..., None], *arguments: Any) -> threading.Thread:
    def guarded() -> None:
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - it is counted, and none may be left
            storm.errors[f"{type(error).__name__}: {error}"] += 1

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_storm_leaves_every_run_ended_and_every_step_once(database: Database) -> None:
    database.admin.execute("create table public.ledger (run_id uuid)")
    database.admin.execute("select perdure.put_workflow('order'), perdure.put_queue('slow')")
    with_no_grace(database)
    storm = Storm(database, seed=int(time.time()))
    workers = [in_thread(storm, StormWorker(storm, number).live) for number in range(WORKERS)]
    tickers = [in_thread(storm, ticker, storm) for _ in range(TICKERS)]
    clients = [in_thread(storm, client, storm, number) for number in range(CLIENTS)]

    time.sleep(SECONDS)
    storm.is_over.set()
    for thread in clients:
        thread.join(timeout=10)
    # no time-out will come for some, and some are paused: tell them
    for statement in (
        "select count(*) from perdure.resume_many(array(select run_id from perdure.dispatch))",
        "select count(*) from (select perdure.signal(run_id, 'paid') from perdure.dispatch) as s",
    ):
        database.admin.execute(statement)
    try:
        database.wait_until("select not exists (select from perdure.dispatch)", seconds=60)
    finally:
        storm.is_empty.set()
        for thread in workers + tickers:
            thread.join(timeout=10)

    assert storm.errors == Counter(), "no deadlock, no conflict, nobody waited for too long"
    assert (
        database.value("select string_agg(concat_ws(' ', invariant, run_id, detail), ', ') from perdure.violations")
        is None
    )
    assert database.value("select count(*) from perdure.run") == len(storm.started)
    assert database.value("select count(*) from perdure.outcome") == len(storm.started) > 50
    # the steps of those that completed are exact; the ledger agrees with the checkpoints, for all
    assert (
        database.value(
            "select count(*) from perdure.outcome as o where o.status = 'completed' and (select count(*) from perdure.step "
            "as s where s.run_id = o.run_id and s.key in ('a', 'paid', 'b', 'c')) <> 4"
        )
        == 0
    )
    assert (
        database.value(
            "select count(*) from (select run_id from public.ledger except all "
            "select run_id from perdure.step where key = 'b') as x"
        )
        == 0
    )
    assert (
        database.value(
            "select count(*) from (select run_id from perdure.step where key = 'b' except all "
            "select run_id from public.ledger) as x"
        )
        == 0
    )
    assert database.value("select count(*) from perdure.step where key in ('zombie', 'z')") == 0
    assert database.value("select count(*) from perdure.wake") == 0
    assert {"zombies", "done"} <= set(storm.counted), "it was no storm"
