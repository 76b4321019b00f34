"""`start` and `signal`: what is typed arrives, and what cannot be is refused in a sentence."""

from __future__ import annotations

import signal
import subprocess
from uuid import UUID

import pytest

from support.database import Database, in_background
from support.engine import Worker

from .conftest import Shell


def test_start_prints_the_id_of_the_run(perdure: Shell, database: Database, order: str) -> None:
    said = perdure(
        "start",
        order,
        '{"id": 42}',
        "--key",
        "k",
        "--queue",
        "default",
        "--priority",
        "1",
        "--tag",
        "a=b",
        "--tag",
        "c=d=e",
    )
    assert said.code == 0, said.err
    found = database.admin.execute("select run_id, input, key, priority, tags from perdure.run").fetchone()
    assert found == (UUID(said.out.strip()), {"id": 42}, "k", 1, {"a": "b", "c": "d=e"})


def test_the_same_key_gives_the_same_run(perdure: Shell, order: str) -> None:
    assert perdure("start", order, "--key", "k").out == perdure("start", order, "--key", "k").out


def test_a_key_used_for_another_input_is_refused_with_what_to_do(perdure: Shell, order: str) -> None:
    perdure("start", order, "1", "--key", "k")
    said = perdure("start", order, "2", "--key", "k")
    assert (said.code, said.out) == (1, "")
    assert 'error: key "k" of workflow "order" was used with another input.' in said.err
    assert "Pass the same input, another key" in said.err


def test_input_comes_from_stdin_too(perdure: Shell, database: Database, order: str) -> None:
    assert perdure("start", order, "-", input='"typed"').code == 0
    assert database.value("select input from perdure.run") == "typed"


def test_a_delayed_run_is_scheduled(perdure: Shell, database: Database, order: str) -> None:
    assert perdure("start", order, "--delay", "2 days").code == 0
    assert database.value("select ready_at > now() + interval '47 hours' from perdure.dispatch")


@pytest.mark.parametrize("text", [r'"\u0000"', r'{"a": "\ud800"}'])
def test_what_postgres_cannot_keep_is_refused_before_anything_is_sent(shell: Shell, text: str) -> None:
    said = shell("start", "order", text)
    assert said.code == 2
    assert "which Postgres cannot keep: leave it out" in said.err


@pytest.mark.parametrize("text", ["{id: 42}", "NaN", ""])
def test_wrong_json_is_refused_before_anything_is_sent(shell: Shell, text: str) -> None:
    said = shell("start", "order", text)
    assert said.code == 2
    assert "this is no JSON" in said.err


def test_an_unknown_workflow_is_refused_with_the_nearest_name(perdure: Shell, order: str) -> None:
    said = perdure("start", "ordr")
    assert said.code == 1
    assert 'error: workflow "ordr" is not known.' in said.err
    assert 'nearest known name is "order"' in said.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--delay", "soon"], 'invalid input syntax for type interval: "soon"'),
        (["--priority", "9"], "priority must be between 1 (first) and 5 (last)"),
        (["--on-duplicate", "x", "--key", "k"], 'on_duplicate "x" is not known'),
    ],
)
def test_what_the_database_refuses_is_a_sentence(perdure: Shell, order: str, options: list[str], sentence: str) -> None:
    said = perdure("start", order, *options)
    assert said.code == 1
    assert sentence in said.err


def test_wait_prints_the_result(perdure: Shell, database: Database, order: str, worker: Worker) -> None:
    waiting = in_background(perdure.real, "start", order, "--wait")
    database.wait_until("select count(*) = 1 from perdure.dispatch")
    worker.complete(worker.claim_one(), {"total": 7})
    said = waiting.result(timeout=20)
    assert (said.code, said.json) == (0, {"total": 7})


