"""cancel, terminate, pause, resume: one table of answers, judged at the call and again under the lock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    dispatch,
    drain,
    keys,
    outcome,
    signal,
    start,
    state,
    steps,
    unknown_run,
    wait,
)
from support.walk import OUTCOMES, STATES, bring

ACTS = ("cancel", "terminate", "pause", "resume", "retry")

# What a run is after an accepted act has been applied; whatever is not named here stays as it was.
AFTER = {
    "terminate": dict.fromkeys(STATES, "terminated"),
    "cancel": dict.fromkeys(STATES, "cancelling")
    | {"scheduled": "cancelled", "ready": "cancelled", "running": "running"},
    "pause": dict.fromkeys(STATES, "paused") | {"running": "running"},
    "resume": {"paused": "waiting"},
    "retry": dict.fromkeys(OUTCOMES, "ready"),
}


def rules(database: Database) -> Iterable[tuple[str, str, str, str | None]]:
    rows: Iterable[tuple[str, str, str, str | None]] = database.admin.execute(
        "select state, act, answer, error from perdure.act_rules order by state, act"
    ).fetchall()
    return rows


def test_every_state_answers_every_act_as_the_table_says(database: Database, conn: Connection) -> None:
    """Single and many, at the call and after it was applied under the lock."""
    walked = 0
    for named, what, answer, error in rules(database):
        if named == "continued":  # nothing ends so yet
            continue
        run_id = bring(database, conn, named)
        assert state(database, run_id) == named, named
        if error is None:
            assert act(conn, what, run_id) == answer, (named, what)
        else:
            with pytest.raises(psycopg.Error) as refused:
                act(conn, what, run_id)
            assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == (error, True), (named, what)
        drain(conn)
        expected = AFTER[what].get(named, named) if answer == "accepted" else named
        assert state(database, run_id) == expected, (named, what)

        other = bring(database, conn, named)
        assert call(conn, f"{what}_many", run_ids=[other]) == [{"run_id": other, "answer": answer}], (named, what)
        drain(conn)
        assert state(database, other) == expected, (named, what, "many")
        walked += 1
    assert walked == len(STATES + OUTCOMES) * len(ACTS)
    assert database.value("select count(*) from perdure.act where applied_at is null") == 0
    assert database.value("select count(*) from perdure.wake") == 0


def test_every_act_is_judged_again_under_the_lock(database: Database, conn: Connection) -> None:
    """Asked while it fitted; applied when the run is in each other state: done, or dropped with a note."""
    for named in STATES + OUTCOMES:
        for what in ("cancel", "terminate", "pause", "resume"):
            run_id = bring(database, conn, named)
            database.admin.execute(
                "insert into perdure.act (run_id, act_id, act, grace, asked_by, asked_at) "
                "values (%s, gen_random_uuid(), %s, '1 minute', 'somebody', perdure._now())",
                [run_id, what],
            )
            database.admin.execute("insert into perdure.wake values (%s, perdure._now())", [run_id])
            drain(conn)
            answer = database.value(
                "select answer from perdure.act where run_id = %s and asked_by = 'somebody'", run_id
            )
            expected = database.value("select answer from perdure.act_rules where state = %s and act = %s", named, what)
            assert answer == expected, (named, what)
            dropped = database.value(
                "select count(*) from perdure.audit where run_id = %s and act = %s", run_id, f"drop_{what}"
            )
            assert dropped == (answer != "accepted"), (named, what)
            now = state(database, run_id)
            assert now == (AFTER[what].get(named, named) if answer == "accepted" else named), (named, what)


def test_an_unknown_run_is_an_error_alone_and_an_answer_among_many(conn: Connection) -> None:
    for what in ACTS:
        with pytest.raises(psycopg.Error) as refused:
            act(conn, what, unknown_run())
        assert refused.value.sqlstate == "PD001"
        run_id = unknown_run()
        assert call(conn, f"{what}_many", run_ids=[run_id, run_id]) == [{"run_id": run_id, "answer": "unknown"}]


def test_an_act_that_is_rolled_back_was_never_asked(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    with conn.transaction(force_rollback=True):
        act(conn, "terminate", run_id)
    drain(conn)
    assert state(database, run_id) == "ready"
    assert database.value("select count(*) from perdure.audit where run_id = %s", run_id) == 0


def test_every_act_is_audited_with_its_reason(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    for what in ("pause", "resume", "cancel"):
        act(conn, what, run_id, reason=f"because of {what}")
        drain(conn)
    act(conn, "retry", run_id, reason="because of retry")
    found = database.admin.execute(
        "select act, reason from perdure.audit where run_id = %s order by done_at", [run_id]
    ).fetchall()
    assert found == [(what, f"because of {what}") for what in ("pause", "resume", "cancel", "retry")]


# --- cancel


def test_a_cancel_is_delivered_once_with_its_reason_and_the_run_may_clean_up(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("w"))
    act(conn, "cancel", held.run_id, reason="customer left")
    again = worker.claim_one()
    assert again.cancel == "cancelled"
    assert again.steps[-1]["key"] == "~cancel"
    assert again.steps[-1]["result"] == {"status": "cancelled", "reason": "customer left"}
    assert worker.save(again, "refund") == "saved"
    assert worker.suspend(again, wait("confirmed")) == "suspended", "it is delivered once"
    signal(conn, held.run_id, "confirmed")
    last = worker.claim_one()
    assert [step["key"] for step in last.steps] == ["~cancel", "refund", "confirmed"]
    assert worker.complete(last) == "cancelled"
    error = database.value("select error from perdure.outcome where run_id = %s", held.run_id)
    assert error["message"] == "customer left"


def test_a_sleep_within_the_clean_up_is_answered_by_the_next_claim(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker, held = a_run(database)
    worker.suspend(held, wait("w"))
    act(conn, "cancel", held.run_id)
    worker.suspend(worker.claim_one(), wait("pause", "sleep", until="2030-01-01 12:01+00"))
    database.clock.advance(minutes=1)
    assert [step["key"] for step in worker.claim_one().steps] == ["~cancel", "pause"]


def test_a_cancel_finds_a_running_run_at_its_next_wait(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "cancel", held.run_id)
    drain(conn)
    [told] = worker.beat()["runs"]
    assert (told["run_id"], told["cancel"], told["is_told"]) == (str(held.run_id), "cancelled", True)
    row = worker.suspend_row(held, wait("w"))
    assert (row["answer"], row["checkpoint"]["kind"], row["checkpoint"]["key"]) == ("answered", "cancel", "~cancel")


def test_a_run_that_never_began_is_cancelled_at_once(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    act(conn, "cancel", run_id)
    assert Worker(database).claim() == []
    assert outcome(database, run_id) == "cancelled"


@pytest.mark.parametrize("ends", ["complete", "fail"])
def test_a_run_that_was_cancelled_ends_so_whatever_it_returns(database: Database, conn: Connection, ends: str) -> None:
    worker, held = a_run(database)
    worker.save(held, "last")
    act(conn, "cancel", held.run_id, reason="too late?")
    assert getattr(worker, ends)(held) == "cancelled"
    assert keys(database, held.run_id) == ["last"]


def test_a_cancel_hard_ends_when_the_grace_is_over(database: Database, conn: Connection) -> None:
    database.clock.stop()
    worker, held = a_run(database)
    act(conn, "cancel", held.run_id, grace="10 minutes")
    drain(conn)
    database.clock.advance("9 minutes 59 seconds")
    worker.beat()
    conn.execute("select perdure.tick()")
    assert worker.save(held, "refund") == "saved"
    database.clock.advance(seconds=1)
    conn.execute("select perdure.tick()")
    assert outcome(database, held.run_id) == "cancelled"
    assert worker.save(held, "more") == "lost"
    assert worker.complete(held) == "cancelled"


@pytest.mark.parametrize("grace", [None, "0", "100 years"])
def test_any_grace_that_is_accepted_can_be_applied(database: Database, conn: Connection, grace: Any) -> None:
    worker, held = a_run(database)
    assert act(conn, "cancel", held.run_id, grace=grace) == "accepted"
    assert drain(conn) == (1, 0)
    assert dispatch(database, held.run_id)["cancel"] == "cancelled"
    assert worker.complete(held) == "cancelled"


@pytest.mark.parametrize("grace", ["-1 second", "200 years"])
def test_a_grace_that_nobody_can_apply_is_refused(conn: Connection, grace: str) -> None:
    run_id = start(conn)
    for name, arguments in (("cancel", {"run_id": run_id}), ("cancel_many", {"run_ids": [run_id]})):
        with pytest.raises(psycopg.Error) as refused:
            call(conn, name, **arguments, grace=grace)
        assert refused.value.sqlstate == "22023"


def test_a_cancel_wakes_a_run_whatever_it_waits_for(database: Database, conn: Connection) -> None:
    for name in ("sleeping", "waiting", "backing_off", "paused"):
        run_id = bring(database, conn, name)
        act(conn, "cancel", run_id)
        queue = database.value("select queue from perdure.run where run_id = %s", run_id)
        held = Worker(database, queues=[queue]).claim_one()
        assert (held.run_id, held.cancel) == (run_id, "cancelled"), name


# --- pause and resume


def test_nobody_gets_a_paused_run(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    act(conn, "pause", run_id)
    worker = Worker(database)
    assert worker.claim() == []
    act(conn, "resume", run_id)
    assert worker.claim_one().run_id == run_id


def test_a_pause_of_a_running_run_is_told_and_takes_hold_when_it_is_released(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    act(conn, "pause", held.run_id)
    drain(conn)
    [told] = worker.beat()["runs"]
    assert told["is_paused"] is True
    assert worker.save(held, "a") == "saved"
    assert worker.release(held) == "done"
    assert state(database, held.run_id) == "paused"
    assert worker.claim() == []


def test_a_running_run_that_was_paused_can_be_resumed_before_it_lets_go(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "pause", held.run_id)
    drain(conn)
    assert act(conn, "pause", held.run_id) == "duplicate"
    assert act(conn, "resume", held.run_id) == "accepted"
    assert worker.release(held) == "done"
    assert worker.claim_one().run_id == held.run_id


def test_a_running_run_that_was_cancelled_answers_a_second_cancel_as_duplicate(
    database: Database, conn: Connection
) -> None:
    _, held = a_run(database)
    act(conn, "cancel", held.run_id, reason="first")
    drain(conn)
    assert act(conn, "cancel", held.run_id, reason="second") == "duplicate"
    assert database.value("select count(*) from perdure.act") == 1


def test_a_worker_may_pause_what_it_cannot_go_on_with(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    assert worker.release(held, pause_reason="step conflict") == "done"
    assert state(database, held.run_id) == "paused"
    assert database.value("select reason from perdure.act where act = 'pause'") == "step conflict"
    act(conn, "resume", held.run_id)
    assert worker.claim_one().run_id == held.run_id


def test_a_pause_does_not_stop_a_run_from_ending(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    act(conn, "pause", held.run_id)
    assert worker.complete(held) == "done"
    assert outcome(database, held.run_id) == "completed"


def test_a_sleep_goes_on_while_its_run_is_paused(database: Database, conn: Connection) -> None:
    database.clock.stop("2030-01-01 12:00+00")
    worker, held = a_run(database)
    worker.suspend(held, wait("s", "sleep", until="2030-01-01 13:00+00"))
    act(conn, "pause", held.run_id)
    drain(conn)
    database.clock.advance(minutes=30)
    act(conn, "resume", held.run_id)
    assert worker.claim() == [], "not before its time"
    act(conn, "pause", held.run_id)
    drain(conn)
    database.clock.advance(hours=2)
    act(conn, "resume", held.run_id)
    assert [step["key"] for step in worker.claim_one().steps] == ["s"]


# --- several acts pending at the same time


@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        (("cancel", "terminate"), "terminated"),
        (("terminate", "cancel"), "terminated"),
        (("pause", "cancel"), "cancelling"),
        (("cancel", "pause"), "paused"),
        (("pause", "resume"), "waiting"),
        (("pause", "resume", "pause"), "paused"),
        (("pause", "terminate", "resume"), "terminated"),
    ],
)
def test_acts_that_are_pending_together_are_applied_in_the_order_asked(
    database: Database, conn: Connection, asked: tuple[str, ...], ends: str
) -> None:
    run_id = bring(database, conn, "waiting")
    with conn.transaction():
        for what in asked:
            act(conn, what, run_id)
    drain(conn)
    assert state(database, run_id) == ends
    assert database.value("select count(*) from perdure.act where applied_at is null") == 0


def test_an_act_that_is_pending_already_is_a_duplicate(database: Database, conn: Connection) -> None:
    run_id = bring(database, conn, "waiting")
    for what in ("pause", "cancel", "terminate"):
        assert [act(conn, what, run_id) for _ in range(2)] == ["accepted", "duplicate"]


def test_what_was_asked_of_an_ended_run_too_late_is_dropped(database: Database, conn: Connection) -> None:
    """The sender's transaction commits after the end: a retry must not meet its cancel."""
    worker, held = a_run(database)
    sender = database.connect(autocommit=False)
    assert act(sender, "cancel", held.run_id, reason="late") == "accepted"
    assert worker.fail(held) == "done"
    sender.commit()
    drain(conn)
    assert database.value("select answer from perdure.act") == "finished"
    assert database.value("select reason from perdure.audit where act = 'drop_cancel'") == "late"
    act(conn, "retry", held.run_id)
    again = worker.claim_one()
    assert again.cancel is None
    assert worker.complete(again) == "done"


