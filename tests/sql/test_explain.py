"""explain says in sentences why a run does not go on, and what to type."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors

from support.database import Database
from support.engine import (
    Connection,
    Worker,
    a_run,
    act,
    call,
    declare_dead,
    drain,
    scalar,
    signal,
    start,
    unknown_run,
    wait,
)

POLICY = {"max_attempts": 2, "delay": 60, "jitter": 0}


def explain(conn: Connection, run_id: UUID) -> str:
    """Everything it says, with the run's id as R and times as T."""
    said = "\n".join(row[0] for row in conn.execute("select * from perdure.explain(%s)", [run_id]).fetchall())
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00", "T", said)
    return said.replace(str(run_id), "R")


@pytest.fixture
def stopped(database: Database, conn: Connection) -> Connection:
    """The client's connection, in a database whose clock stands still."""
    database.clock.stop("2030-01-01 12:00:00")
    return conn


def test_an_unknown_run_is_refused(conn: Connection) -> None:
    with pytest.raises(errors.DatabaseError) as raised:
        explain(conn, unknown_run())
    assert raised.value.sqlstate == "PD001"


def test_a_run_of_a_queue_without_a_worker_asks_for_one(stopped: Connection) -> None:
    scalar(stopped, "put_queue", name="etl")
    run_id = start(stopped, queue="etl", key="o-1")
    assert explain(stopped, run_id) == (
        'Run R of workflow "order" with key "o-1" is ready since T (now).\n'
        'No live worker takes from queue "etl". Start one: perdure worker MODULE:APP --queues etl'
    )


def test_a_run_of_a_workflow_that_nobody_knows_asks_for_a_deploy(database: Database, stopped: Connection) -> None:
    Worker(database, workflows=["other"])
    run_id = start(stopped)
    assert explain(stopped, run_id) == (
        'Run R of workflow "order" is ready since T (now).\n'
        'None of the live workers of queue "default" (1) knows workflow "order". Deploy one that does.'
    )


def test_a_ready_run_tells_how_many_are_before_it(database: Database, stopped: Connection) -> None:
    Worker(database)
    for _ in range(2):
        start(stopped, priority=1)
        start(stopped, priority=5)
    database.clock.advance(minutes=5)
    run_id = start(stopped)
    assert explain(stopped, run_id).splitlines()[1:] == [
        'No live worker takes from queue "default". Start one: perdure worker MODULE:APP --queues default'
    ]
    Worker(database)
    assert explain(stopped, run_id).splitlines()[1:] == [
        'Live workers that may take it: 1. Ready runs before it in queue "default": 2.'
    ]


def test_a_run_for_later_tells_when_it_begins(database: Database, stopped: Connection) -> None:
    Worker(database)
    run_id = start(stopped, delay=timedelta(hours=3))
    assert explain(stopped, run_id) == (
        'Run R of workflow "order" is scheduled since T (now).\nIt was started to begin at T (in 3 h).'
    )


def test_a_successor_names_the_run_that_it_waits_for(database: Database, stopped: Connection) -> None:
    _, held = a_run(database, key="o-1")
    run_id = start(stopped, key="o-1", on_duplicate="replace")
    said = explain(stopped, run_id).replace(str(held.run_id), "OLD")
    assert "It replaces run OLD, which has to end first and is running." in said
    assert "About that one: select * from perdure.explain('OLD');" in said


def test_a_running_run_names_its_worker_and_the_step_that_takes_long(database: Database, stopped: Connection) -> None:
    worker = Worker(database, name="host-1", version="7")
    run_id = start(stopped)
    worker.claim_one()
    assert explain(stopped, run_id) == (
        'Run R of workflow "order" is running since T (now).\n'
        'Worker "host-1" (version 7) holds it.\n'
        "No step of it has been running for longer than a beat."
    )
    database.clock.advance(minutes=5)
    activity = [{"run_id": str(run_id), "key": "charge", "since": "2030-01-01T12:01:00Z", "progress": {"page": 7}}]
    call(stopped, "beat", worker_id=worker.worker_id, runs_held=1, activity=activity)
    assert 'Step "charge" has been running since T (4 min ago); its progress: {"page": 7}.' in explain(stopped, run_id)


