"""Savepoints, caught exceptions and prepared transactions of the caller's: what is kept takes effect, what is rolled
back leaves no trace, and nobody waits meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from perdure._postgres import Server
from support import provision
from support.database import FORGETFUL, Database, private_server, remove
from support.engine import (
    Connection,
    Held,
    Worker,
    a_run,
    act,
    call,
    drain,
    keys,
    outcome,
    scalar,
    signal,
    start,
    state,
    wait,
    with_no_grace,
)

TABLES = ("run", "dispatch", "signal", "act", "wake", "run_key", "audit", "outcome", "step")


def everything(database: Database) -> list[object]:
    return [
        database.value(f"select coalesce(jsonb_agg(to_jsonb(t) order by t::text), '[]') from perdure.{t} as t")  # type: ignore[arg-type]
        for t in TABLES
    ]


def tell(conn: Connection, held: Held, ended: UUID) -> None:
    """Say everything that a client may say."""
    start(conn)
    start(conn, key="k")
    assert signal(conn, held.run_id, "w") == "accepted"
    assert signal(conn, held.run_id, "w", id="7") == "accepted"
    assert (
        scalar(conn, "signal_key", workflow="order", key="other", name="x", start_input=psycopg.types.json.Jsonb(1))
        == "accepted"
    )
    assert act(conn, "pause", held.run_id) == "accepted"
    assert act(conn, "resume", held.run_id) == "accepted"
    assert act(conn, "cancel", held.run_id) == "accepted"
    assert act(conn, "retry", ended) == "accepted"


@pytest.fixture
def ended(database: Database, conn: Connection) -> UUID:
    """A run that failed."""
    worker, held = a_run(database)
    worker.fail(held)
    worker.stop()
    return held.run_id


def test_what_is_rolled_back_to_a_savepoint_leaves_no_trace_and_the_rest_takes_effect(
    database: Database, conn: Connection, ended: UUID
) -> None:
    worker, held = a_run(database)
    before = everything(database)
    client = database.connect(autocommit=False)
    for _ in range(3):
        client.execute("savepoint s")
        tell(client, held, ended)
        client.execute("rollback to savepoint s")
    client.commit()
    assert everything(database) == before
    client.execute("savepoint s")
    tell(client, held, ended)
    client.execute("release savepoint s")
    client.commit()
    drain(conn)
    assert database.value("select count(*) from perdure.run") == 2 + 3
    assert worker.complete(held) == "cancelled"
    assert outcome(database, ended) is None


def test_a_key_given_up_by_a_savepoint_is_free_for_others_at_once(database: Database, conn: Connection) -> None:
    client = database.connect(autocommit=False)
    client.execute("savepoint s")
    start(client, key="k")
    client.execute("rollback to savepoint s")
    conn.execute("set lock_timeout = '50ms'")
    assert start(conn, key="k")


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_what_a_function_catches_leaves_no_trace(database: Database, conn: Connection, ended: UUID, level: str) -> None:
    """An exception block around start, signal and cancel: its part is undone, what surrounds it stays."""
    worker, held = a_run(database)
    client = database.connect(database.superuser, autocommit=False)
    client.execute(f"set transaction isolation level {level}".encode())
    client.execute(
        f"""
        do $$
        declare v_kept uuid;
        begin
          v_kept := perdure.start('order', key => 'kept');
          for v_round in 1..3 loop
            begin
              perform perdure.start('order', key => 'k'), perdure.signal('{held.run_id}', 'w', id => '7'),
                perdure.cancel('{held.run_id}'), perdure.retry('{ended}');
              raise exception 'no';
            exception when raise_exception then null;
            end;
            begin
              perform perdure.start('no such workflow');
            exception when invalid_parameter_value then null;
            end;
            begin
              perform perdure.cancel('{UUID(int=0)}');
            exception when sqlstate 'PD001' then null;
            end;
          end loop;
          perform perdure.signal(v_kept, 'w', id => '7');
        end $$""".encode()
    )
    client.commit()
    drain(conn)
    assert database.value("select jsonb_agg(key) from perdure.run_key") == ["kept"]
    assert database.value("select count(*) from perdure.signal") == 1
    assert database.value("select count(*) from perdure.act") == 0
    assert (worker.complete(held), outcome(database, ended)) == ("done", "failed")


def test_a_step_rolled_back_to_a_savepoint_may_be_saved_again(database: Database, conn: Connection) -> None:
    worker, held = a_run(database)
    user = database.connect(autocommit=False)
    user.execute("savepoint s")
    worker.on(user).transaction_step(held, "charge", 1, ordinal=1)
    user.execute("rollback to savepoint s")
    worker.on(user).transaction_step(held, "charge", 2, ordinal=1)
    user.commit()
    assert database.value("select result from perdure.step") == 2


def test_transactions_open_for_long_hold_up_nobody_and_take_effect(database: Database, conn: Connection) -> None:
    """Ten of them, of every isolation, while runs start, wait, are told and end; virtual hours go by."""
    worker = Worker(database, lease="1 day")
    worker.conn.execute("set lock_timeout = '50ms'")
    run_ids = [start(conn) for _ in range(10)]
    batch = worker.claim(10)
    clients = []
    for n, run_id in enumerate(run_ids):
        client = database.connect(autocommit=False)
        client.isolation_level = psycopg.IsolationLevel(n % 3 + 2)
        start(client, key=f"long {n}")
        signal(client, run_id, "late", id=str(n))
        act(client, ("pause", "cancel", "resume")[n % 3], run_id)
        clients.append(client)
    for held in batch:
        assert worker.suspend(held, wait("now"), wait("late")) == "suspended"
    for hour in range(3):
        database.clock.advance(hours=1)
        worker.beat()
        for run_id in run_ids:
            signal(conn, run_id, "now", {"hour": hour})
        assert drain(conn)[1] == 0
        assert conn.execute("select perdure.tick()").fetchone()
        for held in worker.claim(20):
            assert worker.save(held, f"s{hour}") == "saved"
            assert worker.suspend(held, wait(f"now#{hour + 2}", name="now"), wait("late")) == "suspended"
    assert {key for run_id in run_ids for key in keys(database, run_id)} >= {"now", "s0", "s1", "s2"}
    for client in clients:
        client.commit()
    conn.execute("select perdure.tick()")
    assert [state(database, run_id) for run_id in run_ids].count("paused") == 4
    for run_id in run_ids:
        act(conn, "resume", run_id)
    seen = 0
    while claimed := worker.claim(20):
        for held in claimed:
            seen += "late" in keys(database, held.run_id)
            worker.complete(held)
    assert seen >= 7, "those that were cancelled need not have read it"
    assert database.value("select count(*) from perdure.outcome") == 20
    assert database.value("select count(*) from perdure.violations") == 0


@pytest.fixture(scope="module")
def preparing(prefix: str) -> Iterator[Server | object]:
    """A server on which transactions can be prepared."""
    binaries = provision.own_binaries()
    assert binaries is not None, "needs Postgres binaries on this machine"
    made = private_server(binaries, prefix, {**FORGETFUL, "max_prepared_transactions": "10"})
    yield made
    remove(made)


@pytest.fixture
def prepared(preparing: object) -> Iterator[Database]:
    """A database there."""
    made: Database = preparing.installed_database()  # type: ignore[attr-defined]
    made.connect().execute("select perdure.put_workflow('order')")
    yield made
    for (gid,) in made.admin.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
    ).fetchall():
        made.admin.execute(f"rollback prepared '{gid}'".encode())
    made.drop()


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_prepared_transaction_takes_effect_late_or_never_and_nobody_waits(prepared: Database, ends: str) -> None:
    """Start, signal, cancel, pause, resume, retry: prepared, its session gone, the server restarted in between."""
    conn = prepared.connect()
    failing, failed = a_run(prepared)
    failing.fail(failed)
    worker, held = a_run(prepared)
    client = prepared.connect(autocommit=False)
    tell(client, held, failed.run_id)
    before = everything(prepared)
    client.execute("prepare transaction 'told'")
    client.close()
    assert everything(prepared) == before

    for each in (conn, worker.conn):
        each.execute("set lock_timeout = '50ms'")
    assert worker.save(held, "a") == "saved"
    assert signal(conn, held.run_id, "other") == "accepted"
    assert start(conn, key="another")
    assert drain(conn) == (1, 0)
    assert conn.execute("select perdure.tick()").fetchone()
    assert worker.suspend(held, wait("w")) == "suspended"
    prepared.admin.execute("alter function perdure.start set lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):  # the one honest exception: the same key
        start(conn, key="k")
    if ends == "rollback":
        prepared.admin.execute("rollback prepared 'told'")
        assert drain(conn) == (0, 0)
        assert state(prepared, held.run_id) == "waiting"
        assert prepared.value("select count(*) from perdure.signal where name = 'w'") == 0
        assert outcome(prepared, failed.run_id) == "failed"
        assert start(conn, key="k")
        return
    prepared.admin.execute("commit prepared 'told'")
    assert start(conn, key="k")
    claimed = {each.run_id: each for each in worker.claim(10)}
    assert claimed[held.run_id].cancel == "cancelled"
    assert failed.run_id in claimed
    assert prepared.value("select count(*) from perdure.signal where name = 'w'") == 2
    for each in claimed.values():
        worker.complete(each)
    assert prepared.value("select count(*) from perdure.dispatch") == 0
    assert prepared.value("select count(*) from perdure.violations") == 0


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_prepared_step_keeps_its_worker_from_being_buried_until_it_is_ended(prepared: Database, ends: str) -> None:
    """The fence outlives its session then, so that what becomes of the step is known before anybody takes the run."""
    conn = prepared.connect()
    with_no_grace(prepared)
    start(conn)
    worker, held = a_run(prepared)
    other = worker.claim_one() if not worker.runs() - {held.run_id} else None
    user = prepared.connect(autocommit=False)
    worker.on(user).transaction_step(held, "charge")
    user.execute("prepare transaction 'step'")
    user.close()
    prepared.admin.execute("update perdure.worker_beat set beat_at = '2000-01-01'")
    conn.execute("set lock_timeout = '50ms'")
    assert conn.execute("select perdure.recover()").fetchone() == (0,)
    assert conn.execute("select perdure.tick()").fetchone()
    assert other is None or other.run_id in worker.runs()
    prepared.admin.execute(f"{ends} prepared 'step'".encode())
    assert conn.execute("select perdure.recover()").fetchone() == (2,)
    assert keys(prepared, held.run_id) == (["charge"] if ends == "commit" else [])
    heir = Worker(prepared)
    assert {each.run_id for each in heir.claim(10)} >= {held.run_id}
    assert prepared.value("select count(*) from perdure.violations") == 0
    assert call(conn, "drain")[0]["skipped"] == 0


@pytest.mark.slow
def test_a_start_beside_a_worker_that_waits_can_be_prepared_unless_it_is_to_notify(prepared: Database) -> None:
    """What carries a NOTIFY cannot be prepared, so nothing does where transactions can be prepared."""
    session = prepared.connect()
    worker = Worker(prepared, conn=session)
    assert scalar(session, "listen", worker_id=worker.worker_id) == []
    prepared.admin.execute("select perdure.put_setting('notify', '\"always\"')")
    assert scalar(session, "listen", worker_id=worker.worker_id) == ["default"]
    client = prepared.connect(autocommit=False)
    start(client)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
        client.execute("prepare transaction 'told'")
    client.rollback()
    prepared.admin.execute("select perdure.put_setting('notify', '\"auto\"')")
    start(client)
    client.execute("prepare transaction 'started'")
