"""What an application asks belongs to its own transaction, and nobody waits for ever for what does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import perdure
from perdure._results import ResultPoller
from support.aio import until
from support.database import Database
from support.engine import Worker, state

PAID = perdure.Signal("paid", dict[str, int])
SHOWN = perdure.Value("shown", list[int])


@pytest.fixture
def app(database: Database) -> perdure.App:
    return perdure.App(database.dsn())


@pytest.fixture
async def order(app: perdure.App) -> perdure.Workflow[dict[str, int], int]:
    @app.workflow(name="order")
    async def order(run: perdure.AsyncRun, input: dict[str, int]) -> int:
        return input["n"]

    await app.register()
    return order


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A caller's connection, in the caller's transaction."""
    async with await database.aconnect(autocommit=False) as made:
        yield made


Order = perdure.Workflow[dict[str, int], int]


async def test_a_rollback_leaves_nothing(
    app: perdure.App, order: Order, conn: psycopg.AsyncConnection[Any], database: Database
) -> None:
    known = await app.start(order, {"n": 1})
    client = app.using(conn)
    handle = await client.start(order, {"n": 1}, key="k")
    await client.start_many(order, [{"n": 2}, {"n": 3}])
    assert await app.using(conn).handle(order, known.id).signal(PAID, {"a": 1}) == "accepted"
    await client.handle(order, known.id).cancel("no")
    await conn.rollback()
    assert database.value("select count(*) from perdure.run") == 1
    assert database.value("select count(*) from perdure.signal") == 0
    assert database.value("select count(*) from perdure.act") == 0
    assert database.value("select count(*) from perdure.wake") == 0
    with pytest.raises(perdure.RunNotFound):
        await handle.result()


async def test_a_commit_makes_order_and_run_real_together(
    app: perdure.App, order: Order, conn: psycopg.AsyncConnection[Any], database: Database
) -> None:
    await conn.execute("create table public.orders (id int)")
    await conn.execute("insert into public.orders values (42)")
    handle = await app.using(conn).start(order, {"n": 42}, key="order-42", tags={"customer": "7"})
    assert database.value("select count(*) from perdure.run") == 0, "nothing is to be seen before the commit"
    with pytest.raises(perdure.RunNotFound, match="committed"):
        await handle.result()
    await conn.commit()
    async with app.worker():
        assert await handle.result() == 42
    assert database.value("select tags from perdure.run") == {"customer": "7"}


async def test_the_callers_cursors_and_rows_are_the_callers(app: perdure.App, order: Order, database: Database) -> None:
    conn = await database.aconnect(row_factory=dict_row, cursor_factory=psycopg.AsyncClientCursor)
    handle = await app.using(conn).start(order, {"n": 1}, key="k")
    found = await app.using(conn).find(order, "k")
    assert found is not None and found.id == handle.id
    assert await app.using(conn).find(order, "other") is None


async def test_the_same_key_is_the_same_run(app: perdure.App, order: Order) -> None:
    first = await app.start(order, {"n": 1}, key="k")
    second = await app.start(order, {"n": 1}, key="k")
    assert (first.id, first.is_new, second.is_new) == (second.id, True, False)
    with pytest.raises(perdure.KeyConflict, match="another input") as conflict:
        await app.start(order, {"n": 2}, key="k")
    assert isinstance(conflict.value.__cause__, psycopg.Error)
    with pytest.raises(perdure.KeyConflict):
        await app.start(order, {"n": 1}, key="k", on_duplicate="error")
    third = await app.start(order, {"n": 2}, key="k", on_duplicate="replace")
    assert third.is_new and third.id != first.id


async def test_of_two_that_start_a_key_at_the_same_moment_one_is_told_that_it_is_new(
    app: perdure.App, order: Order, database: Database
) -> None:
    first, second = await database.aconnect(autocommit=False), await database.aconnect(autocommit=False)
    mine = await app.using(first).start(order, {"n": 1}, key="k")
    starting = asyncio.ensure_future(app.using(second).start(order, {"n": 1}, key="k"))
    await asyncio.to_thread(database.wait_blocked, second, by=first.info.backend_pid)
    await first.commit()
    theirs = await starting
    assert (mine.is_new, theirs.is_new) == (True, False) and mine.id == theirs.id


async def test_options_reach_the_database(app: perdure.App, order: Order, database: Database) -> None:
    database.connect().execute("select perdure.put_queue('fast')")
    handle = await app.start(
        order,
        {"n": 1},
        queue="fast",
        priority=1,
        delay=timedelta(hours=1),
        timeout=timedelta(minutes=5),
        max_recoveries=3,
        headers={"trace": "x"},
    )
    row = database.admin.execute(
        "select queue, priority, timeout, max_recoveries, headers, start_at > now() from perdure.run"
    ).fetchone()
    assert row == ("fast", 1, timedelta(minutes=5), 3, {"trace": "x"}, True)
    assert state(database, handle.id) == "scheduled"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="priority"):
        await app.start(order, {"n": 1}, priority=9)


