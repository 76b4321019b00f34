"""A role whose transactions are SERIALIZABLE or REPEATABLE READ by default: its workers work, its clients try again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from click.testing import CliRunner

import perdure
from perdure.cli.root import cli
from support import isolation
from support.aio import until
from support.database import Database, eventually
from support.engine import Worker, act, signal, start
from support.scene import Scene

LEVELS = ("repeatable read", "serializable")


@pytest.fixture(params=LEVELS)
def strict(request: pytest.FixtureRequest, database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database in which every session begins its transactions so, and no test is helped."""
    monkeypatch.setattr(isolation, "LEVEL", "")
    setting = f"alter database {database.name} set default_transaction_isolation = '{request.param}'"
    database.admin.execute(setting.encode())
    database.close()
    assert database.connect().execute("show transaction_isolation").fetchone() == (request.param,)
    return database


@pytest.fixture
def scene(strict: Database) -> Iterator[Scene]:
    """Worker processes there."""
    made = Scene(strict)
    made.prepare()
    yield made
    made.close()


def test_real_workers_do_all_their_work(scene: Scene) -> None:
    """Steps, transaction steps, tries, signals, timers; and one is killed: another one's ticks find it out."""
    run_ids = [scene.start("order", str(n), paid=True) for n in range(5)]
    scene.died(scene.worker("after_commit:save_steps", lease="2"))
    heir = scene.worker()
    for n, run_id in enumerate(run_ids):
        assert scene.result(run_id)[0] == f"reserved {n}"
    scene.wait_completed(5)
    assert scene.row("select count(*) from public.trace where step = 'book'") == (5,)
    heir.terminate()
    assert heir.wait(30) == 0


def test_rounds_of_ticks_set_their_isolation_themselves(strict: Database) -> None:
    conn = strict.connect()
    conn.execute("select perdure.put_workflow('order')")
    run_id = start(conn)
    for rounds in (0, 1):
        act(conn, "pause" if rounds == 0 else "resume", run_id)
        notices: list[str] = []
        conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))  # noqa: B023
        conn.execute("call perdure.run_ticks(%s, '200 ms')", [rounds])
        assert strict.value("select count(*) from perdure.wake") == 0
        assert notices == []


def test_a_single_tick_says_how_it_wants_to_be_called(strict: Database) -> None:
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        strict.connect().execute("select perdure.tick()")
    assert "read committed" in (refused.value.diag.message_hint or "")


def test_rounds_of_ticks_are_refused_within_a_transaction(strict: Database) -> None:
    conn = strict.connect(autocommit=False)
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        conn.execute("call perdure.run_ticks(0)")


def test_a_single_round_that_fails_is_an_error(database: Database) -> None:
    """It is what pg_cron and a worker call each second: a warning would be seen by nobody."""
    database.connect().execute(
        "create or replace function perdure.tick() returns jsonb language plpgsql volatile as $$ "
        "begin raise exception 'no luck'; end $$"
    )
    with pytest.raises(psycopg.errors.RaiseException):
        database.connect().execute("call perdure.run_ticks(0)")


def test_the_command_line_works(strict: Database) -> None:
    conn = strict.connect()
    conn.execute("select perdure.put_workflow('order')")
    environment = {"PERDURE_DSN": strict.dsn()}

    def say(*words: str) -> str:
        said = CliRunner().invoke(cli, words, env=environment, catch_exceptions=False)
        assert said.exit_code == 0, said.output
        return said.output.strip()

    say("start", "order", "{}", "--key", "k")
    run_id = str(strict.value("select run_id from perdure.run"))
    say("signal", run_id, "paid", "1")
    for command in ("pause", "resume", "cancel"):
        say(command, run_id)
    say("runs")
    say("show", run_id)
    conn.execute("call perdure.run_ticks(0)")
    assert strict.value("select status from perdure.outcome") == "cancelled"
    say("retry", run_id)


async def test_an_app_starts_and_reads_a_result(strict: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Worker and client in one process, without a warning in its log."""
    app = perdure.App(strict.dsn())

    @app.workflow()
    async def double(run: perdure.AsyncRun, n: int) -> int:
        return 2 * n

    with caplog.at_level(logging.WARNING, logger="perdure"):
        async with app.worker():
            assert await (await app.start(double, 21)).result(timeout=timedelta(seconds=60)) == 42
            looks = "select exists (select from perdure.timeline where ticked_at is not null)"
            await until(lambda: strict.value(looks), seconds=60, what="a tick of the worker's")
    assert not caplog.records


def test_clients_that_meet_are_told_to_try_again_and_all_are_heard(strict: Database) -> None:
    """40001 and nothing else; whoever tries again succeeds; each message is there once."""
    conn = strict.connect()
    conn.execute("select perdure.put_workflow('order')")
    run_id = start(conn, key="k")

    def send(number: int) -> int:
        client = strict.connect(autocommit=False)
        conflicts = 0
        for n in range(8):
            while True:
                try:
                    client.execute("select count(*) from perdure.run")
                    assert start(client, key="k") == run_id
                    assert start(client, key=f"{n}") is not None
                    assert signal(client, run_id, "x", id=f"{number}-{n}") == "accepted"
                    signal(client, run_id, "x", id=f"shared-{n}")
                    client.commit()
                    break
                except psycopg.errors.SerializationFailure:
                    client.rollback()
                    conflicts += 1
                except psycopg.errors.DeadlockDetected:  # pragma: no cover - keys and ids come in one order
                    raise AssertionError("a deadlock") from None
        client.close()
        return conflicts

    with ThreadPoolExecutor(4) as pool:
        conflicts = sum(pool.map(send, range(4)))
    assert conflicts > 0, "nobody met"
    assert strict.value("select count(*) from perdure.signal") == 4 * 8 + 8
    assert strict.value("select count(*) from perdure.run") == 1 + 8
    assert strict.value("select count(*) from perdure.violations") == 0


def test_a_result_is_awaited(strict: Database) -> None:
    """Each look is a transaction; within a block of an older snapshot no end would be seen: refused."""
    conn = strict.connect()
    conn.execute("select perdure.put_workflow('order')")
    run_id = start(conn)
    waiter = strict.connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: waiter.execute("call perdure.await(%s)", [run_id]).fetchone())
        eventually(
            lambda: strict.value(
                "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s", waiter.info.backend_pid
            ),
            what="the wait",
        )
        engine = strict.connect(autocommit=False)
        engine.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        worker = Worker(strict, conn=engine)
        worker.complete(worker.claim_one(), {"n": 42})
        engine.commit()
        assert waiting.result(timeout=30) == ({"n": 42},)
    block = strict.connect(autocommit=False)
    block.execute("select 1")
    assert block.execute("call perdure.await(%s)", [run_id]).fetchone() == ({"n": 42},)
    unfinished = start(conn)
    block.rollback()
    block.execute("select 1")
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        block.execute("call perdure.await(%s, '1 year')", [unfinished])


def test_a_step_that_a_worker_saves_wants_read_committed(strict: Database) -> None:
    conn = strict.connect()
    conn.execute("select perdure.put_workflow('order')")
    start(conn)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        Worker(strict).claim()
    assert strict.value("select count(*) from perdure.dispatch where worker_id is not null") == 0
