"""What was restored does nothing by itself: copies of a busy database, and a return to an earlier point of time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psycopg
import pytest

from failover.flows import STEPS, notes, result_of
from failover.hosts import HostServer
from failover.pair import SETTINGS, Pair, Worker
from support.database import OWNER, eventually

ON_HOLD = "select count(*) from perdure.holds"


def started(pair: Pair, server: HostServer, name: str, effects: Path) -> Worker:
    """Start a worker of a copy; what its steps do goes to a file of their own."""
    worker = pair.worker(name, dsn=pair.dsn(server.host), effects=str(effects))
    pair.wait(server, "select count(*) > 0 from perdure.worker where name = %s", name)
    return worker


def wait_held_ticks(pair: Pair, server: HostServer, name: str) -> None:
    """Wait until a worker of the copy has beaten some seconds, in which it could have claimed everything."""
    pair.wait(
        server,
        "select count(*) > 0 from perdure.worker join perdure.worker_beat using (worker_id)"
        " where name = %s and beat_at > registered_at + interval '3 s'",
        name,
    )


def test_a_dump_restored_elsewhere_does_nothing_until_it_is_adopted(pair: Pair) -> None:
    original, copy = pair.server(pair.hosts.first), pair.server(pair.hosts.second)
    for server in (original, copy):
        server.copy_data(pair.template.data)
        server.start()
    pair.worker("w1")
    load = pair.load([f"k{n}" for n in range(60)], dsn=pair.dsn(pair.hosts.first), pause=0.02)
    pair.start_held(original, "held")
    eventually(lambda: len(load.results) >= 5, seconds=60, what="five results")

    dump = Path(copy.directory) / "dump"
    from_original = pair.conninfo(pair.hosts.first, dbname="perdure")
    copy.pg("pg_dump", "--format=custom", "--file", str(dump), "--dbname", from_original)
    pair.rows(copy, "select 1")
    pair.connect(copy, "postgres").execute("drop database perdure with (force)")
    pair.connect(copy, "postgres").execute(f"create database perdure owner {OWNER}")
    copy.pg(
        "pg_restore",
        "--exit-on-error",
        "--dbname",
        f"host={copy.socket_directory} user=postgres dbname=perdure",
        str(dump),
    )
    keys = {key for (key,) in pair.rows(copy, "select key from perdure.runs")}
    unfinished = pair.value(copy, "select count(*) from perdure.dispatch")
    assert unfinished > 1, "it was busy"

    elsewhere = pair.home / "elsewhere"
    elsewhere.touch()
    started(pair, copy, "copied", elsewhere)
    wait_held_ticks(pair, copy, "copied")
    assert pair.value(copy, ON_HOLD) == 1
    assert notes(elsewhere) == [], "a copy sends nothing"
    assert pair.value(copy, "select count(*) from perdure.dispatch") == unfinished
    pair.open_gate("held", "reserve")
    pair.open_gate("held", "charge")
    load.finish()
    pair.wait_ended(original, 61)

    theirs = {worker_id for (worker_id,) in pair.rows(original, "select worker_id from perdure.worker")}
    pair.rows(copy, "select perdure.adopt('a test of the copy')")
    for worker_id in theirs:
        with pytest.raises(psycopg.Error, match="is not registered"):
            pair.rows(copy, "select perdure.claim_runs(%s, 1)", worker_id)
    for key in keys - {"held"}:
        pair.rows(copy, "select perdure.signal_key('order', %s, 'paid', '7', %s)", key, f"paid {key}")
    pair.wait_ended(copy, len(keys))
    pair.check(copy, sorted(keys))
    assert {note.key for note in notes(elsewhere)} <= keys
    pair.check(original, [*load.keys, "held"])


@pytest.mark.parametrize("where", ["elsewhere", "in place"])
def test_a_point_in_time_restore_lists_whose_effects_it_does_not_know(pair: Pair, where: str) -> None:
    original = pair.server(pair.hosts.first)
    archive = pair.home / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    original.copy_data(pair.template.data)
    original.settings |= {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
    original.start()
    worker = pair.worker("w1")
    base = pair.server(pair.hosts.second, "restored")
    base._own(base.directory)
    base.pg(
        "pg_basebackup", "--pgdata", str(base.data), "--checkpoint=fast", "--wal-method=fetch", "--no-sync",
        "--dbname", pair.conninfo(pair.hosts.first),
    )  # fmt: skip

    before = pair.load([f"before{n}" for n in range(5)], dsn=pair.dsn(pair.hosts.first))
    before.finish()
    for key in ("held-on", "held-off"):
        pair.start_held(original, key)
    pair.rows(original, "select perdure.start('order', '\"asleep\"', key => 'asleep', delay => interval '1 day')")
    point = pair.value(original, "select pg_create_restore_point('here')::text")
    restored_at = pair.value(original, "select clock_timestamp()")
    # what the restored database will not know: the rest of a run, and runs that began later
    for step in ("reserve", "charge"):
        pair.open_gate("held-on", step)
    pair.wait(original, "select state = 'completed' from perdure.runs where key = 'held-on'")
    after = pair.load([f"after{n}" for n in range(5)], dsn=pair.dsn(pair.hosts.first))
    after.finish()
    lost = {
        (key, step)
        for key, step in pair.rows(
            original, "select run_key, key from perdure.recorded_since(%s) where what = 'step saved'", restored_at
        )
        if step in STEPS
    }
    worker.kill() if where == "elsewhere" else worker.freeze()
    pair.rows(original, "select pg_switch_wal()::text")
    pair.wait(original, "select last_archived_wal >= pg_walfile_name(%s::pg_lsn) from pg_stat_archiver", point)
    known = Counter((note.key, note.step) for note in pair.noted())

    if where == "in place":
        original.stop("immediate")
        restored = HostServer(pair.hosts.first, base.directory, base.binaries, SETTINGS)
        pair.servers.append(restored)
    else:
        restored = base
    restored.settings |= {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_name": "here",
        "recovery_target_action": "promote",
        "perdure.hold": "restored from a backup",
    }
    (restored.data / "recovery.signal").touch()
    restored._give(restored.data / "recovery.signal")
    restored.start()
    pair.wait(restored, "select not pg_is_in_recovery()")

    assert pair.value(restored, ON_HOLD) == 1
    risks = {key for (key,) in pair.rows(restored, "select key from perdure.at_risk()")}
    assert risks == {"held-on", "held-off"}, "the sleeper cannot have gone on"
    assert {key for key, _ in lost} == {"held-on", *after.keys}
    assert all(known[each] == 1 for each in lost), "each of them did happen outside"
    elsewhere = pair.effects if where == "in place" else pair.home / "elsewhere"
    elsewhere.touch()
    count = len(notes(elsewhere))
    if where == "in place":
        worker.thaw()  # the one of before comes back to the same address
    pair.worker("w2", dsn=pair.dsn(restored.host), effects=str(elsewhere))
    pair.wait(restored, "select count(*) > 0 from perdure.worker where name = 'w2'")
    wait_held_ticks(pair, restored, "w2")
    assert [note for note in notes(elsewhere)[count:] if note.what == "ran"] == [], "held: nothing begins"

    del restored.settings["perdure.hold"]
    restored.reload()
    eventually(lambda: pair.value(restored, "select coalesce(current_setting('perdure.hold', true), '')") == "")
    pair.rows(restored, "select perdure.adopt('looked at them')")
    for key in ("held-on", "held-off"):
        for step in ("reserve", "charge"):
            path = elsewhere.with_name(f"gate {key} {step}")
            path.touch()
    pair.rows(restored, "select perdure.cancel(run_id, 'not today') from perdure.runs where key = 'asleep'")
    again = pair.load(after.keys, dsn=pair.dsn(restored.host))
    again.finish()
    assert again.results == {key: result_of(key) for key in after.keys}
    pair.wait_ended(restored, 5 + 2 + 1 + 5)
    assert pair.rows(restored, "select invariant, detail from perdure.violations") == []
    ledger = Counter(pair.rows(restored, "select key, step from public.ledger"))
    assert set(ledger.values()) == {1} and {key for key, _ in ledger} == {
        *before.keys,
        *after.keys,
        "held-on",
        "held-off",
    }
