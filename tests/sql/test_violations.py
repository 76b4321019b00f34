"""Each invariant of the engine is watched: broken by hand it is seen, and nothing is seen in a busy database."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from psycopg import Error
from typing_extensions import LiteralString

from support.database import Database
from support.engine import Connection, Worker, a_run, act, call, drain, scalar, signal, start, wait, with_no_grace

Broken = set[tuple[str, UUID | None]]


def violations(database: Database) -> Broken:
    return set(database.admin.execute("select invariant, run_id from perdure.violations").fetchall())


def invariants(database: Database) -> list[str]:
    return [row[0] for row in database.admin.execute("select invariant from perdure._invariants").fetchall()]


def execute(database: Database, *statements: LiteralString) -> None:
    """Break something as nobody but the owner can."""
    for statement in statements:
        database.admin.execute(statement)


def suspended(database: Database, *waits: Any, **options: Any) -> UUID:
    worker, held = a_run(database, **options)
    assert worker.suspend(held, *waits) == "suspended"
    return held.run_id


def break_a_run_is_unfinished_or_ended(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "delete from perdure.dispatch")
    return run_id


def break_an_ended_run_is_not_dispatched(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(
        database,
        "insert into perdure.outcome (run_id, status, result, finished_at) "
        "select d.run_id, 'completed', '1', now() from perdure.dispatch as d",
    )
    return run_id


def break_what_is_kept_belongs_to_a_run(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database)
    worker.save(held, "reserve")
    execute(database, "delete from perdure.run")
    return held.run_id


def break_a_run_has_options_that_a_start_takes(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "update perdure.run set headers = '[]'")
    return run_id


def break_a_dispatch_row_agrees_with_its_run(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "update perdure.dispatch set queue = 'other'")
    return run_id


def break_a_held_run_has_a_token(database: Database, conn: Connection) -> UUID | None:
    _, held = a_run(database)
    execute(database, "update perdure.dispatch set claim = null")
    return held.run_id


def break_a_held_run_waits_for_nothing(database: Database, conn: Connection) -> UUID | None:
    _, held = a_run(database)
    execute(database, "update perdure.dispatch set waits = '[]'")
    return held.run_id


def break_a_cancel_is_a_way_to_end_in_time(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "update perdure.dispatch set cancel = 'cancelled'")
    return run_id


def break_a_key_names_its_run(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn, key="o-1")
    execute(database, "update perdure.run_key set key = 'o-2'")
    return run_id


def break_a_suspended_run_can_be_woken(database: Database, conn: Connection) -> UUID | None:
    run_id = suspended(database, wait("nap", "sleep", until="2100-01-01"))
    execute(database, "update perdure.dispatch set ready_at = 'infinity', waits = null")
    return run_id


def break_what_a_run_waits_for_is_known(database: Database, conn: Connection) -> UUID | None:
    run_id = suspended(database, wait("nap", "sleep", until="2100-01-01"), wait("paid"))
    execute(database, """update perdure.dispatch set waits = jsonb_set(waits, '{0,until}', '"2100-01-01 or so"')""")
    return run_id


def break_a_wait_ends_in_time(database: Database, conn: Connection) -> UUID | None:
    run_id = suspended(database, wait("nap", "sleep", until="2100-01-01"))
    execute(database, "update perdure.dispatch set ready_at = '2101-01-01'")
    return run_id


def break_a_message_wakes_its_run(database: Database, conn: Connection) -> UUID | None:
    run_id = suspended(database, wait("paid"))
    signal(conn, run_id, "paid")
    execute(database, "delete from perdure.wake")
    return run_id


def break_a_cancel_wakes_its_run(database: Database, conn: Connection) -> UUID | None:
    run_id = suspended(database, wait("paid"))
    execute(database, "update perdure.dispatch set cancel = 'cancelled', ends_at = now() + interval '1 hour'")
    return run_id


def break_an_act_wakes_its_run(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    act(conn, "pause", run_id)
    execute(database, "delete from perdure.wake")
    return run_id


def break_a_wake_is_drained_soon(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    signal(conn, run_id)
    database.clock.advance(minutes=2)
    return run_id


def break_a_deadline_is_kept(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn, deadline="2030-01-01")
    database.clock.stop("2030-01-01 00:06")
    return run_id


def break_a_successor_waits_for_a_run(database: Database, conn: Connection) -> UUID | None:
    start(conn, key="o-1")
    run_id = start(conn, key="o-1", on_duplicate="replace")
    execute(database, "update perdure.dispatch set ready_at = now() where predecessor_id is not null")
    return run_id


def break_a_successor_is_freed_soon(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database, key="o-1")
    run_id = start(conn, key="o-1", on_duplicate="replace")
    worker.complete(held)
    execute(database, "delete from perdure.wake")
    database.clock.advance(minutes=2)
    return run_id


def break_a_claim_belongs_to_a_live_worker(database: Database, conn: Connection) -> UUID | None:
    _, held = a_run(database)
    with_no_grace(database)
    database.clock.advance(minutes=3)
    return held.run_id


def break_a_claim_is_used_once(database: Database, conn: Connection) -> UUID | None:
    _, held = a_run(database)
    a_run(database)
    execute(database, "update perdure.dispatch set claim = '00000000-0000-4000-8000-000000000000'")
    return held.run_id


def break_a_worker_reports_its_runs(database: Database, conn: Connection) -> UUID | None:
    worker, _ = a_run(database)
    database.clock.advance(minutes=1)
    for _ in range(10):
        worker.beat(0)
    return None


def break_a_worker_has_a_heartbeat(database: Database, conn: Connection) -> UUID | None:
    Worker(database)
    execute(database, "delete from perdure.worker_beat")
    return None


def break_only_a_claimed_run_is_told(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "update perdure.dispatch set told_at = now()")
    return run_id


def break_a_run_dies_after_its_last_recovery(database: Database, conn: Connection) -> UUID | None:
    run_id = start(conn)
    execute(database, "update perdure.dispatch set recoveries = 11")
    return run_id


def break_a_signal_is_consumed_once(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid")
    assert worker.suspend(held, wait("paid")) == "answered"
    execute(
        database,
        "drop index perdure.step_consumed_idx",
        "insert into perdure.step (run_id, key, kind, ordinal, name, result, signal_id, saved_at) "
        "select run_id, 'again', kind, ordinal + 1, name, result, signal_id, saved_at from perdure.step",
    )
    return held.run_id


def break_a_consumed_signal_was_sent(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database)
    signal(conn, held.run_id, "paid")
    assert worker.suspend(held, wait("paid")) == "answered"
    execute(database, "delete from perdure.signal")
    return held.run_id


def break_ordinals_of_a_run_differ(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database)
    worker.save(held, "one")
    worker.save(held, "two")
    execute(database, "update perdure.step set ordinal = 1")
    return held.run_id


def break_an_exhausted_step_is_on_record(database: Database, conn: Connection) -> UUID | None:
    worker, held = a_run(database)
    worker.fail_step(held, "charge", 1, policy={"max_attempts": 1})
    execute(database, "delete from perdure.step")
    return held.run_id


def break_the_install_has_one_row(database: Database, conn: Connection) -> UUID | None:
    execute(database, "delete from perdure.install")
    return None


def break_partitions_are_cut_alike(database: Database, conn: Connection) -> UUID | None:
    execute(database, "drop table perdure.act_old")
    return None


def break_tables_are_granted_to_nobody(database: Database, conn: Connection) -> UUID | None:
    execute(database, "grant select on perdure.run to public")
    return None


BREAKERS: dict[str, Callable[[Database, Connection], UUID | None]] = {
    name.removeprefix("break_"): found for name, found in sorted(globals().items()) if name.startswith("break_")
}


@pytest.mark.parametrize("invariant", BREAKERS)
def test_a_broken_invariant_is_seen(database: Database, conn: Connection, invariant: str) -> None:
    run_id = BREAKERS[invariant](database, conn)
    assert (invariant, run_id) in violations(database)
    counted = dict(conn.execute("select * from perdure.selftest()").fetchall())
    assert counted[invariant] >= 1
    assert all(count == 0 for name, count in counted.items() if name not in {n for n, _ in violations(database)})


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("a_run_has_options_that_a_start_takes", "update perdure.run set tags = '7'"),
        ("a_run_has_options_that_a_start_takes", "update perdure.run set timeout = '1 hour', deadline = '2100-01-01'"),
        (
            "a_run_has_options_that_a_start_takes",
            "with r as (update perdure.run set priority = 6) update perdure.dispatch set priority = 6",
        ),
        ("a_cancel_is_a_way_to_end_in_time", "update perdure.dispatch set cancel = 'late', ends_at = '2100-01-01'"),
        ("what_a_run_waits_for_is_known", "update perdure.dispatch set waits = '7'"),
        ("what_a_run_waits_for_is_known", """update perdure.dispatch set waits = '{"kind": "signal"}'"""),
    ],
)
def test_what_no_check_of_a_table_refuses_is_seen(
    database: Database, conn: Connection, invariant: str, damage: LiteralString
) -> None:
    run_id = start(conn)
    execute(database, damage)
    assert (invariant, run_id) in violations(database)


def test_every_invariant_is_broken_by_a_test(database: Database) -> None:
    assert sorted(invariants(database)) == sorted(BREAKERS)


def test_the_view_knows_the_same_invariants_as_the_list(database: Database) -> None:
    definition: str = database.value("select pg_get_viewdef('perdure.violations'::regclass)")
    assert set(re.findall(r"SELECT(?: DISTINCT)? '(\w+)'::text", definition)) == set(invariants(database))


def test_the_selftest_has_a_row_for_each_invariant(database: Database, conn: Connection) -> None:
    counted = conn.execute("select * from perdure.selftest()").fetchall()
    assert {name for name, _ in counted} == set(invariants(database))
    assert {count for _, count in counted} == {0}


def test_a_late_look_at_a_run_that_nobody_wakes_is_no_violation(database: Database, conn: Connection) -> None:
    suspended(database, wait("paid"))
    start(conn, start_at="infinity")
    paused = suspended(database, wait("nap", "sleep", until="2100-01-01"))
    act(conn, "pause", paused)
    drain(conn)
    database.clock.advance(hours=10)
    assert violations(database) == set()


# ------------------------------------------------------------------------------------------------ a busy database


@dataclass(frozen=True)
class Bustle:
    """What the others do while somebody looks: how much of it each has done, and whether it is over."""

    done: dict[int, int]
    is_over: threading.Event = field(default_factory=threading.Event)


def drive(database: Database, bustle: Bustle, seed: int) -> None:
    """Be a worker that does all that a worker does, and now and then dies without a word."""
    rng = random.Random(seed)
    while not bustle.is_over.is_set():
        worker = Worker(database, conn=database.connect(), name=f"worker {seed}")
        while not bustle.is_over.is_set() and rng.random() > 0.02:
            for held in worker.claim(rng.choice((1, 5))):
                bustle.done[seed] += 1
                live_a_little(worker, held, rng)
            worker.beat(len(worker.runs()))
        if rng.random() < 0.5:
            worker.stop()
        else:
            fall_silent(database, worker)


def live_a_little(worker: Worker, held: Any, rng: random.Random) -> None:
    if held.cancel is not None:
        worker.fail(held)
        return
    worker.save(held, f"step {held.ordinal}")
    if rng.random() < 0.2:
        worker.fail_step(held, f"charge {held.ordinal}", 1, policy={"max_attempts": rng.choice((1, 3)), "delay": 0})
        return  # the worker forgets it: it is taken back when the worker stops or dies
    choice = rng.random()
    if choice < 0.5:
        worker.suspend(
            held, wait(f"paid {held.ordinal}", name="paid"), wait(f"nap {held.ordinal}", "timer", until="2100-01-01")
        )
    elif choice < 0.6:
        worker.release(held, pause_reason=rng.choice((None, "look")))
    elif choice < 0.9:
        worker.complete(held, {"n": 1})
    else:
        worker.fail(held)


def fall_silent(database: Database, worker: Worker) -> None:
    database.connect().execute(
        "update perdure.worker_beat set beat_at = now() - interval '31 seconds' where worker_id = %s",
        [worker.worker_id],
    )


def disturb(database: Database, bustle: Bustle, seed: int) -> None:
    """Be a client and an operator: start, signal, replace, cancel, pause, resume, retry, sometimes rolled back."""
    rng = random.Random(seed)
    conn = database.connect(autocommit=False)
    started: list[UUID] = []
    while not bustle.is_over.is_set():
        with suppress(Error), conn.transaction(force_rollback=rng.random() < 0.1):  # a rival may have the same keys
            ask_this_and_that(conn, started, rng)
        bustle.done[seed] = len(started)


def ask_this_and_that(conn: Connection, started: list[UUID], rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3))):
        rule = rng.choice(("attach", "replace", "restart_if_finished"))
        started.append(start(conn, key=f"k-{rng.randrange(30)}", on_duplicate=rule))
        signal(conn, rng.choice(started[-40:]), "paid")
        asked = rng.choice(("cancel_many", "pause_many", "resume_many", "resume_many", "terminate_many", "retry_many"))
        call(conn, asked, run_ids=[rng.choice(started[-40:])])


def keep_ticking(database: Database, bustle: Bustle, seed: int) -> None:
    conn = database.connect()
    while not bustle.is_over.is_set():
        scalar(conn, "tick")
        bustle.done[seed] += 1


def test_a_busy_database_has_no_violation_in_any_snapshot(database: Database, conn: Connection) -> None:
    with_no_grace(database)
    looking = database.connect(database.superuser)
    parts = (drive, drive, disturb, disturb, keep_ticking)
    bustle = Bustle(dict.fromkeys(range(len(parts)), 0))
    begun_at = time.monotonic()
    looks = 0
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [pool.submit(part, database, bustle, seed) for seed, part in enumerate(parts)]
        try:
            while time.monotonic() < begun_at + 6 or min(bustle.done.values()) < 3 or looks < 3:
                assert looking.execute("select * from perdure.violations").fetchall() == []
                looks += 1
                assert time.monotonic() < begun_at + 120, f"it was not busy: {bustle.done}"
        finally:
            bustle.is_over.set()
        for each in running:
            each.result()