def test_a_retry_drops_what_was_asked_of_the_former_life(database: Database, conn: Connection) -> None:
    """The same, with nobody to drain in between."""
    worker, held = a_run(database)
    sender = database.connect(autocommit=False)
    act(sender, "cancel", held.run_id)
    worker.fail(held)
    sender.commit()
    act(conn, "retry", held.run_id)
    assert worker.complete(worker.claim_one()) == "done"


def test_the_reason_of_the_cancel_that_counted_is_told(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    with conn.transaction():
        act(conn, "cancel", held.run_id, reason="first")
        act(conn, "pause", held.run_id)
        act(conn, "cancel", held.run_id, reason="second")
    assert worker.complete(held) == "cancelled"
    error = database.value("select error from perdure.outcome")
    assert error["message"] == "first"
    assert [step["key"] for step in steps(database, held.run_id)] == []


def many(run_ids: list[UUID], answer: str) -> list[dict[str, object]]:
    return [{"run_id": run_id, "answer": answer} for run_id in run_ids]


def test_many_runs_are_asked_in_one_statement_each_answered(database: Database, conn: Connection) -> None:
    run_ids = sorted(start(conn) for _ in range(30))
    worker, done = a_run(database, priority=1)
    worker.complete(done)
    unknown = unknown_run()
    answers = {
        row["run_id"]: row["answer"] for row in call(conn, "cancel_many", run_ids=[*run_ids, done.run_id, unknown])
    }
    assert answers == dict.fromkeys(run_ids, "accepted") | {done.run_id: "finished", unknown: "unknown"}