def test_the_time_of_a_step_is_read_as_its_worker_wrote_it(database: Database, stopped: Connection) -> None:
    worker = Worker(database)
    run_id = start(stopped)
    worker.claim_one()
    database.clock.advance(minutes=5)
    worker.conn.execute("set datestyle = 'ISO, DMY'")
    worker.conn.execute("set timezone = 'Asia/Tokyo'")
    activity = [{"run_id": str(run_id), "key": "charge", "since": "31/12/2029 13:00"}]
    worker.call("beat", runs_held=1, activity=activity)
    stopped.execute("set datestyle = 'ISO, MDY'")
    stopped.execute("set timezone = 'UTC'")
    assert 'Step "charge" has been running since 2029-12-31 04:00' in "\n".join(
        line for (line,) in stopped.execute("select perdure.explain(%s)", [run_id]).fetchall()
    )


def test_a_silent_worker_is_suspected_before_it_is_declared_dead(database: Database, stopped: Connection) -> None:
    _, held = a_run(database)
    database.clock.advance(seconds=12)
    assert (
        "That worker has been silent for 12 s. If it stays so, it is declared dead at T (in 18 s), and another one may"
        " take the run."
    ) in explain(stopped, held.run_id)
    database.clock.advance(seconds=20)
    assert (
        "That worker has been silent since T (32 s ago), longer than its lease of 30 s; the next tick takes the run back."
        " At once: select perdure.recover();"
    ) in explain(stopped, held.run_id)
    database.admin.execute("delete from perdure.worker")
    assert "That worker is gone; the next tick takes the run back. At once: select perdure.recover();" in explain(
        stopped, held.run_id
    )