async def test_many_starts_are_one_statement_and_keep_their_order(app: perdure.App, order: Order) -> None:
    run_ids = await app.start_many(order, [{"n": n} for n in range(50)], keys=[f"k{n}" for n in range(50)])
    again = await app.start_many(order, [{"n": n} for n in range(50)], keys=[f"k{n}" for n in range(50)])
    assert again == run_ids and len(set(run_ids)) == 50
    async with app.worker():
        results = await asyncio.gather(*(app.handle(order, run_id).result() for run_id in run_ids))
    assert results == list(range(50))


async def test_a_signal_can_start_its_run(app: perdure.App, order: Order) -> None:
    assert await app.signal(order, "k", PAID, {"a": 1}) == "unknown"
    assert await app.signal(order, "k", PAID, {"a": 1}, id="e1", start_input={"n": 7}) == "accepted"
    assert await app.signal(order, "k", PAID, {"a": 1}, id="e1", start_input={"n": 7}) == "duplicate"
    found = await app.find(order, "k")
    assert found is not None and not found.is_new


async def test_an_unknown_run_is_an_error_at_once(app: perdure.App, order: Order) -> None:
    with pytest.raises(perdure.RunNotFound):
        await app.handle(order, uuid4()).result()
    with pytest.raises(perdure.RunNotFound):
        await app.handle(order, uuid4()).cancel()


async def test_a_result_is_waited_for_only_so_long(app: perdure.App, order: Order) -> None:
    handle = await app.start(order, {"n": 1})
    with pytest.raises(perdure.TimedOut):
        await handle.result(timeout=timedelta(milliseconds=50))
    assert app._database.results._waiters == {} or all(
        waiter.done() for waiters in app._database.results._waiters.values() for waiter in waiters
    )


async def test_all_who_wait_ask_in_one_query(app: perdure.App, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = ResultPoller._ask

    async def noted(poller: ResultPoller, conn: Any, run_ids: list[UUID]) -> Any:
        asked.append(len(run_ids))
        return await ask(poller, conn, run_ids)

    monkeypatch.setattr(ResultPoller, "_ask", noted)
    run_ids = await app.start_many(order, [{"n": n} for n in range(100)])
    async with app:
        waiting = [asyncio.ensure_future(app.handle(order, run_id).result()) for run_id in run_ids]
        await until(lambda: len(asked) >= 10)
        assert 100 in asked
        assert sum(asked[:10]) >= 500, "those who came a little later may go their own way"
        async with app.worker():
            assert await asyncio.gather(*waiting) == list(range(100))


async def test_who_waits_next_is_heard_while_the_last_one_leaves(app: perdure.App, order: Order) -> None:
    run_ids = await app.start_many(order, [{"n": n} for n in range(30)])
    async with app.worker():
        for n, run_id in enumerate(run_ids):
            assert await app.handle(order, run_id).result(timeout=timedelta(seconds=10)) == n


async def test_each_bad_end_has_its_class(app: perdure.App, order: Order, database: Database) -> None:
    worker = Worker(database, workflows=["order"])
    ends: dict[str, type[perdure.DatabaseError]] = {
        "failed": perdure.RunFailed,
        "cancelled": perdure.RunCancelled,
        "terminated": perdure.RunTerminated,
        "timed_out": perdure.RunTimedOut,
        "dead": perdure.RunDead,
    }
    for status, kind in ends.items():
        handle = await app.start(order, {"n": 1})
        held = worker.claim_one()
        worker.fail(held, type="ValueError", message="broken")
        database.admin.execute("update perdure.outcome set status = %s where run_id = %s", [status, handle.id])
        with pytest.raises(kind, match=f"{status}: ValueError: broken") as ended:
            await handle.result()
        assert ended.value.run_id == handle.id
        assert ended.value.error is not None and ended.value.error["type"] == "ValueError"


async def test_a_value_is_shown_as_its_type(app: perdure.App) -> None:
    @app.workflow()
    async def showing(run: perdure.AsyncRun, n: int) -> None:
        await run.set_value(SHOWN, [1, 2])
        await run.set_value(SHOWN, [1, 2, 3])

    async with app.worker():
        handle = await app.start(showing, 1)
        await handle.result()
        assert await handle.value(SHOWN) == [1, 2, 3]
        assert await handle.value(perdure.Value("other", int)) is None
        assert "completed" in await handle.explain()


async def test_a_connection_of_another_kind_is_refused(app: perdure.App, order: Order, database: Database) -> None:
    with pytest.raises(perdure.Misuse, match="AsyncConnection"):
        await app.using(database.connect()).start(order, {"n": 1})


async def test_an_sqlalchemy_session_is_a_transaction_too(app: perdure.App, order: Order, database: Database) -> None:
    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(database.dsn())
    )
    try:
        async with AsyncSession(engine) as session:
            handle = await app.using(session).start(order, {"n": 1})
            await session.rollback()
            assert database.value("select count(*) from perdure.run") == 0
            handle = await app.using(session).start(order, {"n": 5})
            await session.commit()
        async with engine.begin() as connection:
            assert await app.using(connection).handle(order, handle.id).signal(PAID, {"a": 1}) == "accepted"
    finally:
        await engine.dispose()
    async with app.worker():
        assert await handle.result() == 5
    assert database.value("select count(*) from perdure.signal") == 1


