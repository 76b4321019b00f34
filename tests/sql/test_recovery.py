"""recover: who is dead, who is not, what becomes of their runs, and how the run that kills its workers is found."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.database import Database, eventually
from support.engine import (
    Connection,
    Held,
    Worker,
    call,
    declare_dead,
    dispatch,
    outcome,
    start,
    state,
    steps,
    wait,
    with_no_grace,
)


def recover(conn: Connection) -> int:
    row = conn.execute("select perdure.recover()").fetchone()
    assert row is not None
    taken: int = row[0]
    return taken


@pytest.fixture
def stopped(database: Database) -> Database:
    """A database whose clock stands, long after its server was started."""
    with_no_grace(database)
    database.clock.stop()
    return database


def die(database: Database, worker: Worker) -> None:
    """Let a worker be silent for longer than its lease, whatever the clock says, and recover."""
    declare_dead(database, worker)


def test_a_worker_is_dead_when_its_lease_is_over(stopped: Database, conn: Connection) -> None:
    worker = Worker(stopped, lease="10 seconds")
    run_id = start(conn)
    worker.claim_one()
    stopped.clock.advance(seconds=10)
    assert recover(conn) == 0, "a beat as old as the lease is not older"
    stopped.clock.advance("1 microsecond")
    assert recover(conn) == 1
    assert state(stopped, run_id) == "ready"


def test_a_beat_renews_the_lease(stopped: Database, conn: Connection) -> None:
    worker = Worker(stopped, lease="10 seconds")
    start(conn)
    worker.claim_one()
    for _ in range(5):
        stopped.clock.advance(seconds=9)
        worker.beat(1)
        assert recover(conn) == 0


def test_a_worker_without_a_run_dies_too(stopped: Database, conn: Connection) -> None:
    Worker(stopped)
    stopped.clock.advance(minutes=1)
    assert recover(conn) == 0
    assert stopped.value("select count(*) from perdure.worker") == 0
    assert stopped.value("select count(*) from perdure.worker_beat") == 0


def test_a_direct_worker_whose_session_is_gone_is_dead_after_a_second_and_a_half(
    stopped: Database, conn: Connection
) -> None:
    worker = Worker(stopped, is_direct=True)
    start(conn)
    worker.claim_one()
    pid = worker.conn.info.backend_pid
    worker.conn.close()
    stopped.wait_until("select not exists (select from pg_stat_activity where pid = %s)", pid)
    stopped.clock.advance("1.5 seconds")
    assert recover(conn) == 0
    stopped.clock.advance("1 microsecond")
    assert recover(conn) == 1


def test_a_direct_worker_that_lost_its_session_and_beats_is_alive(stopped: Database, conn: Connection) -> None:
    worker = Worker(stopped, is_direct=True)
    start(conn)
    worker.claim_one()
    worker.conn.close()
    other = worker.on(stopped.connect())
    eventually(lambda: other.call("worker_lock")[0]["worker_lock"])
    stopped.clock.advance(seconds=5)
    assert recover(conn) == 0, "it holds its lock again"
    rival = stopped.connect()
    assert worker.on(rival).call("worker_lock")[0]["worker_lock"] is False


def test_a_worker_behind_a_pooler_is_judged_by_its_lease_alone(stopped: Database, conn: Connection) -> None:
    worker = Worker(stopped)
    start(conn)
    worker.claim_one()
    worker.conn.close()
    stopped.clock.advance(seconds=29)
    assert recover(conn) == 0
    stopped.clock.advance(seconds=2)
    assert recover(conn) == 1


def test_recovery_leaves_the_runs_of_others_alone(database: Database, conn: Connection) -> None:
    call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(6)])
    dead, alive = Worker(database), Worker(database)
    dead.claim(3)
    kept = alive.claim(3)
    die(database, dead)
    assert recover(conn) == 0, "a second recovery changes nothing"
    assert alive.runs() == {held.run_id for held in kept}
    assert alive.save(kept[0], "a") == "saved"
    assert len(Worker(database).claim(9)) == 3


def test_a_recovered_run_goes_on_from_its_checkpoints_with_the_same_queue_and_deadline(
    database: Database, conn: Connection
) -> None:
    run_id = start(conn, deadline="2099-01-01 00:00+00", priority=2)
    worker = Worker(database)
    held = worker.claim_one()
    worker.save(held, "a", {"n": 1})
    die(database, worker)
    again = Worker(database).claim_one()
    assert (again.run_id, [step["key"] for step in again.steps]) == (run_id, ["a"])
    assert again.row["deadline"] == held.row["deadline"]
    assert dispatch(database, run_id)["priority"] == 2


def test_a_suspended_run_has_no_worker_to_lose(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    run_id = start(conn)
    worker.suspend(worker.claim_one(), wait("w"))
    die(database, worker)
    assert state(database, run_id) == "waiting"
    assert dispatch(database, run_id)["recoveries"] == 0


@pytest.fixture
def watched(database: Database, conn: Connection) -> Database:
    """A database whose clock stands and where somebody has looked for deaths for a while."""
    database.clock.stop()
    assert recover(conn) == 0
    database.clock.advance(seconds=9)
    assert recover(conn) == 0
    return database


def test_nobody_is_declared_dead_right_after_a_restart(watched: Database, conn: Connection) -> None:
    Worker(watched)
    start(conn)
    Worker(watched).claim_one()
    for _ in range(2):  # each restart anew
        watched.admin.execute(
            "create or replace function perdure._server_started_at() returns timestamptz language sql stable parallel "
            f"restricted set search_path = pg_catalog, pg_temp as $$ select '{watched.clock.now()}'::timestamptz $$"
        )
        watched.clock.advance(hours=1)
        assert recover(conn) == 0, "the grace begins with the first look, however long the server took to come back"
        watched.clock.advance("4.9 seconds")
        assert recover(conn) == 0
    watched.clock.advance("0.1 seconds")
    assert recover(conn) == 1


def test_nobody_is_declared_dead_right_after_a_failover(watched: Database, conn: Connection) -> None:
    worker = Worker(watched, lease="3 seconds")
    start(conn)
    worker.claim_one()
    watched.clock.advance(seconds=9)
    fail_over(watched)
    assert recover(conn) == 0
    watched.clock.advance("2.9 seconds")
    assert recover(conn) == 0, "the grace is min(lease, 5 s)"
    watched.clock.advance("0.1 seconds")
    assert recover(conn) == 1


def fail_over(database: Database) -> None:
    timeline = database.value("select perdure._timeline()")
    database.admin.execute(
        "create or replace function perdure._timeline() returns integer language sql volatile parallel restricted "
        f"set search_path = pg_catalog, pg_temp as $$ select {timeline + 1} $$"
    )


def test_a_worker_of_an_earlier_timeline_changes_nothing(database: Database, conn: Connection) -> None:
    worker = Worker(database)
    start(conn)
    held = worker.claim_one()
    fail_over(database)  # to a standby that knew the claim, but perhaps not what was saved since then
    for refused in (
        lambda: worker.save(held, "lost"),
        lambda: worker.complete(held),
        lambda: worker.release(held),
        lambda: worker.claim(1),
        lambda: worker.beat(),
        lambda: worker.transaction_step(held, "booked"),
    ):
        with pytest.raises(psycopg.Error, match="is of timeline") as caught:
            refused()
        assert caught.value.sqlstate == "PD002"
    assert steps(database, held.run_id) == []
    assert worker.stop() == 1
    again = Worker(database).claim_one()
    assert again.run_id == held.run_id and again.row["recoveries"] == 0, "a failover is no death"


def test_a_beat_waits_for_no_standby_and_what_is_saved_after_it_does(database: Database) -> None:
    worker = Worker(database)
    start(worker.conn)
    held = worker.claim_one()
    level = "select current_setting('synchronous_commit')"
    with worker.conn.transaction():
        worker.conn.execute("set local synchronous_commit = 'remote_apply'")
        worker.beat()
        assert worker.conn.execute(level).fetchone() == ("off",)
        worker.save(held, "saved")
        assert worker.conn.execute(level).fetchone() == ("remote_apply",)
        worker.beat()
        assert worker.conn.execute(level).fetchone() == ("remote_apply",), "something is saved that must be kept"


def test_a_silence_that_nobody_watched_is_no_death(watched: Database, conn: Connection) -> None:
    """The host was frozen, or its clock was set forward by an hour: all beats are old, and nobody is dead of it."""
    silent, alive = Worker(watched), Worker(watched)
    for worker in (silent, alive):
        start(conn)
        worker.claim_one()
    watched.clock.advance(hours=1)
    assert recover(conn) == 0
    watched.clock.advance("4.9 seconds")
    assert recover(conn) == 0
    alive.beat(1)
    watched.clock.advance("0.1 seconds")
    assert recover(conn) == 1
    assert alive.runs() != set()


def test_a_silence_is_a_death_however_far_apart_the_ticks_are(watched: Database, conn: Connection) -> None:
    """A job of cron that ticks once a minute watches too: what was silent for its lease at two of its looks is dead."""
    silent, alive = Worker(watched), Worker(watched)
    for worker in (silent, alive):
        start(conn)
        worker.claim_one()
    watched.clock.advance(minutes=1)
    assert recover(conn) == 0
    alive.beat(1)
    watched.clock.advance(minutes=1)
    assert recover(conn) == 1
    assert silent.runs() == set() and alive.runs() != set()


def test_a_closed_session_is_a_death_though_nobody_watched(watched: Database, conn: Connection) -> None:
    session = watched.connect()
    worker = Worker(watched, conn=session, is_direct=True)
    start(conn)
    worker.claim_one()
    pid = session.info.backend_pid
    session.close()
    watched.wait_until("select not exists (select from pg_stat_activity where pid = %s)", pid)
    watched.clock.advance(hours=1)
    assert recover(conn) == 1


def test_a_clock_set_back_hides_no_death(watched: Database, conn: Connection) -> None:
    worker = Worker(watched, lease="8 seconds")
    start(conn)
    worker.claim_one()
    watched.clock.advance(hours=-1)
    assert recover(conn) == 0
    watched.clock.advance(seconds=8)
    assert recover(conn) == 0, "it is silent since the clock was set back, as far as anybody can tell"
    watched.clock.advance(seconds=1)
    assert recover(conn) == 1


def test_while_a_look_is_left_open_only_a_closed_session_is_a_death(watched: Database, conn: Connection) -> None:
    """The server ends such a transaction after half a minute; meanwhile nobody knows since when anybody has watched."""
    silent, closed = Worker(watched, lease="8 seconds"), Worker(watched, conn=watched.connect(), is_direct=True)
    for worker in (silent, closed):
        start(conn)
        worker.claim_one()
    looking = watched.connect(autocommit=False)
    looking.execute("select perdure.tick()")
    pid = closed.conn.info.backend_pid
    closed.conn.close()
    watched.wait_until("select not exists (select from pg_stat_activity where pid = %s)", pid)
    watched.clock.advance(minutes=1)
    assert recover(conn) == 1
    assert (silent.runs() != set(), closed.on(conn).runs()) == (True, set())
    looking.rollback()
    assert recover(conn) == 0
    watched.clock.advance(minutes=1)
    assert recover(conn) == 1


def test_the_first_look_after_a_pause_kills_nobody_for_those_who_look_beside_it(
    watched: Database, conn: Connection
) -> None:
    worker = Worker(watched, lease="5 seconds")
    start(conn)
    worker.claim_one()
    watched.clock.advance(hours=1)
    looking = watched.connect(autocommit=False)
    looking.execute("select perdure.tick()")
    assert recover(conn) == 0
    looking.commit()
    assert recover(conn) == 0
    worker.beat(1)
    watched.clock.advance(seconds=5)
    assert recover(conn) == 0


# --- the poison run


def suspects(database: Database) -> dict[UUID, int]:
    return dict(database.admin.execute("select run_id, recoveries from perdure.dispatch").fetchall())


def test_a_first_death_delays_nothing(database: Database, conn: Connection) -> None:
    worker = Worker(database, conn=conn)
    start(conn)
    worker.claim_one()
    die(database, worker)
    assert Worker(database, conn=conn).claim_one().row["recoveries"] == 1


def test_suspects_are_claimed_alone(database: Database, conn: Connection) -> None:
    for _ in range(3):
        start(conn)
    database.admin.execute("update perdure.dispatch set recoveries = 2")
    neighbour = start(conn)
    worker = Worker(database, conn=conn)
    got = worker.claim(10)
    assert len(got) == 2 and neighbour in {held.run_id for held in got}
    assert worker.claim(10) == [], "it holds a suspect"
    assert len(Worker(database, conn=conn).claim(10)) == 1, "another worker takes the next one"
    [suspect] = [held for held in got if held.run_id != neighbour]
    worker.complete(suspect)
    assert len(worker.claim(10)) == 1


def test_a_suspect_comes_back_later_and_later(stopped: Database, conn: Connection) -> None:
    run_id = start(conn, max_recoveries=20)
    delays = []
    for _ in range(12):
        worker = Worker(stopped, conn=conn)
        worker.claim_one()
        die(stopped, worker)
        delays.append(
            round(
                stopped.value(
                    "select extract(epoch from ready_at - perdure._now())::float8 from perdure.dispatch where run_id = %s",
                    run_id,
                )
            )
        )
        stopped.clock.advance(minutes=5)
    assert delays == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_run_that_kills_every_worker_is_dead_in_the_end(stopped: Database, conn: Connection) -> None:
    run_id = start(conn, max_recoveries=3)
    for death in range(4):
        assert outcome(stopped, run_id) is None, death
        worker = Worker(stopped, conn=conn)
        worker.claim_one()
        die(stopped, worker)
        stopped.clock.advance(minutes=5)
    assert outcome(stopped, run_id) == "dead"
    assert Worker(stopped, conn=conn).claim() == []
    error = stopped.value("select error from perdure.outcome")
    assert error["message"] == "its worker died 4 times in a row without progress"


def test_the_poison_is_found_and_its_neighbours_are_not_charged(stopped: Database, conn: Connection) -> None:
    """Twenty runs in one worker's hands; whoever holds the poison dies at once, before it has saved anything."""
    rows = call(conn, "start_many", workflow="order", inputs=[Jsonb(n) for n in range(20)])
    stopped.admin.execute("update perdure.dispatch set max_recoveries = 4")
    stopped.admin.execute("update perdure.run set max_recoveries = 4")
    poison = rows[7]["run_id"]
    for _ in range(60):
        if stopped.value("select count(*) from perdure.outcome") == 20:
            break
        worker = Worker(stopped, conn=conn)
        held = worker.claim(20)
        if poison in {each.run_id for each in held}:
            die(stopped, worker)
        else:
            for each in held:
                worker.complete(each)
        stopped.clock.advance(minutes=5)
    found = dict(stopped.admin.execute("select run_id, status from perdure.outcome").fetchall())
    assert found.pop(poison) == "dead"
    assert list(found.values()) == ["completed"] * 19


def test_a_resume_gives_a_fresh_budget(stopped: Database, conn: Connection) -> None:
    run_id = start(conn)
    stopped.admin.execute("update perdure.dispatch set recoveries = 10, is_paused = true")
    call(conn, "resume", run_id=run_id)
    worker = Worker(stopped, conn=conn)
    worker.claim_one()
    die(stopped, worker)
    assert suspects(stopped) == {run_id: 1}


def test_progress_between_two_deaths_starts_the_count_again(stopped: Database, conn: Connection) -> None:
    run_id = start(conn, max_recoveries=1)
    for n in range(5):
        worker = Worker(stopped, conn=conn)
        held: Held = worker.claim_one()
        worker.save(held, f"s{n}")
        die(stopped, worker)
        stopped.clock.advance(minutes=5)
    assert suspects(stopped) == {run_id: 1}


def test_a_run_without_any_recovery_is_dead_at_the_first_death(database: Database, conn: Connection) -> None:
    run_id = start(conn, max_recoveries=0)
    worker = Worker(database, conn=conn)
    worker.claim_one()
    die(database, worker)
    assert outcome(database, run_id) == "dead"