def test_wait_for_a_run_that_fails_says_why(perdure: Shell, database: Database, order: str, worker: Worker) -> None:
    waiting = in_background(perdure.real, "start", order, "--wait")
    database.wait_until("select count(*) = 1 from perdure.dispatch")
    worker.fail(worker.claim_one(), type="Declined", message="card declined")
    said = waiting.result(timeout=20)
    assert (said.code, said.out) == (1, "")
    assert "failed" in said.err
    assert "Declined: card declined" in said.err
    assert "perdure show" in said.err


def test_an_interrupted_wait_leaves_the_run_alone(perdure: Shell, database: Database, order: str) -> None:
    started = subprocess.Popen(
        perdure.command("start", order, "--wait"), cwd=perdure.directory, env=perdure.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who starts the suite may have it ignored
    )  # fmt: skip
    database.wait_until(
        "select count(*) = 1 from pg_stat_activity where query ilike 'call%%await%%' and state = 'active' and pid <> pg_backend_pid()"
    )
    started.send_signal(2)
    _, err = started.communicate(timeout=20)
    assert started.returncode == 130
    assert "goes on" in err and "Traceback" not in err
    assert database.value("select count(*) from perdure.dispatch") == 1


def test_a_signal_reaches_the_run_by_id_prefix_or_key(perdure: Shell, database: Database, order: str) -> None:
    run_id = perdure("start", order, "--key", "k").out.strip()
    assert perdure("signal", run_id, "paid", '{"by": "card"}').out.startswith("accepted")
    assert perdure("signal", run_id[:8], "paid", "--id", "evt_1").out.startswith("accepted")
    assert perdure("signal", run_id, "paid", "--id", "evt_1").out.startswith("duplicate")
    assert perdure("signal", "--workflow", order, "--key", "k", "paid", "-", input="3").out.startswith("accepted")
    sent = database.admin.execute(
        "select run_id::text, name, payload from perdure.signal order by sent_at, sequence"
    ).fetchall()
    assert sent == [(run_id, "paid", {"by": "card"}), (run_id, "paid", {}), (run_id, "paid", 3)]


def test_a_signal_may_start_its_run(perdure: Shell, database: Database, order: str) -> None:
    assert perdure("signal", "--workflow", order, "--key", "new", "paid", "--start-input", '{"id": 1}').code == 0
    assert database.value("select input from perdure.run where key = 'new'") == {"id": 1}


def test_a_signal_to_nobody_is_an_error(perdure: Shell, order: str, worker: Worker) -> None:
    said = perdure("signal", "01900000-0000-7000-8000-000000000000", "paid")
    assert said.code == 1 and "there is no such run" in said.err
    said = perdure("signal", "--workflow", order, "--key", "none", "paid")
    assert said.code == 1 and "--start-input starts one" in said.err
    run_id = perdure("start", order).out.strip()
    worker.complete(worker.claim_one(), 1)
    said = perdure("signal", run_id, "paid")
    assert said.code == 1 and "the run has ended" in said.err


def test_a_prefix_of_many_runs_is_refused_with_some_of_them(perdure: Shell, order: str) -> None:
    ids = {perdure("start", order).out.strip() for _ in range(2)}
    said = perdure("signal", "0", "paid")
    assert said.code == 1
    assert "more than one run's id begins with '0'" in said.err
    assert all(run_id in said.err for run_id in ids)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["signal", "xyz", "paid"], "'xyz' is no run id"),
        (["signal", "ffff", "paid"], "no run's id begins with 'ffff'"),
    ],
)
def test_what_is_no_run_is_told(perdure: Shell, words: list[str], sentence: str) -> None:
    said = perdure(*words)
    assert said.code in (1, 2)
    assert sentence in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["paid", "--key", "k"],
        ["paid"],
        ["1", "paid", "{}", "more"],
        ["1", "paid", "--start-input", "1"],
        ["1", "paid", "{"],
    ],
)
def test_wrong_words_are_misuse(shell: Shell, words: list[str]) -> None:
    said = shell("signal", *words)
    assert said.code == 2
    assert "Error" in said.err