async def test_included_workflows_are_run_too(app: perdure.App) -> None:
    other = perdure.App("host=nowhere")

    @other.workflow()
    async def included(run: perdure.AsyncRun, n: int) -> int:
        return n

    app.include(other)
    async with app.worker():
        assert await (await app.start(included, 3)).result() == 3


def test_a_schema_that_cannot_be_is_refused() -> None:
    with pytest.raises(perdure.Misuse, match="schema name"):
        perdure.App(schema='x"; drop')


async def test_a_run_whose_input_cannot_be_read_goes_on_once_code_that_reads_it_is_deployed_as_it_says(
    app: perdure.App, database: Database
) -> None:
    later = perdure.App(database.dsn())

    @app.task()
    async def double(n: int) -> int:
        return 2 * n

    @later.workflow(name="double")
    async def mended(run: perdure.AsyncRun, n: int | str) -> int:
        return 2 * (n if isinstance(n, int) else len(n))

    conn = database.connect()
    async with app.worker():
        [[run_id]] = conn.execute("""select perdure.start('double', '"four"')""").fetchall()
        handle = app.handle(double, run_id)
        await until(lambda: state(database, run_id) == "paused", seconds=60)
        said = await handle.explain()
        assert "DecodingFailed" in said
        assert "First deploy code that reads what is recorded: resumed as things are, it would be paused again." in said
    async with later.worker():
        conn.execute("select perdure.resume(%s)", [run_id])
        assert await handle.result(timeout=timedelta(seconds=60)) == 8


@pytest.mark.parametrize("what", ["start", "result", "signal", "find"])
async def test_workflow_code_that_asks_the_app_is_told_that_it_belongs_in_a_step(
    app: perdure.App, order: Order, what: str
) -> None:
    other = await app.start(order, {"n": 1}, key="o")

    @app.workflow()
    async def asks(run: perdure.AsyncRun, _: None) -> str:
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "start": lambda: app.start(order, {"n": 2}),
            "result": lambda: other.result(),
            "signal": lambda: other.signal(PAID, {"a": 1}),
            "find": lambda: app.find(order, "o"),
        }
        await asked[what]()
        return "it did"

    async with app.worker(queues=["default"]):
        with pytest.raises(perdure.RunFailed, match=r"Misuse: workflow code cannot ask the app.*belongs in a step"):
            await (await app.start(asks, None)).result(timeout=timedelta(seconds=60))


async def test_a_step_may_ask_the_app(app: perdure.App, order: Order) -> None:
    async def begin(n: int) -> int:
        return await (await app.start(order, {"n": n})).result(timeout=timedelta(seconds=60))

    @app.workflow
    async def asks(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(begin, n)

    async with app.worker():
        assert await (await app.start(asks, 7)).result(timeout=timedelta(seconds=60)) == 7


@pytest.mark.parametrize("name", ["start_at", "deadline"])
async def test_a_time_without_a_zone_is_refused_and_not_guessed(app: perdure.App, order: Order, name: str) -> None:
    times: dict[str, Any] = {name: datetime(2040, 1, 1)}  # noqa: DTZ001
    with pytest.raises(perdure.Misuse, match=f"{name}= takes an aware datetime"):
        await app.start(order, {"n": 1}, **times)
    times = {name: datetime(2040, 1, 1, tzinfo=timezone.utc)}
    assert (await app.start(order, {"n": 1}, **times)).is_new


def test_a_function_that_cannot_be_a_workflow_is_refused_where_it_is_made_one(app: perdure.App) -> None:
    async def none(run: perdure.AsyncRun) -> None: ...

    async def two(run: perdure.AsyncRun, a: int, b: int) -> None: ...

    for fn, count in ((none, 1), (two, 3)):
        made: Any = app.workflow()
        with pytest.raises(
            perdure.Misuse, match=f"takes the run and one input, which may be None, not {count} parameters"
        ):
            made(fn)


def test_parentheses_of_a_workflow_or_task_may_be_left_out(app: perdure.App) -> None:
    @app.workflow
    async def flow(run: perdure.AsyncRun, n: int) -> int:
        return n

    @app.task
    async def job(n: int) -> int:
        return n

    assert [(made.name, made.queue, made.input_type) for made in (flow, job)] == [
        ("flow", "default", int), ("job", "default", int),
    ]  # fmt: skip
