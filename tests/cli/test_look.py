"""`runs`, `explain` and `show` tell what the views tell, to people and to machines."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timedelta, timezone

import pytest

from perdure.cli import statements
from support.database import Database
from support.engine import Connection, Worker, drain, start, wait

from .conftest import Shell


def started(perdure: Shell, *words: str) -> str:
    said = perdure("start", "order", *words)
    assert said.code == 0, said.err
    return said.out.strip()


def ago(seconds: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()


def test_runs_come_latest_first_and_whole_where_nobody_looks_on(perdure: Shell, order: str) -> None:
    first, second = started(perdure, "--key", "a" * 90), started(perdure)
    said = perdure("runs")
    assert said.code == 0
    assert said.lines[0].split() == ["RUN", "WORKFLOW", "STATE", "KEY", "QUEUE", "CREATED", "FINISHED"]
    assert [line.split()[0] for line in said.lines[1:]] == [second, first]
    assert "a" * 90 in said.lines[2]
    assert "\x1b" not in said.out


def test_runs_are_chosen(perdure: Shell, order: str, worker: Worker) -> None:
    done = started(perdure, "--key", "k")
    worker.complete(worker.claim_one(), 1)
    ready = started(perdure)
    assert perdure("runs", "--state", "completed", "--ids").lines == [done]
    assert perdure("runs", "--state", "completed", "--state", "ready", "--ids").lines == [ready, done]
    assert perdure("runs", "--key", "k", "--workflow", "order", "--queue", "default", "--ids").lines == [done]
    assert perdure("runs", "--workflow", "other", "--ids").out == ""
    cut = perdure("runs", "--limit", "1", "--ids")
    assert cut.lines == [ready]
    assert f"There are more: add --before {ready}" in cut.err
    assert perdure("runs", "--limit", "2", "--ids").err == ""
    (found,) = perdure("runs", "--state", "completed", "--json").json
    assert (found["run"], found["workflow"], found["state"], found["key"]) == (done, "order", "completed", "k")
    assert datetime.fromisoformat(found["finished"]) > datetime.fromisoformat(found["created"])


def test_runs_come_page_after_page(perdure: Shell, order: str) -> None:
    all_of_them = [started(perdure) for _ in range(5)][::-1]
    seen: list[str] = []
    while page := perdure("runs", "--limit", "2", "--ids", *(("--before", seen[-1]) if seen else ())).lines:
        seen += page
    assert seen == all_of_them
    said = perdure("runs", "--before", "01900000", "--ids")
    assert said.code == 1
    assert "no run's id begins with '01900000'" in said.err


def test_runs_are_found_by_their_tags_and_their_age(perdure: Shell, database: Database, order: str) -> None:
    seven = started(perdure, "--tag", "customer=7", "--tag", "kind=first")
    started(perdure, "--tag", "customer=8")
    assert perdure("runs", "--tag", "customer=7", "--ids").lines == [seven]
    assert perdure("runs", "--tag", "customer=7", "--tag", "kind=first", "--ids").lines == [seven]
    assert perdure("runs", "--tag", "customer=7", "--tag", "kind=last", "--ids").lines == []
    assert len(perdure("runs", "--since", "1 hour", "--ids").lines) == 2
    assert perdure("runs", "--since", "-1 hour", "--ids").lines == []
    assert perdure("runs", "--since", "soon", "--ids").code == 1


def test_runs_are_found_in_each_state_that_the_states_of_the_question_are_about(
    perdure: Shell, order: str, worker: Worker
) -> None:
    done, running = started(perdure), None
    worker.complete(worker.claim_one(), 1)
    running = started(perdure)
    worker.claim_one()
    ready = started(perdure)
    for states, runs in (
        (["running"], [running]),
        (["running", "ready"], [ready, running]),
        (["running", "completed"], [running, done]),
        (["completed", "failed"], [done]),
        (["waiting"], []),
    ):
        words = [word for state in states for word in ("--state", state)]
        assert perdure("runs", *words, "--ids").lines == runs, states


def test_the_states_in_which_runs_end_are_those_of_the_database(database: Database) -> None:
    query = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'outcome_status_is_known' and conparentid = 0"
    rows = database.admin.execute(statements.STATES.format(perdure="perdure").encode()).fetchall()
    assert set(re.findall(r"'(\w+)'", database.value(query))) == {state for state, is_ended in rows if is_ended}


def test_a_state_that_does_not_exist_is_told_with_those_that_do(perdure: Shell, order: str) -> None:
    said = perdure("runs", "--state", "runing")
    assert said.code == 1
    assert "no run is ever in state 'runing'" in said.err
    assert "backing_off" in said.err and "running" in said.err
    started(perdure)
    assert perdure("runs", "--state", "ready", "--state", "runing").err == said.err, "beside one that there is, too"


@pytest.mark.parametrize(("what", "nearest"), [("workflow", "order"), ("queue", "default")])
def test_a_name_that_nobody_knows_is_told_with_the_nearest(perdure: Shell, order: str, what: str, nearest: str) -> None:
    started(perdure)
    said = perdure("runs", f"--{what}", nearest[:-1])
    assert (said.code, said.out) == (1, "")
    assert f"no {what} {nearest[:-1]!r} is known" in said.err and f"The nearest known name is {nearest!r}" in said.err
    known = perdure("runs", f"--{what}", nearest, "--state", "failed", "--ids")
    assert (known.code, known.out, known.err) == (0, "", "")


def test_explain_says_it_in_sentences(perdure: Shell, order: str) -> None:
    run = started(perdure)
    said = perdure("explain", run[:18])
    assert said.code == 0
    assert run in said.out
    assert run in perdure("explain", run, "--json").json[0]


@pytest.mark.parametrize("command", ["explain", "show"])
def test_an_unknown_run_is_told(perdure: Shell, command: str) -> None:
    said = perdure(command, "01900000-0000-7000-8000-000000000000")
    assert said.code == 1
    assert "is not known" in said.err


@pytest.mark.parametrize("command", ["explain", "show"])
def test_a_run_is_found_by_its_workflow_and_key(perdure: Shell, order: str, command: str) -> None:
    run = started(perdure, "--key", "order-42")
    said = perdure(command, "order", "order-42")
    assert said.code == 0 and run in said.out


@pytest.mark.parametrize("command", ["explain", "show"])
def test_a_key_or_workflow_that_is_not_there_says_what_to_do(perdure: Shell, order: str, command: str) -> None:
    said = perdure(command, "order", "order-43")
    assert said.code == 1
    assert "workflow 'order' has no run with the key 'order-43'" in said.err
    assert "`perdure runs --workflow order` lists" in said.err
    said = perdure(command, "ordre", "order-43")
    assert said.code == 1
    assert "no workflow 'ordre' is known" in said.err and "nearest known name is 'order'" in said.err
    assert perdure(command, "order", "a", "b").code == 2
    assert "take WORKFLOW KEY as well" in perdure(command, "order").err


@pytest.fixture
def story(perdure: Shell, database: Database, order: str, worker: Worker) -> str:
    """A run to which much has happened, and which has completed."""
    run = started(perdure, '{"id": 42}', "--key", "order-42", "--tag", "customer=7")
    held = worker.claim_one()
    worker.save(held, "reserve", started_at=ago(0.2))
    worker.save(held, "progress", "reserved", kind="value", name="progress")
    worker.fail_step(held, "charge", 1, policy={"delay": 0, "jitter": 0}, type="Declined", message="card declined")
    worker.save(held, "charge", "ch_1", started_at=ago(0.1), attempt=2)
    assert worker.suspend(held, wait("approval", name="approved")) == "suspended"
    perdure("signal", run, "approved", '{"by": "ada"}')
    perdure("signal", run, "unheard")
    perdure("pause", run, "--reason", "look first")
    drain(worker.conn)
    perdure("resume", run)
    drain(worker.conn)
    held = worker.claim_one()
    worker.complete(held, {"status": "shipped"})
    return run


def test_show_draws_a_run_on_80_columns(perdure: Shell, story: str) -> None:
    said = perdure.real("show", story, PYTHONIOENCODING="utf-8", COLUMNS="80")
    assert said.code == 0, said.err
    assert all(len(line) <= 80 for line in said.lines), said.out
    assert said.lines[0] == f"order  {story}  completed"
    assert "key order-42, customer=7" in said.out
    assert 'input {"id": 42}' in said.out
    bars = {
        line.split()[0]: line for line in said.lines if line.startswith(("reserve", "progress", "charge", "approval"))
    }
    assert list(bars) == ["reserve", "progress", "charge", "approval"]
    assert "█" in bars["reserve"] and "•" in bars["progress"] and "░" in bars["approval"]
    assert "charge (2 tries)" in bars["charge"]
    assert "charge, try 1: Declined: card declined" in said.out
    assert "signal approved by" in said.out and 'consumed by approval  {"' in said.out
    assert "signal unheard" in said.out and "not consumed" in said.out
    assert "pause asked" in said.out and "(look first)" in said.out
    assert said.lines[-1] == '  {"status": "shipped"}'


def test_show_is_typed_where_only_ascii_can_be_printed(perdure: Shell, story: str) -> None:
    said = perdure.real("show", story, PYTHONIOENCODING="ascii:strict", COLUMNS="80")
    assert said.code == 0, said.err
    assert "# ran" in said.out


def test_show_tells_a_machine_everything(perdure: Shell, story: str) -> None:
    told = perdure("show", story[:13], "--json").json
    assert told["run"]["run_id"] == story
    assert [step["key"] for step in told["steps"]] == ["reserve", "progress", "charge", "approval"]
    assert [signal["name"] for signal in told["signals"]] == ["approved", "unheard"]


def test_show_tells_why_a_run_failed(perdure: Shell, order: str, worker: Worker) -> None:
    run = started(perdure)
    held = worker.claim_one()
    worker.fail_step(held, "charge", 1, policy={"max_attempts": 1}, type="Declined", message="card declined")
    worker.fail(held, type="StepFailed", message="card declined", step="charge")
    said = perdure("show", run)
    assert "StepFailed: card declined (step charge)" in said.out


def test_show_tells_what_an_unfinished_run_waits_for(perdure: Shell, order: str, worker: Worker) -> None:
    run = started(perdure)
    held = worker.claim_one()
    assert worker.suspend(held, wait("approval", name="approved")) == "suspended"
    said = perdure("show", run)
    assert "▶ still going" in said.out
    assert '"approved"' in said.out


def test_show_tells_of_a_pause_by_the_worker_that_it_was_asked_before_it_was_answered(
    perdure: Shell, order: str, worker: Worker
) -> None:
    run = started(perdure)
    worker.release(worker.claim_one(), "DecodingFailed: no")
    told = [line for line in perdure("show", run).lines if re.match(r"  \d\d:\d\d:\d\d  pause ", line)]
    assert [line.split()[2].rstrip(":") for line in told] == ["asked", "answered"]


def test_show_draws_a_step_that_is_running(perdure: Shell, order: str, worker: Worker) -> None:
    run = started(perdure)
    worker.claim_one()
    worker.call("beat", runs_held=1, activity=[{"run_id": run, "key": "ship", "since": ago(3)}])
    said = perdure("show", run)
    (bar,) = (line for line in said.lines if line.startswith("ship"))
    assert "█" in bar and bar.endswith("▶")
    assert "held by by hand" in said.out


def test_show_of_a_run_that_sleeps_for_ever_works(perdure: Shell, order: str, worker: Worker) -> None:
    run = started(perdure)
    held = worker.claim_one()
    assert worker.suspend(held, wait("sleep", "sleep", until="infinity")) == "suspended"
    assert perdure("show", run).code == 0


@pytest.mark.parametrize("start_at", ["infinity", "-infinity", "4000-01-01 BC", "12000-01-01"])
def test_show_of_a_run_with_a_time_beyond_the_calendar_works(
    perdure: Shell, order: str, conn: Connection, start_at: str
) -> None:
    said = perdure("show", str(start(conn, start_at=start_at)))
    assert (said.code, said.err) == (0, "")


def test_show_of_a_run_that_python_cannot_read_says_so(perdure: Shell, order: str, conn: Connection) -> None:
    [(run_id,)] = conn.execute(
        "select perdure.start('order', input => repeat('9', 5000)::jsonb, tags => (repeat('{\"a\":', 3000) || '1'"
        " || repeat('}', 3000))::jsonb)"
    ).fetchall()
    for words in ("show", "show --json"):
        said = perdure(*words.split(), str(run_id))
        assert said.code == 0, said.err
        assert "what is saved cannot be read here: ValueError" in said.out


def test_show_of_long_runs_leaves_earlier_steps_out_unless_asked(perdure: Shell, order: str, worker: Worker) -> None:
    run = started(perdure)
    held = worker.claim_one()
    for n in range(1, 71):
        worker.save(held, f"step-{n}")
    said = perdure("show", run)
    assert "10 earlier steps are left out" in said.out
    assert "step-10 " not in said.out and "step-11 " in said.out
    assert "step-1 " in perdure("show", run, "--all").out


def test_show_follows_a_run_to_its_end(perdure: Shell, database: Database, order: str, worker: Worker) -> None:
    run = started(perdure)
    held = worker.claim_one()
    following = subprocess.Popen(
        perdure.command("show", run, "--follow"), cwd=perdure.directory, env=perdure.environment, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    database.wait_until(
        "select count(*) = 1 from pg_stat_activity where application_name = 'perdure' and query ilike '%%commit%%'"
    )
    worker.complete(held, "at last")
    out, _ = following.communicate(timeout=20)
    assert following.returncode == 0
    assert out.endswith('"at last"\n')
