"""One bad run stops nobody else: it is paused, with the reason, and what was asked for the others is done."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    act,
    call,
    dispatch,
    drain,
    outcome,
    signal,
    start,
    state,
    wait,
    with_no_grace,
)


def spoil_waits(database: Database, run_id: UUID) -> None:
    """Write what no function of the engine would: as after a restored table, a bad disk, a hand in the tables."""
    bad = Jsonb([1])
    database.admin.execute("update perdure.dispatch set waits = %s where run_id = %s", [bad, run_id])


def spoil_outcome(database: Database, run_id: UUID) -> None:
    """Let the run have ended already, so that no end of it can be written."""
    database.admin.execute(
        "insert into perdure.outcome (run_id, status, error, finished_at) values (%s, 'terminated', '{}', now())",
        [run_id],
    )


def set_aside(database: Database, run_id: UUID) -> str | None:
    """Why a run was set aside."""
    reason: str | None = database.value(
        "select reason from perdure.audit where act = 'set_aside' and run_id = %s order by audit_id limit 1", run_id
    )
    return reason


def three_runs(conn: Connection, **options: object) -> list[UUID]:
    return [start(conn, **options) for _ in range(3)]


def test_a_run_with_bad_waits_does_not_stop_claims(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    runs = three_runs(conn)
    for held in worker.claim(3):
        worker.suspend(held, wait("paid"))
    spoil_waits(database, runs[1])
    database.admin.execute("update perdure.dispatch set ready_at = '-infinity'")
    for run_id in (runs[0], runs[2]):
        signal(conn, run_id, "paid")
    assert {held.run_id for held in worker.claim(10)} == {runs[0], runs[2]}
    assert state(database, runs[1]) == "paused"
    assert "array of objects" in (set_aside(database, runs[1]) or "")
    assert "array of objects" in str(database.value("select reason from perdure.act where run_id = %s", runs[1]))


def test_a_run_with_bad_waits_is_told_of_and_hides_no_other(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    good, bad = (start(conn) for _ in range(2))
    for held in worker.claim(2):
        worker.suspend(held, wait("paid"))
    spoil_waits(database, bad)
    found = database.admin.execute("select invariant, run_id from perdure.violations").fetchall()
    assert ("what_a_run_waits_for_is_known", bad) in found
    assert {run_id for _, run_id in found} == {bad}
    assert [row[0] for row in database.admin.execute("select run_id from perdure.waits").fetchall()] == [good]
    assert call(conn, "explain", run_id=bad)
    assert database.value("select count(*) from perdure.runs") == 2


def test_a_run_with_bad_waits_does_not_stop_a_drain(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    runs = three_runs(conn)
    for held in worker.claim(3):
        worker.suspend(held, wait("paid"))
    spoil_waits(database, runs[1])
    for run_id in runs:
        signal(conn, run_id, "paid")
    assert drain(conn) == (3, 0)
    assert drain(conn) == (0, 0), "nothing is left to fail again"
    assert state(database, runs[1]) == "paused"
    assert {held.run_id for held in worker.claim(10)} == {runs[0], runs[2]}


def test_a_bad_act_does_not_stop_the_acts_of_others(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    runs = three_runs(conn)
    held = {each.run_id: each for each in worker.claim(3)}
    for run_id in runs:
        act(conn, "cancel", run_id)
    database.admin.execute("update perdure.act set grace = '294000 years' where run_id = %s", [runs[1]])
    assert drain(conn) == (3, 0)
    assert [dispatch(database, run_id)["cancel"] for run_id in runs] == ["cancelled", None, "cancelled"]
    assert database.value("select answer from perdure.act where run_id = %s and act = 'cancel'", runs[1]) == "failed"
    assert worker.beat()["runs"] != [], "its worker hears that it is paused"
    # a good act finds it again
    act(conn, "resume", runs[1])
    act(conn, "cancel", runs[1])
    drain(conn)
    assert dispatch(database, runs[1])["cancel"] == "cancelled"
    for each in held.values():
        worker.complete(each)
    assert database.value("select count(*) from perdure.violations") == 0


def test_a_run_that_cannot_end_does_not_stop_the_deadlines_of_others(database: Database, conn: Connection) -> None:
    database.clock.stop()
    runs = three_runs(conn, deadline=database.clock.now().replace(year=2090))
    spoil_outcome(database, runs[1])
    database.clock.stop(at="2091-01-01")
    assert call(conn, "tick")[0]["tick"]["overdue"] == 2
    assert [outcome(database, run_id) for run_id in runs] == ["timed_out", "terminated", "timed_out"]
    assert dispatch(database, runs[1])["is_paused"]
    assert call(conn, "tick")[0]["tick"]["overdue"] == 0, "it is not tried again with each tick"
    assert database.value("select count(*) from perdure.audit where act = 'set_aside'") == 1


def test_a_run_that_cannot_be_taken_back_does_not_stop_the_recovery_of_others(
    database: Database, conn: Connection
) -> None:
    with_no_grace(database)
    worker = Worker(database)
    runs = three_runs(conn)
    worker.claim(3)
    database.admin.execute("update perdure.dispatch set max_recoveries = 0 where run_id = %s", [runs[1]])
    spoil_outcome(database, runs[1])
    database.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01'")
    [row] = call(conn, "recover")
    assert row["recover"] == 2
    assert [dispatch(database, run_id)["worker_id"] for run_id in runs] == [None, None, None]
    assert dispatch(database, runs[1])["is_paused"]
    assert {held.run_id for held in Worker(database).claim(10)} == {runs[0], runs[2]}


def test_a_run_that_cannot_succeed_another_does_not_stop_other_successors(database: Database, conn: Connection) -> None:
    first = [start(conn, key=key) for key in "abc"]
    Worker(database).claim(3)
    heirs = [start(conn, key=key, on_duplicate="replace") for key in "abc"]
    bad = heirs[1]
    database.admin.execute(
        "create function perdure._check_not_bad(run_id uuid) returns boolean language plpgsql as $$ begin "
        f"if run_id = '{bad}' then raise exception 'bad' using errcode = '22000'; end if; return true; end $$"
    )
    database.admin.execute(
        "alter table perdure.dispatch add constraint not_bad "
        "check (predecessor_id is not null or perdure._check_not_bad(run_id))"
    )
    for run_id in first:
        act(conn, "terminate", run_id)
    call(conn, "tick")
    call(conn, "tick")
    assert [dispatch(database, run_id)["is_paused"] for run_id in heirs] == [False, True, False]
    assert {held.run_id for held in Worker(database).claim(10)} == {heirs[0], heirs[2]}


@pytest.mark.parametrize("code", ["53100", "42883", "40001", "XX000"])
def test_what_no_run_can_cause_is_no_runs_fault(database: Database, conn: Connection, code: str) -> None:
    """A full disk, a broken install, a conflict: everything fails, nothing is paused for it."""
    runs = three_runs(conn)
    for run_id in runs:
        act(conn, "cancel", run_id)
    database.admin.execute(
        "create or replace function perdure._apply_acts(run_ids uuid[]) returns void language plpgsql as "
        f"$$ begin raise exception 'not its fault' using errcode = '{code}'; end $$"
    )
    with pytest.raises(psycopg.Error) as raised:
        drain(conn)
    assert raised.value.sqlstate == code
    assert database.value("select count(*) from perdure.dispatch where is_paused") == 0
    assert database.value("select count(*) from perdure.wake") == 3
