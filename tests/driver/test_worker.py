"""A worker in this process: it takes what is for it, hears what it is told, and is in nobody's way."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

import perdure
from perdure import _wire
from perdure._app import collect_seldom
from perdure._worker import WorkerOptions
from support.aio import until
from support.database import Database
from support.engine import call, dispatch, outcome, state

PAID = perdure.Signal("paid", int)


@dataclass
class Order:
    id: int
    tags: list[str]


@pytest.fixture
def app(database: Database) -> perdure.App:
    return perdure.App(database.dsn())


async def test_a_run_gets_and_returns_what_its_annotations_say(app: perdure.App) -> None:
    async def price(order: Order) -> float:
        assert isinstance(order, Order)
        return 2.5 * order.id

    @app.workflow()
    async def cost(run: perdure.AsyncRun, order: Order) -> dict[str, float]:
        return {tag: await run.step(price, order) for tag in order.tags}

    async with app.worker():
        handle = await app.start(cost, Order(2, ["a", "b"]))
        assert await handle.result(timeout=timedelta(seconds=10)) == {"a": 5.0, "b": 5.0}


async def test_a_task_is_a_workflow_of_one_step(app: perdure.App, database: Database) -> None:
    @app.task(retry=perdure.Retry(max_attempts=1))
    async def double(order: Order) -> int:
        return 2 * order.id

    async with app.worker():
        handle = await app.start(double, Order(21, []))
        assert await handle.result() == 42
    assert database.value("select array_agg(key) from perdure.step") == ["double"]


async def test_nobody_is_given_a_workflow_that_it_does_not_know(app: perdure.App, database: Database) -> None:
    @app.workflow()
    async def known(run: perdure.AsyncRun, n: int) -> int:
        return n

    conn = database.connect()
    conn.execute("select perdure.put_workflow('unknown')")
    [[strange]] = conn.execute("select perdure.start('unknown')").fetchall()
    async with app.worker():
        assert await (await app.start(known, 1)).result() == 1
        assert state(database, strange) == "ready"
        assert dispatch(database, strange)["claimed_at"] is None


async def test_a_worker_takes_from_all_queues_that_its_workflows_name(app: perdure.App, database: Database) -> None:
    @app.workflow(queue="reports")
    async def report(run: perdure.AsyncRun, n: int) -> int:
        return n

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    async with app.worker():
        assert database.value("select queues from perdure.worker") == ["default", "reports"]
        handles = [await app.start(report, 1), await app.start(double, 1)]
        assert [await handle.result(timeout=timedelta(seconds=60)) for handle in handles] == [1, 2]


async def test_a_worker_of_some_queues_names_those_that_it_leaves(
    app: perdure.App, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(queue="reports")
    async def report(n: int) -> int:
        return n

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    with caplog.at_level("INFO", logger="perdure"):
        async with app.worker(queues=["default"], name="w"):
            assert database.value("select queues from perdure.worker") == ["default"]
    assert "worker w does not take from reports, which workflows of its app name" in caplog.messages


@pytest.mark.parametrize("name", ["w", "Zürich-" * 20])
async def test_each_connection_of_a_worker_says_what_it_is_for(app: perdure.App, database: Database, name: str) -> None:
    async def look(conn: perdure.Conn) -> str:
        [said] = await (await conn.execute("select current_setting('application_name')")).fetchone() or ("",)
        assert isinstance(said, str)
        return said

    @app.workflow()
    async def looks(run: perdure.AsyncRun, n: int) -> str:
        return await run.transaction(look)

    sessions = "select application_name from pg_stat_activity where application_name like 'perdure worker%'"

    def names() -> list[str]:
        return [row[0] for row in database.admin.execute(f"{sessions} and datname = current_database()").fetchall()]

    async with app.worker(name=name):
        own = await (await app.start(looks, 1)).result(timeout=timedelta(seconds=60))
        await until(lambda: any(said.endswith(" ticks") for said in names()), seconds=60)
        found = {*names(), own}
    assert {said.rpartition(" ")[2] for said in found} == {"beat", "flush", "steps", "ticks"}
    begins = {said.rpartition(" ")[0][:50] for said in found}
    assert begins == {f"perdure worker {name}".replace("ü", "?")[:50]}


async def test_no_more_runs_are_held_and_no_more_steps_run_than_allowed(app: perdure.App, database: Database) -> None:
    running, most = 0, 0

    async def work(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    @app.workflow()
    async def both(run: perdure.AsyncRun, n: int) -> None:
        await asyncio.gather(run.step(work, 1), run.step(work, 2), run.step(work, 3))

    await app.register()
    run_ids = await app.start_many(both, list(range(30)))
    held = 0
    async with app.worker(max_runs=7, max_steps=4):
        results = asyncio.gather(*(app.handle(both, run_id).result() for run_id in run_ids))
        while not results.done():
            held = max(held, database.value("select count(*) from perdure.dispatch where worker_id is not null"))
            await asyncio.sleep(0.01)
    assert most == 4
    assert 0 < held <= 7


async def test_plain_function_steps_do_not_starve_the_loop(app: perdure.App) -> None:
    def block(n: int) -> int:
        time.sleep(0.5)
        return n

    @app.workflow()
    async def blocking(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(block, n)

    async with app.worker():
        handles = [await app.start(blocking, n) for n in range(6)]
        results = asyncio.gather(*(handle.result() for handle in handles))
        longest = 0.0
        while not results.done():
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - begun)
        assert results.result() == list(range(6))
    assert longest < 0.4


async def test_a_signal_wakes_a_waiting_run(app: perdure.App, database: Database) -> None:
    @app.workflow()
    async def waiting(run: perdure.AsyncRun, n: int) -> int:
        return n + await run.wait_signal(PAID)

    async with app.worker():
        handle = await app.start(waiting, 1, key="k")
        await until(lambda: state(database, handle.id) == "waiting")
        assert await app.signal(waiting, "k", PAID, 41, id="evt") == "accepted"
        assert await app.signal(waiting, "k", PAID, 41, id="evt") == "duplicate"
        assert await handle.result() == 42
        assert await handle.signal(PAID, 1) == "finished"


async def test_a_signal_is_heard_while_a_step_runs(app: perdure.App) -> None:
    begun = asyncio.Event()

    async def forever() -> int:
        begun.set()
        await asyncio.sleep(60)
        return 0

    @app.workflow()
    async def racing(run: perdure.AsyncRun, n: int) -> str:
        winner, _ = await run.race(work=run.step(forever), told=run.wait_signal(PAID))
        return winner

    async with app.worker():
        handle = await app.start(racing, 1)
        await asyncio.wait_for(begun.wait(), 10)
        await handle.signal(PAID, 1)
        assert await handle.result(timeout=timedelta(seconds=10)) == "told"


async def test_a_cancel_reaches_a_run_in_memory(app: perdure.App) -> None:
    begun = asyncio.Event()
    cleaned: list[str] = []

    async def forever() -> None:
        begun.set()
        await asyncio.sleep(60)

    async def clean() -> None:
        cleaned.append("up")

    @app.workflow()
    async def cancelled(run: perdure.AsyncRun, n: int) -> None:
        try:
            await run.step(forever)
        except perdure.Cancelled:
            await run.step(clean)
            raise

    async with app.worker():
        handle = await app.start(cancelled, 1)
        await asyncio.wait_for(begun.wait(), 10)
        await handle.cancel("enough")
        with pytest.raises(perdure.RunCancelled, match="enough"):
            await handle.result(timeout=timedelta(seconds=10))
    assert cleaned == ["up"]


async def test_a_paused_run_is_released_and_goes_on_after_resume(app: perdure.App, database: Database) -> None:
    calls: list[int] = []

    async def work(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0.3)
        return n

    @app.workflow()
    async def counting(run: perdure.AsyncRun, n: int) -> int:
        return sum([await run.options(key=f"s{i}").step(work, i) for i in range(n)])

    conn = database.connect()
    async with app.worker():
        handle = await app.start(counting, 8)
        await until(lambda: len(calls) >= 2)
        conn.execute("select perdure.pause(%s, 'wait')", [handle.id])
        await until(lambda: state(database, handle.id) == "paused")
        at_pause = len(calls)
        await asyncio.sleep(0.5)
        assert len(calls) == at_pause
        conn.execute("select perdure.resume(%s, 'go')", [handle.id])
        assert await handle.result(timeout=timedelta(seconds=15)) == sum(range(8))
    assert sorted(calls) == list(range(8)), "no step ran twice for it"


async def test_a_terminated_run_is_dropped_from_memory(app: perdure.App, database: Database) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()

    @app.workflow()
    async def endless(run: perdure.AsyncRun, n: int) -> None:
        await run.step(forever)

    async with app.worker():
        handle = await app.start(endless, 1)
        await asyncio.wait_for(begun.wait(), 10)
        database.connect().execute("select perdure.terminate(%s, 'now')", [handle.id])
        with pytest.raises(perdure.RunTerminated, match="now"):
            await handle.result(timeout=timedelta(seconds=10))
        await asyncio.wait_for(gone.wait(), 10)


async def test_leaving_the_block_releases_what_is_held(app: perdure.App, database: Database) -> None:
    begun = asyncio.Event()

    async def work(n: int) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    @app.workflow()
    async def stopped(run: perdure.AsyncRun, n: int) -> None:
        for i in range(50):
            await run.options(key=f"s{i}").step(work, i)

    async with app.worker():
        handle = await app.start(stopped, 1)
        await asyncio.wait_for(begun.wait(), 10)
    row = dispatch(database, handle.id)
    assert row["worker_id"] is None and row["recoveries"] == 0
    assert database.value("select count(*) from perdure.step") >= 1, "the step in flight was saved"
    assert database.value("select count(*) from perdure.worker") == 0
    await until(
        lambda: database.value("select count(*) = 0 from pg_stat_activity where application_name like 'perdure%%'")
    )


async def test_two_workers_share_the_runs(app: perdure.App, database: Database) -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0.02)
        return n

    @app.workflow()
    async def shared(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work, n)

    await app.register()
    run_ids = await app.start_many(shared, list(range(60)))
    async with app.worker(max_runs=5, name="one"), app.worker(max_runs=5, name="two"):
        results = [await app.handle(shared, run_id).result() for run_id in run_ids]
        assert database.value("select array_agg(name order by name) from perdure.worker") == ["one", "two"]
    assert results == list(range(60))


async def test_an_unreachable_or_empty_database_is_told_at_once(empty_database: Database) -> None:
    app = perdure.App(empty_database.dsn())

    @app.workflow()
    async def any_workflow(run: perdure.AsyncRun, n: int) -> None: ...

    with pytest.raises(psycopg.errors.InvalidSchemaName):
        async with app.worker():
            pass


async def test_a_worker_that_was_forgotten_drops_all_and_registers_anew(app: perdure.App, database: Database) -> None:
    begun = asyncio.Event()
    count = 0

    async def work() -> int:
        nonlocal count
        count += 1
        begun.set()
        await asyncio.sleep(1.0 if count == 1 else 0)
        return count

    @app.workflow()
    async def forgotten(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work)

    async with app.worker():
        handle = await app.start(forgotten, 1)
        await asyncio.wait_for(begun.wait(), 10)
        before = database.value("select worker_id from perdure.worker")
        database.admin.execute("delete from perdure.worker; delete from perdure.worker_beat")
        assert await handle.result(timeout=timedelta(seconds=15)) == 2
        assert database.value("select worker_id from perdure.worker") != before


async def test_after_a_failover_a_worker_begins_anew(app: perdure.App, database: Database) -> None:
    begun = asyncio.Event()
    count = 0

    async def work() -> int:
        nonlocal count
        count += 1
        begun.set()
        await asyncio.sleep(60 if count == 1 else 0)
        return count

    @app.workflow()
    async def on_both(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work)

    async with app.worker():
        handle = await app.start(on_both, 1)
        await asyncio.wait_for(begun.wait(), 10)
        before = database.value("select worker_id from perdure.worker")
        await until(
            lambda: database.value(
                "select beat_at > registered_at from perdure.worker join perdure.worker_beat using (worker_id)"
            )
        )
        database.admin.execute(
            "create or replace function perdure._timeline() returns integer language sql volatile"
            " set search_path = pg_catalog, pg_temp as 'select 42'"
        )
        assert await handle.result(timeout=timedelta(seconds=15)) == 2
        assert database.value("select array_agg(worker_id) from perdure.worker") != [before]
        assert database.value("select count(*) from perdure.worker") == 1


async def test_a_run_that_cannot_be_read_is_paused_instead_of_coming_back_for_ever(
    app: perdure.App, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.workflow()
    async def readable(run: perdure.AsyncRun, n: int) -> int:
        return n

    read = _wire.claimed_of

    def unreadable(row: Any, later: Any) -> Any:
        if row["key"] == "bad":
            raise KeyError("something new")
        return read(row, later)

    monkeypatch.setattr(_wire, "claimed_of", unreadable)
    async with app.worker():
        bad = await app.start(readable, 1, key="bad")
        good = await app.start(readable, 2)
        assert await good.result() == 2
        await until(lambda: state(database, bad.id) == "paused")
    reason = database.value("select reason from perdure.act where run_id = %s", bad.id)
    assert "cannot be executed" in reason and "something new" in reason


async def test_what_the_database_says_we_hold_and_we_do_not_is_given_back(app: perdure.App, database: Database) -> None:
    @app.workflow()
    async def lost(run: perdure.AsyncRun, n: int) -> int:
        return n

    async with app.worker():
        assert await (await app.start(lost, 1)).result() == 1
        worker_id = database.value("select worker_id from perdure.worker")
        conn = database.connect()
        [row] = call(conn, "start", workflow="lost", input=Jsonb(2), delay=timedelta(hours=1))
        # as if its claim had been committed and nobody had heard of it
        database.admin.execute(
            "update perdure.dispatch set worker_id = %s, claim = gen_random_uuid(), claimed_at = now() where run_id = %s",
            [worker_id, row["start"]],
        )
        assert await app.handle(lost, row["start"]).result(timeout=timedelta(seconds=15)) == 2


async def test_a_step_that_tells_of_an_impossible_progress_does_not_stop_the_beat(
    app: perdure.App, database: Database
) -> None:
    async def work() -> int:
        perdure.current_step().progress("\ud800 \0")
        await asyncio.sleep(3.5)
        return 1

    @app.workflow()
    async def talking(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work)

    worker = app._new_worker(WorkerOptions(lease=timedelta(seconds=1)))
    async with app:
        await worker.start()
        try:
            before = database.value("select worker_id from perdure.worker")
            handle = await app.start(talking, 1)
            assert await handle.result(timeout=timedelta(seconds=15)) == 1
            assert database.value("select worker_id from perdure.worker") == before
        finally:
            await worker.stop()


async def test_long_steps_are_seen_with_their_progress(app: perdure.App, database: Database) -> None:
    async def work() -> int:
        perdure.current_step().progress({"done": 3})
        await asyncio.sleep(4)
        return 1

    @app.workflow()
    async def visible(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work)

    async with app.worker():
        handle = await app.start(visible, 1)

        def look() -> Any:
            return database.value("select activity -> 0 from perdure.worker_beat")

        seen = await until(look)
        assert (seen["run_id"], seen["key"], seen["progress"]) == (str(handle.id), "work", {"done": 3})
        assert await handle.result() == 1


async def test_a_live_worker_ticks(app: perdure.App, database: Database) -> None:
    @app.workflow(timeout=timedelta(seconds=1))
    async def overdue(run: perdure.AsyncRun, n: int) -> int:
        return await run.wait_signal(PAID)

    async with app.worker():
        handle = await app.start(overdue, 1)
        with pytest.raises(perdure.RunTimedOut):
            await handle.result(timeout=timedelta(seconds=15))
    assert outcome(database, handle.id) == "timed_out"


async def test_a_worker_whose_installation_is_gone_says_so_without_end_of_lines_and_goes_on_when_it_is_back(
    app: perdure.App, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    @app.workflow()
    async def kept(run: perdure.AsyncRun, n: int) -> int:
        return n

    asked: set[tuple[int, Any]] = set()

    def has_asked_often() -> bool:
        asked.update(
            database.admin.execute(
                "select pid, query_start from pg_stat_activity"
                " where application_name like 'perdure worker%' and datname = current_database()"
            ).fetchall()
        )
        return len(asked) >= 15

    async with app.worker():
        assert await (await app.start(kept, 1)).result() == 1
        database.admin.execute("drop schema perdure cascade")
        await until(has_asked_often, seconds=60)
        for what in ("a heartbeat failed", "a tick failed", "runs cannot be claimed|a flush failed"):
            await until(lambda what=what: re.search(what, caplog.text), seconds=60)  # type: ignore[misc]
        told = [record for record in caplog.records if record.name == "perdure"]
        assert len(told) <= 10, [record.getMessage() for record in told]
        assert all(record.exc_info is None for record in told)
        database.install()
        await until(lambda: database.value("select exists (select from perdure.worker)"), seconds=60)
        assert await (await app.start(kept, 2)).result(timeout=timedelta(seconds=60)) == 2


async def test_another_schema_works_as_well(empty_database: Database) -> None:
    empty_database.install("elsewhere")
    app = perdure.App(empty_database.dsn(), schema="elsewhere")

    async def work(n: int) -> int:
        return n + 1

    @app.workflow()
    async def moved(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(work, n)

    async with app.worker():
        assert await (await app.start(moved, 1)).result() == 2


def test_a_worker_process_lets_the_collector_come_seldom_unless_its_owner_set_it() -> None:
    before = gc.get_threshold()
    try:
        for set_to, left in [
            ((700, 10, 10), (10_000, 10, 10)),
            ((0, 5, 5), (0, 5, 5)),
            ((50_000, 5, 5), (50_000, 5, 5)),
        ]:
            gc.set_threshold(*set_to)
            collect_seldom()
            assert gc.get_threshold() == left
    finally:
        gc.set_threshold(*before)
