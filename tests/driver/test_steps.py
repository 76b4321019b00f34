"""Steps: tries, time-outs, threads, at most once, declared errors, transactions."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import FakeConnection, FakeEngine, Store, carry, carry_once
from perdure import (
    AsyncRun,
    DoNotRetry,
    EncodingFailed,
    LimitExceeded,
    Misuse,
    Retry,
    RetryAfter,
    StepFailed,
    Value,
    Workflow,
    current_step,
    step,
)

QUICK = Retry(delay=timedelta(milliseconds=1), jitter=0)
DAY = timedelta(days=1)
tries: list[Any] = []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture(autouse=True)
def nothing_tried() -> None:
    tries.clear()
    FakeConnection.committed.clear()


async def flaky(times: int) -> int:
    info = current_step()
    tries.append(info.attempt)
    if info.attempt <= times:
        raise ConnectionError(f"try {info.attempt}")
    return info.attempt


def retried(fn: Any, *args: Any, **options: Any) -> Workflow[Any, Any]:
    """A workflow of one step, which gives its result, or what it raised."""

    async def flow(run: AsyncRun, _: Any) -> Any:
        try:
            return await run.options(**{"retry": QUICK, **options}).step(fn, *args)
        except StepFailed as error:
            return [error.type, error.message, error.attempts, error.key]

    return Workflow(flow)


async def outcome(store: Store, workflow: Workflow[Any, Any]) -> Any:
    row = await carry(store, store.start(workflow), workflow)
    assert row.error is None, row.error
    return row.result


# Retries


async def test_a_failed_step_is_tried_again_until_it_works(store: Store) -> None:
    assert await outcome(store, retried(flaky, 2)) == 3
    assert tries == [1, 2, 3]


async def test_a_step_that_fails_for_good_tells_type_message_and_tries(store: Store) -> None:
    workflow = retried(flaky, 9)
    row = store.start(workflow)
    await carry(store, row, workflow)
    assert row.result == ["ConnectionError", "try 4", 4, "flaky"] and tries == [1, 2, 3, 4]
    replayed = store.start(workflow)
    replayed.steps = dict(row.steps)
    await carry(store, replayed, workflow)
    assert replayed.result == row.result and len(tries) == 4


@pytest.mark.parametrize("error", [TypeError("x"), AssertionError("x"), DoNotRetry("x"), KeyError("x")])
async def test_an_error_that_no_try_can_mend_stops_the_tries(store: Store, error: Exception) -> None:
    async def broken() -> None:
        tries.append(1)
        raise error

    retry = Retry(delay=timedelta(0), stop_on=(LookupError,))
    result = await outcome(store, retried(broken, retry=retry))
    assert result[0] == type(error).__name__ and len(tries) == 1


async def test_an_error_can_say_when_to_try_again(store: Store) -> None:
    async def later() -> str:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise RetryAfter(timedelta(milliseconds=50))
        return "ok"

    assert await outcome(store, retried(later, retry=Retry(delay=timedelta(hours=1)))) == "ok"
    assert tries[1] - tries[0] >= 0.05


async def test_a_long_delay_suspends_the_run_and_its_tries_go_on_elsewhere(store: Store) -> None:
    workflow = retried(flaky, 2, retry=Retry(delay=timedelta(hours=1), jitter=0))
    row, engine = store.start(workflow), FakeEngine(store)
    await carry_once(engine, row, workflow)
    assert [(w.kind, w.key) for w in row.waits] == [("retry", "flaky")] and row.claim is None
    await carry(store, row, workflow)
    assert row.result == 3 and tries == [1, 2, 3]


async def test_tries_survive_a_crash(store: Store) -> None:
    workflow = retried(flaky, 2, retry=Retry(delay=timedelta(milliseconds=300), jitter=0))
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.05)
    engine.kill()
    await running
    assert tries == [1]
    await carry(store, row, workflow)
    assert row.result == 3 and tries == [1, 2, 3]


async def test_a_retry_that_is_due_while_another_step_runs_is_not_forgotten(store: Store) -> None:
    async def long() -> str:
        await asyncio.sleep(0.3)
        return "long"

    async def flow(run: AsyncRun, _: Any) -> Any:
        retry = Retry(delay=timedelta(seconds=2.1), jitter=0)
        return await asyncio.gather(run.options(retry=retry).step(flaky, 1), run.step(long))

    workflow = Workflow(flow)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.05)
    store.skip(timedelta(seconds=2))
    engine.executions[0].tell()
    await running
    assert row.result == [2, "long"] and "suspend" not in engine.calls


# Time-outs and threads


async def test_a_try_that_takes_too_long_fails_and_the_next_has_a_fresh_limit(store: Store) -> None:
    async def slow() -> int:
        tries.append(1)
        await asyncio.sleep(0.08 if len(tries) < 3 else 0.03)
        return len(tries)

    assert await outcome(store, retried(slow, timeout=timedelta(seconds=0.05))) == 3


async def test_a_time_out_is_recorded_as_timeout_error(store: Store) -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return  # swallowing it does not help

    result = await outcome(store, retried(slow, retry=Retry(max_attempts=1), timeout=timedelta(seconds=0.02)))
    assert result[:2] == ["TimeoutError", "no result within 0:00:00.020000"]


async def test_step_needs_no_parentheses_where_it_says_nothing(store: Store) -> None:
    @step
    async def bare() -> str:
        return "bare"

    workflow = retried(bare)
    assert (await carry(store, store.start(workflow), workflow)).result == "bare"


async def test_a_workflow_that_takes_none_is_content_with_the_empty_input_of_sql(store: Store) -> None:
    async def flow(run: AsyncRun, nothing: None) -> bool:
        return nothing is None

    workflow = Workflow(flow)
    row = store.start(workflow, {})
    assert (await carry(store, row, workflow)).result is True


async def test_a_plain_function_runs_in_a_thread_and_knows_its_step(store: Store) -> None:
    def plain() -> list[Any]:
        info = current_step()
        return [threading.current_thread() is threading.main_thread(), info.key, info.attempt, info.idempotency_key]

    workflow = retried(plain)
    row = await carry(store, store.start(workflow), workflow)
    assert row.result == [False, "plain", 1, f"{row.run_id}/plain"]


async def test_a_thread_that_comes_late_is_ignored_but_waited_for(store: Store) -> None:
    ended = threading.Event()

    def slow() -> str:
        time.sleep(0.2)
        ended.set()
        return "late"

    workflow = retried(slow, retry=Retry(max_attempts=1), timeout=timedelta(seconds=0.02))
    engine = FakeEngine(store, slots=1)
    row = store.start(workflow)
    await carry_once(engine, row, workflow)
    assert row.result[0] == "TimeoutError" and ended.is_set() and not engine.step_slots.locked()


async def test_a_thread_that_cannot_be_stopped_keeps_its_slot(store: Store) -> None:
    def slow() -> None:
        time.sleep(0.15)
        tries.append("thread ended")

    async def next_one() -> None:
        tries.append("next step")

    async def flow(run: AsyncRun, _: Any) -> None:
        with pytest.raises(StepFailed):
            await run.options(retry=Retry(max_attempts=1), timeout=timedelta(seconds=0.02)).step(slow)
        tries.append("failed")
        await run.step(next_one)

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store, slots=1), row, Workflow(flow))
    assert row.status == "completed" and tries == ["failed", "thread ended", "next step"]


async def test_partials_methods_and_callables_are_steps(store: Store) -> None:
    class Service:
        async def fetch(self, n: int) -> int:
            return n

        async def __call__(self) -> str:
            return "called"

    async def flow(run: AsyncRun, _: Any) -> Any:
        service = Service()
        fetch = functools.partial(service.fetch, 2)
        return [await run.step(service.fetch, 1), await run.step(fetch), await run.step(service)]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == [1, 2, "called"] and list(row.steps) == ["fetch", "fetch#2", "Service"]


async def test_no_more_steps_run_than_there_are_slots(store: Store) -> None:
    running: list[int] = [0, 0]

    async def work(n: int) -> None:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.001)
        running[0] -= 1

    async def flow(run: AsyncRun, _: Any) -> None:
        await asyncio.gather(*(run.step(work, n) for n in range(20)))

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store, slots=3), row, Workflow(flow))
    assert row.status == "completed" and running[1] == 3


async def test_progress_is_there_for_the_next_try_and_for_the_heartbeat(store: Store) -> None:
    async def work() -> Any:
        info = current_step()
        before = info.last_progress
        info.progress("half")
        tries.append(engine.executions[0].calls.running)
        if info.attempt == 1:
            raise ConnectionError
        return before

    workflow = retried(work)
    engine, row = FakeEngine(store), store.start(workflow)
    await carry_once(engine, row, workflow)
    assert row.result == "half"
    assert [(key, told) for key, _, told in tries[0]] == [("work", "half")]


def test_outside_of_a_step_there_is_no_current_step() -> None:
    with pytest.raises(Misuse):
        current_step()


# What cannot be saved


async def test_a_result_without_json_form_fails_at_once_and_names_the_type(store: Store) -> None:
    async def give() -> Any:
        tries.append(1)
        return {"a": [threading.Lock()]}

    result = await outcome(store, retried(give))
    assert result[0] == "EncodingFailed" and "['a'][0]: _thread.lock" in result[1] and len(tries) == 1


async def test_a_result_that_breaks_its_annotation_fails_at_once(store: Store) -> None:
    async def lie() -> int:
        return "text"  # type: ignore[return-value]

    result = await outcome(store, retried(lie))
    assert result[0] == "DecodingFailed" and '"text" is not an int' in result[1]


async def test_arguments_without_json_form_are_refused_at_the_call(store: Store) -> None:
    async def take(x: Any) -> None: ...

    async def flow(run: AsyncRun, _: Any) -> str:
        try:
            run.step(take, object())
        except EncodingFailed as error:
            return str(error)
        return "?"

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert "arguments of 'take'[0][0]: object has no JSON form" in row.result


async def test_a_save_that_the_database_refuses_fails_the_step(store: Store) -> None:
    async def big() -> str:
        return "x"

    workflow = retried(big)
    engine, row = FakeEngine(store), store.start(workflow)
    engine.fail_next["save"] = [LimitExceeded('result of step "big" is too large')]
    await carry(store, row, workflow, engine=engine)
    assert row.result[0] == "LimitExceeded"


async def test_an_error_with_characters_that_postgres_cannot_keep_is_recorded(store: Store) -> None:
    async def broken() -> None:
        raise AssertionError("nul \0 and surrogate \ud800")

    result = await outcome(store, retried(broken))
    assert result[1] == "nul \ufffd and surrogate \ufffd"


# Declared errors


class SoldOut(Exception):
    def __init__(self, sku: str) -> None:
        super().__init__(f"{sku} is sold out")
        self.sku = sku


@dataclass
class Declined(Exception):
    code: int
    when: timedelta


async def test_declared_errors_come_back_as_themselves_live_and_on_replay(store: Store) -> None:
    @step(raises=[SoldOut, Declined])
    async def buy(n: int) -> None:
        raise SoldOut("x1") if n == 0 else Declined(7, DAY)

    async def flow(run: AsyncRun, _: Any) -> list[Any]:
        seen: list[Any] = []
        for n in range(2):
            try:
                await run.step(buy, n)
            except SoldOut as error:  # noqa: PERF203  one after the other
                seen.append([str(error), error.sku, list(error.args)])
            except Declined as error:
                seen.append([error.code, error.when == DAY])
        tries.append(seen)
        await run.sleep(DAY)
        return seen

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert tries[0] == tries[1] == [["x1 is sold out", "x1", ["x1 is sold out"]], [7, True]]
    assert row.status == "completed"


async def test_an_error_not_declared_is_a_step_failed(store: Store) -> None:
    async def buy() -> None:
        raise SoldOut("x1")

    assert (await outcome(store, retried(buy)))[0] == "SoldOut"


# At most once


async def test_a_step_at_most_once_is_recorded_as_interrupted_instead_of_run_again(store: Store) -> None:
    @step(at_most_once=True)
    async def pay() -> str:
        tries.append(1)
        await asyncio.sleep(0.05)
        return "paid"

    workflow = retried(pay)
    row, engine = store.start(workflow), FakeEngine(store)
    running = asyncio.ensure_future(carry_once(engine, row, workflow))
    await asyncio.sleep(0.02)
    engine.kill()
    await running
    assert list(row.steps) == ["pay~started"]
    await carry(store, row, workflow)
    assert row.result[0] == "Interrupted" and row.result[2:] == [1, "pay"] and tries == [1]


async def test_a_step_at_most_once_has_one_try(store: Store) -> None:
    workflow = retried(flaky, 1, at_most_once=True)
    assert (await outcome(store, workflow))[2] == 1
    row = await carry(store, store.start(retried(flaky, 0, at_most_once=True)), retried(flaky, 0, at_most_once=True))
    assert row.result == 1 and list(row.steps) == ["flaky~started", "flaky"]


# Transactions


def transacted(fn: Any, **options: Any) -> Workflow[Any, Any]:
    async def flow(run: AsyncRun, _: Any) -> Any:
        try:
            return await run.options(**{"retry": QUICK, **options}).transaction(fn, 7)
        except StepFailed as error:
            return [error.type, error.attempts]

    return Workflow(flow)


class Sql(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__(str(sqlstate))
        self.sqlstate = sqlstate


async def test_a_transaction_steps_writes_and_checkpoint_are_one_commit(store: Store) -> None:
    async def write(conn: FakeConnection, n: int) -> int:
        conn.write(f"row {n}")
        return n

    workflow = transacted(write)
    row, engine = store.start(workflow), FakeEngine(store)
    await carry_once(engine, row, workflow)
    assert row.result == 7 and FakeConnection.committed == ["row 7"] and row.steps["write"].kind == "transaction"
    assert engine.calls == ["save_in_transaction", "complete"]


async def test_a_transaction_that_fails_leaves_nothing_and_is_tried_again(store: Store) -> None:
    async def write(conn: FakeConnection, n: int) -> int:
        tries.append(current_step().attempt)
        conn.write("row")
        if len(tries) < 3:
            raise ConnectionError
        return n

    assert await outcome(store, transacted(write)) == 7
    assert FakeConnection.committed == ["row"] and tries == [1, 2, 3]


@pytest.mark.parametrize("where", ["save_in_transaction", "commit"])
@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
async def test_a_serialisation_failure_begins_the_same_try_again(store: Store, where: str, state: str) -> None:
    async def write(conn: FakeConnection, n: int) -> int:
        tries.append(current_step().attempt)
        conn.write("row")
        return n

    workflow = transacted(write)
    row, engine = store.start(workflow), FakeEngine(store)
    engine.fail_next[where] = [Sql(state), Sql(state)]
    await carry_once(engine, row, workflow)
    assert row.result == 7 and tries == [1, 1, 1] and FakeConnection.committed == ["row"]
    assert engine.calls.count("still_held") == 2 and "fail_step" not in engine.calls


async def test_a_violation_at_the_commit_is_a_failed_try(store: Store) -> None:
    async def write(conn: FakeConnection, n: int) -> int:
        tries.append(1)
        return n

    workflow = transacted(write)
    row, engine = store.start(workflow), FakeEngine(store)
    engine.fail_next["commit"] = [Sql("23505")]
    await carry_once(engine, row, workflow)
    assert row.result == 7 and engine.calls.count("fail_step") == 1 and len(tries) == 2


@pytest.mark.parametrize("took_place", [True, False])
async def test_a_commit_in_doubt_is_never_done_twice(store: Store, took_place: bool) -> None:
    async def write(conn: FakeConnection, n: int) -> int:
        tries.append(1)
        conn.write("row")
        return n

    class Breaking(FakeEngine):
        async def _commit(self) -> None:
            await super()._commit()
            if took_place and len(tries) == 1 and not self.broke:
                self.broke = True
                raise Sql(None)

        broke = False

    workflow = transacted(write)
    row, engine = store.start(workflow), Breaking(store)
    if not took_place:
        engine.fail_next["commit"] = [Sql(None)]
    await carry_once(engine, row, workflow)
    if took_place:
        assert row.status is None and row.claim is None and row.pause_reason is None  # released, to be replayed
        await carry(store, row, workflow)
    assert row.result == 7 and FakeConnection.committed == ["row"]


async def test_nothing_later_is_delivered_while_a_commit_is_in_doubt(store: Store) -> None:
    async def write(conn: FakeConnection) -> str:
        conn.write("row")
        return "written"

    async def other() -> str:
        await broke.wait()
        return "other"

    class Breaking(FakeEngine):
        async def still_held(self, run: Any) -> bool:
            await asyncio.sleep(0.03)  # time for the other step to be saved
            return await super().still_held(run)

        async def _commit(self) -> None:
            await super()._commit()
            if FakeConnection.committed and not broke.is_set():
                broke.set()
                raise Sql(None)

    broke = asyncio.Event()

    async def flow(run: AsyncRun, _: Any) -> list[str]:
        pending = [run.transaction(write), run.step(other)]
        order = []
        for ended in asyncio.as_completed(pending):
            order.append(await ended)
            tries.append(list(order))
        return order

    workflow = Workflow(flow)
    row = store.start(workflow)
    await carry_once(Breaking(store), row, workflow)
    assert row.status is None and sorted(row.steps) == ["other", "write"] and tries == []
    await carry(store, row, workflow)
    assert row.result == ["written", "other"] and FakeConnection.committed == ["row"]


async def test_a_value_is_saved_under_its_name(store: Store) -> None:
    shown = Value("progress", list[int])

    async def flow(run: AsyncRun, _: Any) -> None:
        await run.set_value(shown, [1])
        await run.set_value(shown, [1, 2])
        await run.sleep(DAY)

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert [(c.key, c.kind, c.name, c.result) for c in row.steps.values()][:2] == [
        ("progress", "value", "progress", [1]), ("progress#2", "value", "progress", [1, 2]),
    ]  # fmt: skip
