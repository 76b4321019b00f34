"""What a run sees: delivery, replay, suspension, waits, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import FakeEngine, Store, carry, carry_once, execution_of
from perdure import AsyncRun, Misuse, Retry, Signal, StepFailed, TimedOut, Value, Workflow, step
from perdure._execution import Execution
from perdure._ledger import Ledger

GO = Signal("go", int)
DAY = timedelta(days=1)


@pytest.fixture
def store() -> Store:
    return Store()


ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


async def note(name: str, rounds: int = 0) -> str:
    for _ in range(rounds):
        await asyncio.sleep(0)
    ran.append(name)
    return name


async def hang(name: str) -> str:
    ran.append(f"{name} began")
    try:
        await asyncio.sleep(60)
    finally:
        ran.append(f"{name} ended")
    return name


def checkpoints(row: Any) -> list[str]:
    return [c.key for c in sorted(row.steps.values(), key=lambda c: c.ordinal)]


# Keys and replay


async def test_a_step_is_known_by_its_name_and_its_uses_by_numbers(store: Store) -> None:
    @step(name="other")
    async def named() -> int:
        return 1

    async def flow(run: AsyncRun, _: None) -> None:
        await run.step(note, "a")
        await run.step(note, "b")
        await run.step(named)
        await run.scope("s").step(note, "c")
        await run.scope("s").scope("t").options(key="exact").step(note, "d")
        await run.options(key="mine").step(note, "e")

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert checkpoints(row) == ["note", "note#2", "other", "s/note", "s/t/exact", "mine"]


async def test_a_key_given_twice_is_refused(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        twice = run.options(key="k")
        await twice.step(note, "a")
        await twice.step(note, "b")

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and row.error["type"] == "Misuse" and "'k' is used twice" in row.error["message"]


async def test_a_key_is_reserved_at_the_call(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[str]:
        slow, fast = run.step(note, "slow", 20), run.step(note, "fast")
        return [await fast, await slow]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.steps["note"].result == "slow" and row.steps["note#2"].result == "fast"
    assert checkpoints(row) == ["note#2", "note"]


async def test_a_saved_step_is_not_run_again(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[str]:
        first = await run.step(note, "a")
        await run.sleep(DAY)
        return [first, await run.step(note, "b")]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == ["a", "b"] and ran == ["a", "b"]


async def test_a_pending_takes_effect_at_rest_so_two_calls_run_in_parallel(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        never = run.step(note, "never")
        never.cancel()
        a, b = run.step(note, "a", 5), run.step(note, "b")
        assert ran == []
        await a
        await b

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "completed", row.error
    assert ran == ["b", "a"] and checkpoints(row) == ["note#3", "note#2"]


async def test_a_result_is_what_comes_back_from_the_record(store: Store) -> None:
    async def give() -> Any:
        return {"b": (1, 2), "a": {3}, 1: 1e16}

    seen: list[Any] = []

    async def flow(run: AsyncRun, _: None) -> None:
        seen.append(await run.step(give))
        await run.sleep(DAY)

    await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert seen[0] == seen[1] == {"1": 1e16, "a": [3], "b": [1, 2]}
    assert list(seen[0]) == list(seen[1]) and type(seen[1]["1"]) is float


async def test_a_deploy_that_adds_or_removes_steps_does_not_disturb(store: Store) -> None:
    async def old(run: AsyncRun, _: None) -> None:
        await run.options(key="gone").step(note, "gone")
        await run.options(key="kept").step(note, "kept")
        await run.sleep(DAY)

    async def new(run: AsyncRun, _: None) -> str:
        await run.options(key="added").step(note, "added")
        kept = await run.options(key="kept").step(note, "another argument")
        await run.sleep(DAY)
        return kept

    row = store.start(Workflow(old))
    await carry_once(FakeEngine(store), row, Workflow(old))
    store.skip(DAY)
    await carry(store, row, Workflow(new))
    assert row.result == "kept" and ran == ["gone", "kept", "added"]


@pytest.mark.parametrize("kind", ["numbered", "first of several", "other kind"])
async def test_a_conflict_pauses_the_run_and_names_both(store: Store, kind: str) -> None:
    async def old(run: AsyncRun, _: None) -> None:
        await run.step(note, "a")
        await run.step(note, "b")
        await run.sleep(DAY)

    async def new(run: AsyncRun, _: None) -> None:
        if kind == "other kind":
            await run.set_value(Value("note", int), 1)
        await run.step(note, "a" if kind == "numbered" else "x")
        await run.step(note, "x")

    row = store.start(Workflow(old))
    await carry_once(FakeEngine(store), row, Workflow(old))
    store.skip(DAY)
    await carry_once(FakeEngine(store), row, Workflow(new))
    assert row.status is None and row.pause_reason is not None and row.claim is None
    wanted = (
        ("is on record as a step", "asks for a value") if kind == "other kind" else ("is on record with", "asks with")
    )
    assert all(words in row.pause_reason for words in wanted)
    row.pause_reason = None  # the deploy is rolled back
    await carry(store, row, Workflow(old))
    assert row.status == "completed" and ran == ["a", "b"]


async def test_what_cannot_be_decoded_pauses_the_run(store: Store) -> None:
    @dataclass
    class Old:
        a: int

    @dataclass
    class New:
        a: int
        b: int

    @step(name="load")
    async def load_old() -> Old:
        return Old(1)

    @step(name="load")
    async def load_new() -> New:
        return New(1, 2)

    async def old(run: AsyncRun, _: None) -> None:
        await run.step(load_old)
        await run.sleep(DAY)

    async def new(run: AsyncRun, _: None) -> None:
        await run.step(load_new)

    async def typed(run: AsyncRun, input: int) -> None: ...

    row = store.start(Workflow(old))
    await carry_once(FakeEngine(store), row, Workflow(old))
    store.skip(DAY)
    await carry_once(FakeEngine(store), row, Workflow(new))
    assert row.pause_reason is not None and "New lacks b" in row.pause_reason
    other = store.start(Workflow(typed), "no int")
    await carry_once(FakeEngine(store), other, Workflow(typed))
    assert other.pause_reason is not None and "input of workflow 'typed'" in other.pause_reason


async def test_replaying_is_told_and_logs_stay_silent(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[list[bool]] = []

    async def flow(run: AsyncRun, _: None) -> None:
        seen.append([run.is_replaying])
        run.log.warning("began")
        await run.step(note, "a")
        seen[-1].append(run.is_replaying)
        run.log.warning("after a")
        await run.sleep(DAY)
        seen[-1].append(run.is_replaying)
        run.log.warning("after the sleep")

    with caplog.at_level(logging.WARNING, "perdure"):
        row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "completed"
    assert seen[0] == [False, False]
    assert seen[1] in ([True, True, False], [True, True])
    assert [r.message for r in caplog.records] == ["began", "after a", "after the sleep"]
    assert caplog.records[0].run_id == str(row.run_id)  # type: ignore[attr-defined]


async def test_now_uuid_and_random_are_the_same_again(store: Store) -> None:
    seen: list[Any] = []

    async def flow(run: AsyncRun, _: None) -> None:
        values = [run.now(), run.uuid(), run.uuid(), run.random.random()]
        await run.step(note, "a")
        values += [run.now(), run.uuid()]
        seen.append(values)
        await run.sleep(DAY)

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert seen[0] == seen[1] and len(set(seen[0])) == 6
    assert seen[0][0] == row.created_at and seen[0][4] == row.steps["note"].saved_at


# Waits


async def test_all_waits_of_a_run_suspend_in_one_call(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> Any:
        return await asyncio.gather(run.wait_signal(GO), run.wait_signal(GO), run.sleep(DAY))

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    await carry_once(engine, row, Workflow(flow))
    assert [(w.key, w.kind, w.name) for w in row.waits] == [
        ("go", "signal", "go"), ("go#2", "signal", "go"), ("~sleep", "sleep", None),
    ]  # fmt: skip
    assert engine.calls == ["suspend"]
    row.signals += [("go", 1), ("go", 2)]
    store.skip(DAY)
    await carry(store, row, Workflow(flow))
    assert row.result == [1, 2, None]


async def test_a_wait_answered_at_once_goes_on_in_memory(store: Store) -> None:
    began: list[int] = []

    async def flow(run: AsyncRun, _: None) -> int:
        began.append(1)
        return await run.wait_signal(GO) + await run.wait_signal(GO)

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    row.signals += [("go", 1), ("go", 2)]
    await carry_once(engine, row, Workflow(flow))
    assert row.result == 3 and len(began) == 1 and engine.calls == ["suspend", "suspend", "complete"]


async def test_a_recorded_time_out_stands_against_a_late_signal(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> list[Any]:
        first = await run.wait_signal(GO, timeout=DAY, default=None)
        try:
            await run.wait_signal(GO, timeout=DAY)
        except TimedOut as error:
            second = str(error)
        await run.sleep(DAY)
        return [first, second, await run.wait_signal(GO)]

    row = store.start(Workflow(flow))
    for _ in range(2):
        await carry_once(FakeEngine(store), row, Workflow(flow))
        store.skip(DAY)
    await carry_once(FakeEngine(store), row, Workflow(flow))
    row.signals.append(("go", 7))
    await carry(store, row, Workflow(flow))
    assert row.result == [None, "no signal 'go' within 1 day, 0:00:00", 7]


async def test_a_signal_is_heard_while_a_step_runs(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> Any:
        return await run.race(go=run.wait_signal(GO), long=run.step(hang, "long"))

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    execution = execution_of(engine, row, Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await asyncio.sleep(0.02)
    assert ran == ["long began"] and engine.calls == ["look"]
    assert [(key, progress) for key, _, progress in execution.calls.running] == [("hang", None)]
    row.signals.append(("go", 5))
    execution.tell()
    await running
    assert row.result == ["go", 5] and ran == ["long began", "long ended"] and checkpoints(row) == ["go"]


async def test_two_signals_told_of_once_are_both_heard_while_a_step_runs(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> Any:
        both = asyncio.gather(run.wait_signal(GO), run.wait_signal(GO))
        long = run.step(hang, "long")
        got = await both
        long.cancel()
        return got

    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    execution = execution_of(engine, row, Workflow(flow))
    running = asyncio.ensure_future(execution.run())
    await asyncio.sleep(0.02)
    row.signals += [("go", 1), ("go", 2)]
    execution.tell()
    await asyncio.wait_for(running, 5)
    assert row.result == [1, 2]


async def test_a_signal_that_came_before_is_heard_while_a_step_runs(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> Any:
        return await run.race(go=run.wait_signal(GO), long=run.step(hang, "long"))

    row = store.start(Workflow(flow))
    row.signals.append(("go", 5))
    await carry_once(FakeEngine(store), row, Workflow(flow))
    assert row.result == ["go", 5]


async def test_a_time_out_is_heard_while_a_step_runs(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> Any:
        return await run.race(late=run.sleep(timedelta(milliseconds=50)), long=run.step(hang, "long"))

    row = store.start(Workflow(flow))
    await carry_once(FakeEngine(store), row, Workflow(flow))
    assert row.result == ["late", None] and checkpoints(row) == ["~sleep"]


async def test_the_signal_of_a_races_loser_is_kept(store: Store) -> None:
    other = Signal("other", int)

    async def flow(run: AsyncRun, _: None) -> Any:
        won = await run.race(a=run.wait_signal(GO), b=run.wait_signal(other))
        return [*won, await run.wait_signal(other)]

    row = store.start(Workflow(flow))
    row.signals += [("other", 2), ("go", 1)]
    await carry(store, row, Workflow(flow))
    assert row.result == ["a", 1, 2]


async def test_a_race_gives_what_its_winner_raises(store: Store) -> None:
    async def fail() -> None:
        raise AssertionError("no")

    async def flow(run: AsyncRun, _: None) -> str:
        try:
            await run.race(bad=run.step(fail), slow=run.sleep(DAY))
        except StepFailed as error:
            return error.type
        return "?"

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == "AssertionError" and checkpoints(row) == ["fail"]


# Ends


@pytest.mark.parametrize("where", ["in the middle", "last"])
async def test_a_pending_never_awaited_fails_the_run_and_is_named(store: Store, where: str) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        if where == "in the middle":
            run.options(key="forgotten").step(note, "a")
        await run.step(note, "b")
        if where == "last":
            run.options(key="forgotten").step(note, "a")

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and "never awaited: 'forgotten'" in row.error["message"]


async def test_a_run_that_nothing_can_wake_fails_as_stuck(store: Store) -> None:
    cleaned: list[int] = []

    async def flow(run: AsyncRun, _: None) -> None:
        try:
            await run.step(note, "a")
            await asyncio.Event().wait()
        finally:
            cleaned.append(1)

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and row.error["type"] == "Stuck" and cleaned == [1]


async def test_a_run_that_never_rests_fails_as_stuck(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        while True:  # noqa: ASYNC110  this is the test
            await asyncio.sleep(0)

    monkeypatch.setattr("perdure._loop._DRAIN_LIMIT", 10_000)
    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and row.error["type"] == "Stuck"


async def test_a_run_waits_for_its_cancelled_steps_before_it_ends(store: Store) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            ran.append("cleaned up")

    async def flow(run: AsyncRun, _: None) -> str:
        task = asyncio.create_task(run.step(stubborn))
        await run.step(note, "a", 5)
        task.cancel()
        return "done"

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == "done" and ran == ["a", "cleaned up"] and checkpoints(row) == ["note"]


async def test_what_a_workflow_raises_is_its_error(store: Store) -> None:
    async def fail() -> None:
        raise AssertionError("broken")

    async def flow(run: AsyncRun, _: None) -> None:
        await run.step(fail)

    async def unencodable(run: AsyncRun, _: None) -> Any:
        return object()

    async def leaves(run: AsyncRun, _: None) -> Any:
        raise SystemExit(3)

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed"
    assert (
        row.error["type"] == "StepFailed"
        and row.error["step"] == "fail"
        and "AssertionError: broken" in row.error["message"]
    )
    row = await carry(store, store.start(Workflow(unencodable)), Workflow(unencodable))
    assert row.error["type"] == "EncodingFailed" and "object" in row.error["message"]
    row = await carry(store, store.start(Workflow(leaves)), Workflow(leaves))
    assert row.error["type"] == "SystemExit"


# What belongs in a step


@pytest.mark.parametrize("form", ["thread", "socket", "process", "from a step", "from another thread"])
async def test_what_reaches_outside_is_refused_at_its_line(store: Store, form: str) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        async def inside() -> None:
            run.step(note, "nested")

        def in_thread() -> None:
            run.step(note, "nested")

        if form == "thread":
            await asyncio.to_thread(print)
        elif form == "socket":
            await asyncio.open_connection("localhost", 1)
        elif form == "process":
            await asyncio.create_subprocess_exec("true")
        else:
            await run.options(retry=Retry(max_attempts=1)).step(inside if form == "from a step" else in_thread)

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and "Misuse" in (row.error["type"] + row.error["message"])
    assert "step" in row.error["message"] and ran == []


async def test_a_future_of_the_workers_loop_is_refused(store: Store) -> None:
    foreign = asyncio.get_running_loop().create_future()

    async def flow(run: AsyncRun, _: None) -> None:
        await foreign

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status == "failed" and "different loop" in row.error["message"]


async def test_steps_do_not_see_each_others_context(store: Store) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="clean")

    async def dirty() -> str:
        before = variable.get()
        variable.set("dirty")
        return before

    async def flow(run: AsyncRun, _: None) -> list[str]:
        return [await run.step(dirty), await run.step(dirty), variable.get()]

    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == ["clean"] * 3


async def test_a_run_is_freed_without_the_collector(store: Store) -> None:
    async def flow(run: AsyncRun, _: None) -> None:
        await asyncio.gather(run.step(note, "a"), run.step(note, "b"))
        async with asyncio.Lock():
            await asyncio.sleep(0.001)
        await run.race(a=run.wait_signal(GO), b=run.sleep(DAY))

    refs: list[weakref.ref[Execution]] = []

    async def once() -> None:
        engine = FakeEngine(store)
        execution = await carry_once(engine, row, Workflow(flow))
        refs.append(weakref.ref(execution))
        engine.executions.clear()

    row = store.start(Workflow(flow))
    gc.collect()
    gc.disable()
    try:
        await once()
        assert row.waits
        await asyncio.sleep(0)
        assert refs[0]() is None
    finally:
        gc.enable()


def test_a_lambda_has_no_name_to_be_a_step() -> None:
    from perdure._options import step_name, step_options

    fn = lambda: 1  # noqa: E731
    with pytest.raises(Misuse, match="lambda"):
        step_name(fn, step_options(fn))


async def test_whoever_holds_the_ledger_hears_of_the_last_answer() -> None:
    """A look that met a failed try under way held the ledger for ever: the try's answer told nobody."""
    told: list[str] = []
    ledger = Ledger(0, lambda: told.append("settled"))
    first, second = await ledger.turn(), await ledger.turn()
    ledger.hold()
    ledger.answered(first)
    assert told == []
    ledger.answered(second)
    assert told == ["settled"]
