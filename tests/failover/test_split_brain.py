"""Two primaries at once, and the way back: what the old one did is not accepted, and everything goes on."""

from __future__ import annotations

from collections import Counter

from failover.flows import STEPS, result_of
from failover.pair import Pair
from support.database import eventually


def test_nothing_that_the_old_primary_did_after_the_split_is_accepted(pair: Pair) -> None:
    old, new = pair.replicated(is_sync=False)
    hosts = pair.hosts
    beside_old = pair.worker("old", on=hosts.first)
    pair.wait(old, "select count(*) = 1 from perdure.worker")
    both, later = "held-both", "held-later"
    for key in (both, later):
        pair.start_held(old, key)  # in the hands of the old side's worker, and the standby knows it
    pair.wait_streaming(old, new)

    hosts.first.cut()
    new.promote()
    beside_new = pair.worker("new", on=hosts.second)
    shared = [f"shared{n}" for n in range(5)]  # clients on both sides ask for the same
    of_old = pair.load([*shared, *(f"old{n}" for n in range(5))], dsn=old.dsn("perdure"))  # by its socket
    of_new = pair.load([*shared, *(f"new{n}" for n in range(5))])
    of_old.finish()
    of_new.finish()
    for key in (both, later):
        pair.open_gate(key, "reserve")
    pair.open_gate(both, "charge")
    pair.wait(old, "select state = 'completed' from perdure.runs where key = %s", both)
    pair.wait(new, "select state = 'completed' from perdure.runs where key = %s", both)
    eventually(lambda: len([n for n in pair.noted() if (n.key, n.step) == (later, "charge")]) == 2, seconds=60)

    assert pair.rows(old, "select count(*) from perdure.worker where name = 'new'") == [(0,)]
    old.kill()  # whoever heals a partition stops one of the two first
    hosts.first.join()
    pair.open_gate(
        later, "charge"
    )  # now the worker of the old side has a checkpoint to save, and finds the new primary
    beside_old.wait_said("registers anew")
    pair.wait_ended(new, 12)
    pair.check(new, [*of_new.keys, both, later])
    assert of_old.results == {key: result_of(key) for key in of_old.keys}, "on its timeline all was well"
    assert of_new.results == {key: result_of(key) for key in of_new.keys}
    pair.wait(new, "select count(*) = 1 from perdure.worker where name = 'old'")

    ran = Counter((note.key, note.step, note.worker) for note in pair.noted())
    twice = {(key, step) for key in (*shared, both, later) for step in STEPS}
    assert {(key, step) for key, step, _ in ran if ran[key, step, "old"] and ran[key, step, "new"]} == twice
    assert set(ran.values()) == {1}, "once on each side"
    assert "declared dead" not in beside_new.said


def test_the_old_primary_comes_back_as_standby_and_takes_over_again(pair: Pair) -> None:
    first, second = pair.replicated(is_sync=False)
    workers = [pair.worker("w1"), pair.worker("w2")]
    load = pair.load([f"k{n}" for n in range(150)], pause=0.05)
    eventually(lambda: len(load.results) >= 10, seconds=60, what="ten results")
    pair.hosts.second.cut()
    acknowledged = len(load.started)
    eventually(
        lambda: len(load.started) > acknowledged + 5, seconds=60, what="starts that the standby does not hear of"
    )
    first.kill()
    pair.hosts.first.cut()
    pair.hosts.second.join()
    second.promote()
    pair.hosts.first.join()

    pair.connect(second).execute("checkpoint")  # before its first one on the new timeline pg_rewind sees nothing to do
    source = pair.conninfo(pair.hosts.second, dbname="postgres")
    first.pg("pg_rewind", "--target-pgdata", str(first.data), "--source-server", source, "--no-sync")
    first.follow(pair.conninfo(pair.hosts.second, application_name=first.host.name))
    first.start()
    pair.wait_streaming(second, first)
    second.reload(synchronous_standby_names=first.host.name)
    pair.wait(second, "select sync_state = 'sync' from pg_stat_replication")
    noted = "select count(*) = %s from perdure.audit where act = 'timeline'"
    pair.wait(second, noted, 1)
    second.kill()
    first.promote()

    load.finish()
    pair.load(load.keys).finish()  # what the first one had acknowledged and the second one did not know
    pair.wait_ended(first, len(load.keys))
    pair.check(first, load.keys)
    assert load.results == {key: result_of(key) for key in load.keys}
    for worker in workers:
        worker.wait_said("registers anew: the server is on timeline 3 now")
        assert "declared dead" not in worker.said
    pair.wait(first, noted, 2)
