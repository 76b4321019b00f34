"""The mode in which every save suspends the run: that it is one, and that the driver's suite holds in it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import weakref
from datetime import timedelta

import pytest

import perdure
from driver.fake_engine import FakeEngine, Store, carry, carry_once
from perdure import AsyncRun, Workflow, _worker
from support import always_suspend
from support.database import Database
from support.provision import ROOT
from support.suite import run_suite

FIRST = ROOT / "tests" / "support" / "first"

PARTS = {
    "in memory": [f"driver/test_{name}.py" for name in ("execution", "steps", "endings", "asyncio_forms", "fuzz")],
    "workers": ["driver/test_worker.py", "driver/test_client.py"],
    "deaths": ["crash/test_worker_death.py::test_transaction_steps_take_effect_exactly_once_whatever_is_killed"],
}
if sys.version_info >= (3, 11):
    PARTS["in memory"].append("driver/test_task_groups.py")


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process in the mode, for one test."""
    monkeypatch.setenv(always_suspend.VARIABLE, "1")
    monkeypatch.setattr(_worker, "Execution", always_suspend.AlwaysSuspending)


async def one(n: int) -> int:
    return n + 1


async def slow(n: int) -> int:
    await asyncio.sleep(0.05)
    return n + 1


class Passed:
    """Something that workflow code holds in its memory."""


async def test_every_save_gives_the_run_up_and_its_memory_is_made_anew(mode: None) -> None:
    seen: list[tuple[str, bool]] = []
    held: list[weakref.ref[Passed]] = []

    async def flow(run: AsyncRun, _: None) -> int:
        mine = Passed()
        assert all(earlier() is None for earlier in held), "an earlier pass is still in memory"
        held.append(weakref.ref(mine))
        n = 0
        for _number in range(3):
            n = await run.step(one, n)
            seen.append((f"saved {n}", run.is_replaying))
        await run.sleep(timedelta(milliseconds=1))
        return n

    store = Store()
    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.result == 3 and len(held) == 5
    words = [word for word, _ in seen]
    assert words == [f"saved {n}" for upto in (1, 2, 3, 3) for n in range(1, upto + 1)], "each pass goes one save on"


async def test_what_is_in_flight_is_not_cut_off(mode: None) -> None:
    passes, ran = 0, []

    async def note(name: str, rounds: int) -> str:
        for _ in range(rounds):
            await asyncio.sleep(0)
        ran.append(name)
        return name

    async def flow(run: AsyncRun, _: None) -> list[str]:
        nonlocal passes
        passes += 1
        return await asyncio.gather(*(run.step(note, f"{n}", 10 * n) for n in range(5)))

    store = Store()
    row, engine = store.start(Workflow(flow)), FakeEngine(store)
    await carry_once(engine, row, Workflow(flow))
    assert row.result == ran == ["0", "1", "2", "3", "4"] and passes == 2


async def test_a_worker_gives_each_run_up_at_every_save(mode: None, database: Database) -> None:
    app = perdure.App(database.dsn())
    passes: list[int] = []

    @app.workflow()
    async def counted(run: perdure.AsyncRun, n: int) -> int:
        passes.append(n)
        for _ in range(3):
            n = await run.step(one, n)
        return n

    async with app.worker():
        handle = await app.start(counted, 1)
        assert await handle.result(timeout=timedelta(seconds=30)) == 4
    assert passes == [1, 1, 1, 1]
    assert database.value("select count(*) from perdure.step") == 3


async def test_the_mode_finds_a_workflow_that_is_not_the_same_twice(mode: None) -> None:
    called = 0

    async def flow(run: AsyncRun, _: None) -> None:
        nonlocal called
        called += 1
        await run.step(one, 1)
        await run.step(one, called)
        await run.step(one, 3)

    store = Store()
    row = await carry(store, store.start(Workflow(flow)), Workflow(flow))
    assert row.status is None and row.pause_reason is not None and "is on record with the arguments" in row.pause_reason


def test_the_processes_that_tests_start_are_in_the_mode_and_others_are_not() -> None:
    look = [sys.executable, "-c", "from perdure import _worker; print(_worker.Execution.__name__)"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = [
        subprocess.run(look, env={**environment, **more}, capture_output=True, text=True, check=True).stdout.strip()
        for more in ({"PYTHONPATH": str(FIRST)}, {})
    ]
    assert said == ["AlwaysSuspending", "Execution"]


def test_the_list_of_what_cannot_hold_names_tests_that_exist() -> None:
    for name, reason in always_suspend.EXCLUDED.items():
        file, _, function = name.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"^(async )?def {re.escape(function)}\(", text, re.MULTILINE), name
        assert len(reason.split()) > 5, f"{name} needs a reason"


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_the_suite_holds_where_every_save_suspends(part: str) -> None:
    if always_suspend.is_on():
        pytest.skip("this is the mode")
    run_suite(*(f"tests/{file}" for file in PARTS[part]), **{always_suspend.VARIABLE: "1"})
