"""A standby that becomes the primary: synchronous, nothing acknowledged is lost; asynchronous, what is lost is done again."""

from __future__ import annotations

from collections import Counter

from failover.flows import STEPS, result_of
from failover.pair import Pair
from support.database import eventually


def test_a_synchronous_standby_has_all_that_was_acknowledged(pair: Pair) -> None:
    primary, standby = pair.replicated(is_sync=True)
    workers = [pair.worker("w1"), pair.worker("w2")]
    pair.wait(primary, "select count(*) = 2 from perdure.worker")
    load = pair.load([f"k{n}" for n in range(60)], pause=0.01)
    eventually(lambda: len(load.results) >= 10, seconds=60, what="ten results")

    primary.kill()
    started, signalled, results = dict(load.started), set(load.signalled), dict(load.results)
    saved = Counter((note.key, note.step) for note in pair.noted("saved"))
    ran = Counter((note.key, note.step) for note in pair.noted() if (note.key, note.step) in saved)
    standby.promote()

    runs = pair.rows(standby, "select key, run_id, result from perdure.runs where key is not null")
    assert started.items() <= {key: run_id for key, run_id, _ in runs}.items()
    assert results.items() <= {key: result for key, _, result in runs}.items()
    assert signalled <= {key for (key,) in pair.rows(standby, "select substr(id, 6) from perdure.signal")}

    load.finish()
    pair.wait_ended(standby, 60)
    pair.check(standby, load.keys)
    assert load.results == {key: result_of(key) for key in load.keys}
    after = Counter((note.key, note.step) for note in pair.noted())
    assert {each: after[each] for each in ran} == ran, "what was acknowledged is not done again"
    for worker in workers:
        assert worker.said.count("registers anew: the server is on timeline 2 now") == 1
        assert "declared dead" not in worker.said
    noted = "select count(*) = 1 from perdure.audit where act = 'timeline'"
    eventually(lambda: pair.value(standby, noted), seconds=60, what="a tick on the second timeline")


def test_what_an_asynchronous_standby_never_heard_of_is_done_again(pair: Pair) -> None:
    primary, standby = pair.replicated(is_sync=False)
    workers = [pair.worker("w1"), pair.worker("w2")]
    early = pair.load([f"early{n}" for n in range(8)])
    early.finish()
    pair.start_held(primary, "held")
    pair.wait_streaming(primary, standby)

    pair.hosts.second.cut()
    pair.open_gate("held", "reserve")
    late = pair.load([f"late{n}" for n in range(8)])
    late.finish()
    pair.wait_noted("ran", "held", "charge")  # under the claim that the standby knows: two checkpoints that it does not
    lost = pair.load([f"open{n}" for n in range(40)], pause=0.02)
    eventually(lambda: len(lost.started) >= 10, seconds=60, what="runs under way")
    primary.kill()
    pair.hosts.first.cut()  # else its kernel would still deliver what the dead server had sent
    pair.open_gate("held", "charge")
    pair.hosts.second.join()
    standby.promote()

    lost.finish()
    again = pair.load(late.keys)
    again.finish()
    keys = [*early.keys, *late.keys, *lost.keys, "held"]
    pair.wait_ended(standby, len(keys))
    pair.check(standby, keys)
    assert again.results == late.results == {key: result_of(key) for key in late.keys}
    assert {key: again.started[key] == late.started[key] for key in late.keys} == dict.fromkeys(late.keys, False)

    ran = Counter((note.key, note.step) for note in pair.noted())
    assert {ran[key, step] for key in early.keys for step in STEPS} == {1}
    assert {ran[key, step] for key in late.keys for step in STEPS} == {2}, "the effects of both timelines"
    assert ran["held", "reserve"] == 2
    for worker in workers:
        worker.wait_said("registers anew: the server is on timeline 2 now")
        assert "declared dead" not in worker.said
    assert pair.value(standby, "select reason from perdure.audit where act = 'timeline'") == (
        "the server failed over or was restored: it is on timeline 2 now; what was acknowledged before may be lost"
    )
