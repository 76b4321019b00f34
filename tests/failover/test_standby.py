"""A synchronous standby that is gone, and one that is asked by mistake."""

from __future__ import annotations

import subprocess
import sys

from failover.flows import result_of
from failover.hosts import HostServer
from failover.pair import Pair

HANGS = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'"


def wait_beats(pair: Pair, server: HostServer, seconds: int) -> None:
    """Wait until each worker has shown for so long that it is alive, while commits hang."""
    began = pair.value(server, "select clock_timestamp()")
    pair.wait(
        server,
        "select count(*) = 2 and min(beat_at) > %s::timestamptz + make_interval(secs => %s) from perdure.worker_beat",
        began,
        seconds,
    )


def test_nobody_is_dead_while_commits_wait_for_a_standby_that_is_gone(pair: Pair) -> None:
    primary, standby = pair.replicated(is_sync=True)
    workers = [pair.worker(name, lease="2") for name in ("w1", "w2")]
    pair.wait(primary, "select count(*) = 2 from perdure.worker")
    load = pair.load([f"k{n}" for n in range(100)], pause=0.02)
    pair.start_held(primary, "held")
    pair.wait(primary, "select clock_timestamp() > pg_postmaster_start_time() + interval '6 s'")  # its grace is over

    pair.hosts.second.cut()
    pair.wait(primary, HANGS)
    pair.open_gate("held", "reserve")
    wait_beats(pair, primary, 5)
    assert pair.value(primary, HANGS)
    pair.hosts.second.join()
    pair.wait_noted("ran", "held", "charge")

    pair.hosts.second.cut()
    pair.wait(primary, HANGS)
    pair.open_gate("held", "charge")
    wait_beats(pair, primary, 5)
    assert pair.value(primary, HANGS)
    primary.reload(synchronous_standby_names="")

    load.finish()
    pair.wait_ended(primary, len(load.keys) + 1)
    pair.check(primary, [*load.keys, "held"])
    assert load.results == {key: result_of(key) for key in load.keys}
    for worker in workers:
        assert "registers anew" not in worker.said
    assert standby.is_running


def perdure(dsn: str, *words: str) -> tuple[int, str]:
    """Type a command."""
    done = subprocess.run(
        [sys.executable, "-m", "perdure.cli", *words, "--dsn", dsn],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_standby_shows_everything_and_says_that_it_takes_nothing(pair: Pair) -> None:
    primary, standby = pair.replicated(is_sync=True)
    pair.worker("w1")
    load = pair.load(["one"])
    load.finish()
    [(waiting,)] = pair.rows(primary, "select perdure.start('order', '\"two\"', key => 'two')")
    pair.wait_noted("saved", "two", "book")
    pair.wait(primary, "select state = 'waiting' from perdure.runs where key = 'two'")
    pair.wait_streaming(primary, standby)
    asked = pair.dsn(pair.hosts.second, target_session_attrs="any")

    for words, shown in (
        (("runs",), "two"),
        (("explain", str(waiting)), "paid"),
        (("show", str(waiting)), "book"),
        (("show", str(load.started["one"])), "completed"),
    ):
        code, said = perdure(asked, *words)
        assert (code, shown in said) == (0, True), said
    code, said = perdure(asked, "doctor")
    assert code == 1 and "is a standby" in said
    for words in (("signal", str(waiting), "paid", "7"), ("cancel", str(waiting)), ("start", "order", '"three"')):
        code, said = perdure(asked, *words)
        assert code != 0 and "standby" in said and "Traceback" not in said, said
    mistaken = pair.worker("mistaken", dsn=asked)
    assert mistaken.process.wait(60) != 0
    assert "standby" in mistaken.said.splitlines()[-1] or "standby" in mistaken.said, mistaken.said
