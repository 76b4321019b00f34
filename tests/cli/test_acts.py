"""What an operator asks is done, answered per run, and kept with its reason."""

from __future__ import annotations

import pytest

from support.database import Database
from support.engine import Worker

from .conftest import Shell

NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize("act", ["cancel", "terminate", "pause"])
def test_an_act_is_asked_of_each_run_with_its_reason(perdure: Shell, database: Database, order: str, act: str) -> None:
    runs = [perdure("start", order).out.strip() for _ in range(2)]
    said = perdure(act, *runs, "--reason", "a try")
    assert said.code == 0, said.err
    assert said.lines == [f"{run}  accepted" for run in runs]
    asked = database.admin.execute("select run_id::text, act, reason from perdure.act order by 1").fetchall()
    assert asked == [(run, act, "a try") for run in sorted(runs)]


def test_resume_undoes_pause(perdure: Shell, database: Database, order: str) -> None:
    run = perdure("start", order).out.strip()
    perdure("pause", run)
    database.connect().execute("select perdure.tick()")
    assert perdure("pause", run).out == f"{run}  duplicate: it is so already\n"
    assert perdure("resume", run).code == 0
    database.connect().execute("select perdure.tick()")
    assert not database.value("select is_paused from perdure.dispatch")


def test_cancel_grants_a_grace(perdure: Shell, database: Database, order: str) -> None:
    run = perdure("start", order).out.strip()
    assert perdure("cancel", run, "--grace", "1 hour").code == 0
    assert database.value("select grace = interval '1 hour' from perdure.act")
    said = perdure("cancel", run, "--grace", "-1 hour")
    assert said.code == 1 and "error: grace must" in said.err


def test_an_installation_is_held_and_adopted(perdure: Shell, order: str, worker: Worker) -> None:
    perdure("start", order)
    said = perdure("hold", "--reason", "restored from tape")
    assert said.code == 0, said.err
    assert said.lines[0] == "on hold: restored from tape"
    assert "1 unfinished runs may have gone on" in said.lines[1]
    assert perdure("adopt").out == "adopted, the hold has ended: restored from tape\n"
    assert perdure("adopt", "--reason", "again").out == "nothing was on hold\n"
    assert worker.claim_one()
    said = perdure("hold", "--reason", " ")
    assert said.code == 1
    assert "a hold needs a reason" in said.err


def test_an_answer_that_is_no_yes_is_exit_code_1(perdure: Shell, order: str) -> None:
    run = perdure("start", order).out.strip()
    said = perdure("cancel", run, NOBODY, "--json")
    assert said.code == 1
    assert said.json == [{"run_id": run, "answer": "accepted"}, {"run_id": NOBODY, "answer": "unknown"}]
    said = perdure("retry", run)
    assert said.code == 1
    assert "illegal: the act does not fit the run's state" in said.out


def test_retry_goes_on_from_the_failed_step_or_an_earlier_one(
    perdure: Shell, database: Database, order: str, worker: Worker
) -> None:
    run = perdure("start", order).out.strip()
    for from_step, left in ((None, ["reserve", "charge"]), ("charge", ["reserve"])):
        held = worker.claim_one()
        if from_step is None:
            worker.save(held, "reserve")
            worker.save(held, "charge")
        worker.fail(held, type="Declined", message="card declined")
        said = perdure("retry", run, "--reason", "paid again", *(["--from-step", from_step] if from_step else []))
        assert (said.code, said.out) == (0, f"{run}  accepted\n"), said.err
        keys = database.admin.execute("select key from perdure.step order by ordinal").fetchall()
        assert [key for (key,) in keys] == left
    reasons = database.admin.execute("select reason from perdure.audit where act = 'retry'").fetchall()
    assert reasons == [("paid again",)] * 2


def test_retry_from_an_unknown_step_is_refused_with_the_nearest(perdure: Shell, order: str, worker: Worker) -> None:
    run = perdure("start", order).out.strip()
    held = worker.claim_one()
    worker.save(held, "reserve")
    worker.fail(held, type="Declined", message="card declined")
    said = perdure("retry", run, "--from-step", "reserv")
    assert said.code == 1
    assert 'step "reserv" is not known' in said.err and '"reserve"' in said.err
    said = perdure("retry", run, NOBODY, "--from-step", "reserve")
    assert said.code == 2 and "for one run" in said.err