def test_a_waiting_run_tells_for_what_and_how_to_answer(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"), wait("late", "timer", until="2030-01-04 12:00:00Z"))
    assert explain(stopped, held.run_id) == (
        'Run R of workflow "order" is waiting since T (now).\n'
        'It waits for the signal "paid" for as long as it takes.\n'
        "To send it: select perdure.signal('R', 'paid', '<payload as JSON>');\n"
        'Its timer "late" ends at T (in 3 days).'
    )
    signal(stopped, held.run_id, "payed")
    drain(stopped)
    assert 'In its mailbox are signals for which it does not wait: "payed".' in explain(stopped, held.run_id)


def test_a_wait_for_a_signal_tells_until_when(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid", until="2030-01-01 13:30:00Z"))
    assert 'It waits for the signal "paid" until T (in 90 min).' in explain(stopped, held.run_id)


def test_a_sleeping_run_tells_until_when(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("nap", "sleep", until="2030-01-01 12:01:00Z"))
    assert explain(stopped, held.run_id) == (
        'Run R of workflow "order" is sleeping since T (now).\nIt sleeps until T (in 60 s).'
    )


@pytest.mark.parametrize(
    ("due", "sentence"),
    [
        (
            wait("paid"),
            'It has waited for the signal "paid" until T (2 min ago), and goes on without it unless it comes first.',
        ),
        (wait("nap", "sleep"), "Its sleep is over since T (2 min ago)."),
        (wait("late", "timer"), 'Its timer "late" is over since T (2 min ago).'),
        (wait("charge", "retry"), 'Step "charge" was to be tried again at T (2 min ago).'),
    ],
)
def test_a_wait_that_is_over_is_not_told_as_one_to_come(
    database: Database, stopped: Connection, due: dict[str, Any], sentence: str
) -> None:
    worker, held = a_run(database)
    worker.suspend(held, due | {"until": "2030-01-01 12:01:00Z"})
    database.clock.advance(minutes=3)
    assert sentence in explain(stopped, held.run_id).splitlines()


def test_a_failing_step_tells_its_error_and_its_next_try(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    failed = worker.fail_step(held, "charge", 1, policy=POLICY, type="Closed", message="the bank is closed")
    worker.suspend(held, wait("charge", "retry", until=failed["retry_at"]))
    assert explain(stopped, held.run_id) == (
        'Run R of workflow "order" is backing_off since T (now).\n'
        'Step "charge" is tried again at T (in 60 s).\n'
        'Step "charge" failed in try 1 with Closed: the bank is closed; next try at T (in 60 s).'
    )


def test_a_paused_run_tells_who_paused_it_and_why(database: Database, stopped: Connection) -> None:
    Worker(database)
    run_id = start(stopped)
    act(stopped, "pause", run_id, reason="wait for the bank")
    said = explain(stopped, run_id)
    assert (
        f'The act "pause" that "{database.owner}" asked for at T (now) is not applied yet: wait for the bank.' in said
    )
    assert "At once: select perdure.tick();" in said
    drain(stopped)
    assert explain(stopped, run_id) == (
        'Run R of workflow "order" is paused since T (now).\n'
        f'It was paused by "{database.owner}": wait for the bank.\n'
        "To let it go on: select perdure.resume('R');"
    )


def test_the_line_that_sends_a_signal_is_refused_until_a_payload_is_put_in(
    database: Database, conn: Connection
) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    [line] = [said for said in explain(conn, held.run_id).splitlines() if said.startswith("To send it: ")]
    typed = line.removeprefix("To send it: ").replace("R", str(held.run_id))
    with pytest.raises(errors.InvalidTextRepresentation):
        conn.execute(typed.encode())
    assert conn.execute(typed.replace("<payload as JSON>", '{"by": "boss"}').encode()).fetchone() == ("accepted",)


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("DecodingFailed: input of workflow 'order': no int", "deploy code that reads what is recorded"),
        ("StepConflict: step 'a'", "deploy code that takes its steps as they are recorded, such as the former one"),
        ("Misuse: no", "deploy code in which that is mended"),
        ("the driver failed: KeyError: 'a'", "cure what it says"),
        ("it cannot be executed: KeyError: 'a'", "cure what it says"),
    ],
)
def test_a_run_that_its_worker_paused_tells_what_to_do_before_it_is_resumed(
    database: Database, stopped: Connection, reason: str, cure: str
) -> None:
    worker, held = a_run(database)
    worker.release(held, reason)
    assert explain(stopped, held.run_id).splitlines()[2:] == [
        f"First {cure}: resumed as things are, it would be paused again.",
        "To let it go on then: select perdure.resume('R'); to give it up: select perdure.terminate('R');",
    ]


def test_a_cancelled_run_tells_how_long_it_may_clean_up(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    act(stopped, "cancel", held.run_id, reason="not wanted")
    drain(stopped)
    said = explain(stopped, held.run_id)
    assert f'"{database.owner}" asked it to end: not wanted; it has not heard of it yet' in said
    assert "is ended the hard way at T (in 5 min)." in said
    [again] = worker.claim()
    worker.suspend(again, wait("undo"))
    said = explain(stopped, held.run_id)
    assert "; it knows, and may clean up until T (in 5 min)." in said
    assert "To end it now, without clean-up: select perdure.terminate('R');" in said


def test_a_run_that_was_cancelled_in_a_former_life_tells_who_asked_this_time(
    database: Database, stopped: Connection
) -> None:
    worker, held = a_run(database)
    act(stopped, "cancel", held.run_id, reason="the first time")
    worker.complete(held)
    database.clock.advance(hours=1)
    act(stopped, "retry", held.run_id)
    worker.suspend(worker.claim_one(), wait("paid"))
    act(stopped, "cancel", held.run_id, reason="the second time")
    drain(stopped)
    said = explain(stopped, held.run_id)
    assert "is cancelling since T (now)." in said
    assert "asked it to end: the second time; it has not heard of it yet" in said


def test_a_run_past_its_deadline_says_so(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database, timeout=timedelta(minutes=1))
    worker.suspend(held, wait("paid"))
    assert "Its deadline is T (in 60 s)." in explain(stopped, held.run_id)
    database.clock.advance(minutes=2)
    scalar(stopped, "tick")
    assert "Its deadline has passed; it has not heard of it yet" in explain(stopped, held.run_id)


def test_a_told_worker_is_waited_for(database: Database, stopped: Connection) -> None:
    _, held = a_run(database)
    signal(stopped, held.run_id)
    assert "It was told something that nobody has looked at" in explain(stopped, held.run_id)
    drain(stopped)
    assert "It was told something at T (now), and will look when its steps in flight are done." in explain(
        stopped, held.run_id
    )


def test_a_suspect_tells_how_often_its_workers_died(database: Database, stopped: Connection) -> None:
    run_id = start(stopped)
    for _ in range(2):
        worker = Worker(database)
        worker.claim_one()
        declare_dead(database, worker)
    said = explain(stopped, run_id)
    assert "Deaths of its workers in a row, without progress: 2. It is given up after 11." in said
    assert "It may be taken again at T (in 1 s)." in said
    assert "only to a worker without another such run." in said
    assert "No live worker takes from queue" in said


def test_a_completed_run_says_how_to_read_its_result(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.complete(held, {"n": 1})
    assert explain(stopped, held.run_id) == (
        "Run R of workflow \"order\" ended as completed at T (now), after 0 s.\nTo read what it returned: select perdure.result('R');"
    )


def test_a_failed_run_says_what_failed_and_how_to_go_on(database: Database, stopped: Connection) -> None:
    worker, held = a_run(database)
    worker.fail_step(held, "charge", 1, policy=POLICY)
    worker.fail_step(held, "charge", 2, policy=POLICY)
    worker.fail(held, type="StepFailed", message="no money", step="charge")
    assert explain(stopped, held.run_id) == (
        'Run R of workflow "order" ended as failed at T (now), after 0 s.\n'
        "Its workflow raised StepFailed: no money.\n"
        'What failed is step "charge", in try 2.\n'
        "To let it go on from where it stopped: select perdure.retry('R');"
    )


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("cancel", "It was asked to end: because."),
        ("terminate", "It was ended without clean-up: because."),
        ("deadline", "Its deadline had passed."),
        ("death", "It was given up: its worker died 1 times in a row without progress."),
    ],
)
def test_an_ended_run_says_how_it_ended(database: Database, conn: Connection, how: str, sentence: str) -> None:
    if how == "deadline":
        run_id = start(conn, deadline="2000-01-01")
        scalar(conn, "tick")
    elif how == "death":
        worker, held = a_run(database, max_recoveries=0)
        run_id = held.run_id
        declare_dead(database, worker)
    else:
        run_id = start(conn)
        act(conn, how, run_id, reason="because")
        drain(conn)
    said = explain(conn, run_id).splitlines()
    assert said[1:] == [sentence, "To let it go on from where it stopped: select perdure.retry('R');"]


def test_what_it_says_to_type_can_be_typed(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("it's paid"))
    said = [row[0] for row in conn.execute("select * from perdure.explain(%s)", [held.run_id]).fetchall()]
    [typed] = re.findall(r"select perdure\.signal.*;", "\n".join(said))
    assert conn.execute(typed.replace("<payload as JSON>", "{}").encode()).fetchall() == [("accepted",)]
    drain(conn)
    assert worker.claim_one().run_id == held.run_id


def test_an_observer_may_ask(database: Database, conn: Connection) -> None:
    run_id = start(conn)
    database.server.create_role("perdure_explain_observer")
    conn.execute("select perdure.grant_role('perdure_explain_observer', 'observer')")
    assert "is ready since" in explain(database.connect("perdure_explain_observer"), run_id)
