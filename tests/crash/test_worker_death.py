"""What becomes of runs when their worker is killed, frozen, told to stop, or merely busy."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from support.database import eventually
from support.scene import Scene


def test_the_runs_of_a_killed_worker_all_finish_with_another_one(scene: Scene) -> None:
    scene.start_many("slow", 500)
    doomed = scene.worker(max_runs="300")
    eventually(lambda: scene.row("select count(*) > 100 from public.trace")[0], seconds=30)
    scene.worker(max_runs="300")
    scene.wait_registered(2)
    eventually(lambda: scene.row("select count(distinct pid) = 2 from public.trace")[0], seconds=30)
    doomed.kill()
    doomed.wait()
    in_flight = scene.row(
        "select count(*) from public.trace as t where t.pid = %s and not exists (select from perdure.step as s"
        " join perdure.run as r using (run_id)"
        " where r.input #>> '{}' || case s.key when 'first' then '/1' else '/2' end = t.key)",
        doomed.pid,
    )[0]
    scene.wait_completed(500, 120)
    ran, distinct = scene.row("select count(*), count(distinct key) from public.trace")
    assert distinct == 1000
    assert ran <= 1000 + in_flight, "only what ran in the killed worker and was not saved ran twice"
    assert in_flight < 150
    assert scene.row("select max(n) from (select count(*) as n from public.trace group by key) as t")[0] <= 2


def test_transaction_steps_take_effect_exactly_once_whatever_is_killed(scene: Scene) -> None:
    scene.start_many("ledger", 150)
    for _ in range(4):
        before = scene.row("select count(*) from public.trace")[0]
        doomed = scene.worker()
        scene.database.wait_until("select count(*) > %s from public.trace", before + 30, seconds=30)
        time.sleep(random.uniform(0, 0.05))  # anywhere in the protocol
        doomed.kill()
        doomed.wait()
    scene.worker()
    scene.wait_completed(150, 120)
    assert scene.row("select count(*), count(distinct key) from public.trace") == (450, 450)


def test_a_stop_releases_and_burns_nothing(scene: Scene) -> None:
    scene.start_many("slow", 20)
    stopped = scene.worker()
    eventually(lambda: scene.row("select count(*) > 0 from public.trace")[0], seconds=20)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(10) == 0
    assert scene.row("select count(*) from perdure.worker")[0] == 0
    assert scene.row("select count(*) from perdure.dispatch where worker_id is not null or recoveries > 0")[0] == 0
    assert scene.row("select count(*) from perdure.step_attempt")[0] == 0
    assert scene.row("select count(*) from perdure.dispatch")[0] == 20, (
        "they were given back, not carried to their ends"
    )
    scene.worker()
    scene.wait_completed(20)
    assert scene.row("select count(*), count(distinct key) from public.trace") == (40, 40), "what ran was saved"


def test_a_stop_waits_for_a_step_only_so_long(scene: Scene) -> None:
    run_id = scene.start("long", "l")
    stopped = scene.worker(stop_timeout="0.5")
    eventually(lambda: scene.times("l", "think") == 1, seconds=20)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(3) == 0
    row = scene.row("select worker_id, recoveries from perdure.dispatch where run_id = %s", run_id)
    assert row == (None, 0)


def test_a_second_signal_does_not_wait(scene: Scene) -> None:
    scene.start("long", "l")
    stopped = scene.worker()
    eventually(lambda: scene.times("l", "think") == 1, seconds=20)
    stopped.send_signal(signal.SIGTERM)
    eventually(lambda: scene.row("select count(*) from perdure.worker")[0] == 1)
    stopped.send_signal(signal.SIGINT)
    stopped.wait(2.5)
    assert scene.row("select count(*) from perdure.worker")[0] == 0


def test_a_worker_that_was_frozen_beyond_its_lease_changes_nothing_more(scene: Scene) -> None:
    run_id = scene.start("who", "w")
    frozen = scene.worker(lease="1")
    eventually(lambda: scene.times("w/1", "ask_pid") == 1, seconds=20)
    os.kill(frozen.pid, signal.SIGSTOP)
    survivor = scene.worker()
    scene.wait_registered(1)
    assert scene.result(run_id) == [survivor.pid, survivor.pid]
    before = scene.row(
        "select array_agg(to_jsonb(s) order by ordinal) from perdure.step as s where run_id = %s", run_id
    )
    known = scene.row("select array_agg(worker_id) from perdure.worker")
    os.kill(frozen.pid, signal.SIGCONT)
    eventually(lambda: scene.row("select count(*) from perdure.worker")[0] == 2, seconds=20, what="it registers anew")
    assert frozen.poll() is None
    assert scene.row("select count(*) from perdure.worker where worker_id = any(%s)", known[0])[0] == 1
    assert scene.times("w/1", "ask_pid") == 2 and scene.times("w/2", "ask_pid") == 1
    after = scene.row("select array_agg(to_jsonb(s) order by ordinal) from perdure.step as s where run_id = %s", run_id)
    assert after == before
    again = scene.start("who", "again")
    survivor.send_signal(signal.SIGTERM)
    assert survivor.wait(20) == 0
    assert scene.result(again)[1] == frozen.pid, "it works again"


def test_a_busy_event_loop_is_no_death(scene: Scene) -> None:
    run_id = scene.start("greedy", "g")
    busy = scene.worker(lease="2")
    scene.wait_registered(1)
    [worker_id] = scene.row("select worker_id from perdure.worker")
    eventually(lambda: scene.times("g", "hog") == 1, seconds=20)
    scene.worker()  # it ticks, and would take the run
    assert scene.result(run_id) == "g"
    assert scene.times("g", "hog") == 1
    assert scene.row("select count(*) from perdure.worker where worker_id = %s", worker_id)[0] == 1
    assert busy.poll() is None


@pytest.mark.parametrize("times", [15])
def test_lost_connections_lose_nothing(scene: Scene, times: int) -> None:
    scene.start_many("slow", 150)
    scene.worker()
    scene.wait_registered(1)
    [worker_id] = scene.row("select worker_id from perdure.worker")
    for _ in range(times):
        scene.row(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'perdure worker%%'"
            " and datname = current_database()"
        )
        time.sleep(random.uniform(0.05, 0.15))
    scene.wait_completed(150)
    assert scene.row("select count(*), count(distinct key) from public.trace") == (300, 300), "no step ran twice"
    assert scene.row("select count(*) from perdure.worker where worker_id = %s", worker_id)[0] == 1
