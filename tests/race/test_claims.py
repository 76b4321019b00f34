"""Claimers, drainers and batches that meet on the same rows: they pass each other, and nobody gets what another has."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from psycopg.types.json import Jsonb

from support.database import Database, in_background
from support.engine import Connection, Worker, act, call, drain, keys, outcome, signal, start, state, wait


def test_two_claimers_of_a_lane_never_share_a_run(database: Database, conn: Connection) -> None:
    run_ids = [start(conn) for _ in range(5)]
    first, second = (Worker(database, conn=database.connect(autocommit=False)) for _ in range(2))
    for each in (first, second):
        each.conn.commit()
        each.conn.execute("set lock_timeout = '50ms'")
    got = [held.run_id for held in first.claim(3)]
    rest = [held.run_id for held in second.claim(5)]
    assert (got, rest) == (run_ids[:3], run_ids[3:])
    first.conn.rollback()
    assert [held.run_id for held in second.claim(5)] == run_ids[:3], "a claim that was rolled back never was"


def test_a_claim_locks_no_more_than_it_takes(database: Database, conn: Connection) -> None:
    for priority in (5, 3, 1):
        start(conn, priority=priority)
    first, second = (Worker(database, conn=database.connect(autocommit=False)) for _ in range(2))
    for each in (first, second):
        each.conn.commit()
    taken = first.claim(1)
    assert len(taken) == 1
    # a probe of a lower lane may lock one row more, in one claim of eight for each lane
    locked = 3 - len(second.claim(3))
    assert 1 <= locked <= 3


def test_each_of_many_runs_is_claimed_once(database: Database, conn: Connection) -> None:
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(300)])
    workers = [Worker(database) for _ in range(4)]

    def work(worker: Worker) -> list[object]:
        mine: list[object] = []
        while held := worker.claim(7):
            mine += [each.run_id for each in held]
        return mine

    with ThreadPoolExecutor(4) as pool:
        claimed = [run_id for mine in pool.map(work, workers) for run_id in mine]
    left = Worker(database).claim(300)  # two claimers may both pass a row that the other has just let go
    counted = Counter(claimed + [held.run_id for held in left])
    assert len(counted) == 300 and set(counted.values()) == {1}
    assert not left, "an empty answer means that there is nothing"


def test_two_drainers_pass_each_other(database: Database, conn: Connection, session: object) -> None:
    first, second = session(), session()  # type: ignore[operator]
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w"))
    signal(conn, held.run_id, "w")
    assert drain(first) == (1, 0)
    assert drain(second) == (0, 1), "it is in the first one's hands"
    first.rollback()
    second.rollback()
    assert database.value("select count(*) from perdure.wake") == 1, "a wake outlives a drain that failed"
    assert drain(second) == (1, 0)
    second.commit()
    assert worker.claim_one().run_id == held.run_id


def test_a_wake_that_comes_during_a_drain_is_left_for_the_next(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w"))
    signal(conn, held.run_id, "other")
    drainer = database.connect(autocommit=False)
    assert drain(drainer) == (1, 0)
    signal(conn, held.run_id, "w")
    drainer.commit()
    assert database.value("select count(*) from perdure.wake") == 1
    assert worker.claim_one().run_id == held.run_id


def locked_by_a_drain(database: Database, conn: Connection, run_id: object) -> Connection:
    """A session in whose open transaction a drain holds the run's row."""
    scalar = conn.execute("select perdure.signal(%s, 'x')", [run_id]).fetchone()
    assert scalar == ("accepted",)
    holder = database.connect(autocommit=False)
    assert drain(holder)[0] == 1
    return holder


def test_one_locked_row_keeps_no_other_of_its_batch_waiting(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    worker.conn.execute("set lock_timeout = '50ms'")
    for _ in range(3):
        start(conn)
    batch = worker.claim(3)
    one, locked, two = batch
    holder = locked_by_a_drain(database, conn, locked.run_id)

    saved = worker.call("save_steps", saves=[held.named(**held.save("a")) for held in batch])
    assert {row["run_id"]: row["answer"] for row in saved} == {
        one.run_id: "saved",
        locked.run_id: "busy",
        two.run_id: "saved",
    }
    tries = [
        held.named(key="t", kind="step", ordinal=9, attempt=1, error={"type": "E", "message": ""}, policy={})
        for held in batch
    ]
    failed = worker.call("fail_steps", tries=tries)
    assert sorted(row["answer"] for row in failed) == ["busy", "retry", "retry"]
    suspended = worker.call("suspend_runs", suspensions=[held.named(waits=[wait("w")]) for held in (one, locked)])
    assert sorted(row["answer"] for row in suspended) == ["busy", "suspended"]
    ended = worker.call("complete_runs", ends=[held.named() for held in (locked, two)])
    assert sorted(row["answer"] for row in ended) == ["busy", "done"]
    released = worker.call("release_runs", releases=[locked.named(saves=[{"key": "b", "kind": "step", "ordinal": 2}])])
    assert [row["answer"] for row in released] == ["busy"]
    assert keys(database, locked.run_id) == [], "busy means that nothing was done"

    holder.commit()
    assert worker.save(locked, "a") == "saved"
    assert worker.complete(locked) == "done"


def test_a_run_that_ends_while_its_rival_call_is_under_way_is_busy_then_done(
    database: Database, conn: Connection
) -> None:
    """The first call's connection broke after it had been sent; its backend is still at work."""
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    first = database.connect(autocommit=False)
    assert worker.on(first).complete(held, {"n": 1}) == "done"
    assert worker.complete(held, {"n": 1}) == "busy"
    assert worker.save(held, "a") == "busy"
    first.commit()
    assert worker.complete(held, {"n": 1}) == "done"
    assert worker.save(held, "a") == "lost"
    assert outcome(database, held.run_id) == "completed"


def test_parallel_saves_of_one_run_do_not_meet(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    first, second = (database.connect(autocommit=False) for _ in range(2))
    assert worker.on(first).save(held, "a") == "saved"
    assert worker.on(second).save(held, "b") == "saved"
    first.commit()
    second.commit()
    assert keys(database, held.run_id) == ["a", "b"]


def test_a_stopped_worker_burns_nothing_although_a_drain_holds_its_run(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = start(conn)
    worker.claim_one()
    holder = locked_by_a_drain(database, conn, run_id)
    stopping = in_background(worker.stop)
    database.wait_until(
        "select exists (select from pg_stat_activity where pid = %s and wait_event = 'PgSleep')",
        worker.conn.info.backend_pid,
    )
    holder.commit()
    assert stopping.result(timeout=10) == 1
    conn.execute("select perdure.recover()")
    assert state(database, run_id) == "ready"
    assert database.value("select recoveries from perdure.dispatch") == 0


def test_a_tick_in_a_longer_transaction_keeps_no_sender_waiting(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    fill_wake(conn)
    ticker = database.connect(autocommit=False)
    ticker.execute("select 1")
    ticker.execute("select perdure.tick()")
    conn.execute("set lock_timeout = '50ms'")
    signal(conn, run_id)


def test_ticks_in_one_long_statement_keep_no_sender_waiting(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    fill_wake(conn)
    gate, ticker = database.connect(), database.connect()
    gate.execute("select pg_advisory_lock(1)")
    ticking = in_background(
        ticker.execute, "do $$ begin perform perdure.tick(); perform pg_advisory_xact_lock(1); end $$"
    )
    database.wait_blocked(ticker, by=gate.info.backend_pid)
    conn.execute("set lock_timeout = '50ms'")
    signal(conn, run_id)
    gate.execute("select pg_advisory_unlock(1)")
    ticking.result(timeout=10)


def fill_wake(conn: Connection) -> None:
    """Leave nothing but dead rows in wake, more than are left alone."""
    conn.execute("insert into perdure.wake select gen_random_uuid(), perdure._now() from generate_series(1, 20000)")
    conn.execute("delete from perdure.wake")


def test_an_empty_wake_is_truncated(database: Database, conn: Connection) -> None:
    fill_wake(conn)
    conn.execute("call perdure.run_ticks(0)")
    assert database.value("select pg_relation_size('perdure.wake')") == 0


def test_truncation_never_loses_a_wake(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w"))
    fill_wake(conn)
    sender = database.connect(autocommit=False)
    signal(sender, held.run_id, "w")
    size = database.value("select pg_relation_size('perdure.wake')")
    conn.execute("call perdure.run_ticks(0)")
    assert database.value("select pg_relation_size('perdure.wake')") == size, "a sender is at work: nobody waits for it"
    sender.commit()
    assert conn.execute("select perdure.truncate_wake()").fetchone() == (False,), "a wake is there"
    assert worker.claim_one().run_id == held.run_id


def test_a_sender_during_the_truncation_waits_for_it_and_is_heard(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w"))
    fill_wake(conn)
    ticker = database.connect(autocommit=False)
    assert ticker.execute("select perdure.truncate_wake()").fetchone() == (True,)
    sending = in_background(signal, conn, held.run_id, "w")
    database.wait_blocked(conn, by=ticker.info.backend_pid)
    ticker.commit()
    assert sending.result(timeout=10) == "accepted"
    assert worker.claim_one().run_id == held.run_id


def test_a_message_that_comes_after_the_look_keeps_its_wake(database: Database, conn: Connection) -> None:
    """A drain deletes the wakes before it looks, never the other way: here it stops between the look and its end."""
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    worker.suspend(held, wait("w"))
    signal(conn, held.run_id, "other")
    database.admin.execute(
        "create or replace function perdure._free_successors(run_ids uuid[], now timestamptz) returns void "
        "language sql volatile set search_path = pg_catalog, pg_temp as $$ select from pg_advisory_xact_lock(7) $$"
    )
    holder = database.connect(autocommit=False)
    holder.execute("select pg_advisory_xact_lock(7)")
    drainer = database.connect()
    draining = in_background(drain, drainer)
    database.wait_blocked(drainer, by=holder.info.backend_pid)
    assert signal(conn, held.run_id, "w") == "accepted"
    holder.commit()
    assert draining.result(timeout=10) == (1, 0)
    assert worker.claim_one().run_id == held.run_id


def test_an_act_that_is_asked_during_a_drain_waits_for_the_next(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    act(conn, "pause", run_id)
    drainer = database.connect(autocommit=False)
    drain(drainer)
    assert act(conn, "resume", run_id) in ("accepted", "duplicate")
    drainer.commit()
    assert act(conn, "resume", run_id) in ("accepted", "duplicate")
    drain(conn)
    assert state(database, run_id) == "ready"


def test_an_act_whose_run_has_ended_is_answered_though_it_comes_during_the_drain(
    database: Database, conn: Connection
) -> None:
    """The drain looked for such acts already, and has their wakes yet to delete."""
    worker = Worker(database)
    run_id = start(conn)
    held = worker.claim_one()
    signal(conn, run_id, "other")
    client = database.connect(autocommit=False)
    assert act(client, "terminate", run_id) == "accepted"
    assert worker.complete(held) == "done"
    late = database.value("select pg_get_functiondef('perdure._drop_late_acts'::regproc)")
    assert late.count("end loop;") == 1
    database.admin.execute(late.replace("end loop;", "end loop; perform pg_advisory_xact_lock(7);"))
    holder = database.connect(autocommit=False)
    holder.execute("select pg_advisory_xact_lock(7)")
    drainer = database.connect()
    draining = in_background(drain, drainer)
    database.wait_blocked(drainer, by=holder.info.backend_pid)
    client.commit()
    holder.commit()
    draining.result(timeout=10)
    drain(conn)
    assert database.value("select answer from perdure.act") == "finished"
    assert database.value("select count(*) from perdure.wake") == 0
