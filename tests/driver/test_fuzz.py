"""Random programs, killed at random points: the record alone decides what a run sees."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import timedelta
from typing import Any

import pytest

from driver.fake_engine import FakeEngine, Row, Store, execution_of
from driver.programs import SIGNALS, Node, Player, make_program
from perdure._ahead import Ahead
from perdure._engine import Claimed, FailedTry, Recorded, Save, SuspendAnswer, Wait
from perdure._execution import Execution
from perdure._options import current_step
from perdure._registry import Workflow
from perdure._run import AsyncRun
from perdure._steps import StepCall

SEEDS = range(int(os.environ.get("PERDURE_FUZZ_FROM", "0")), int(os.environ.get("PERDURE_FUZZ_TO", "120")))


class NothingNew(FakeEngine):
    """An engine for a run whose record is complete: it takes the end and nothing else."""

    async def save(self, run: Claimed, save: Save) -> Recorded:
        raise AssertionError(f"replay saved {save.key}")

    async def fail_step(self, run: Claimed, attempt: FailedTry) -> Any:
        raise AssertionError(f"replay tried {attempt.key}")

    async def suspend(self, run: Claimed, waits: list[Wait], *, keep: bool) -> SuspendAnswer:  # type: ignore[override]
        raise AssertionError(f"replay waited for {[wait.key for wait in waits]}")


class Noting(Ahead):
    """Notes what a run sees on the strength of a result that is not on record yet: a kill takes that back."""

    def __init__(self, execution: Execution, players: list[Player]) -> None:
        super().__init__(execution)
        self.players = players

    def deliver(self, call: StepCall, save: Save, value: Any) -> None:
        self.players[-1].sure = len(self.players[-1].trace)
        super().deliver(call, save, value)

    def answered(self, answer: Recorded | Exception) -> None:
        super().answered(answer)
        if isinstance(answer, Recorded) and answer.is_new:
            self.players[-1].sure = None


class Game:
    """One program, played by workers that die."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.program: Node = make_program(self.chance)
        self.store = Store()
        self.players: list[Player] = []
        self.workflow: Workflow[Any, Any] = Workflow(self.play, name=f"game-{seed}")
        self.row: Row = self.store.start(self.workflow)
        self.executed: list[str] = []
        self.kills = 0
        self.is_cancelled = self.chance.random() < 0.3

    async def play(self, run: AsyncRun, _: Any) -> Any:
        player = Player(run, self.on_step)
        self.players.append(player)
        return [await player.play(self.program), run.uuid().hex, run.random.random()]

    def on_step(self) -> None:
        key = current_step().key
        assert key not in self.row.steps, f"{key} was saved and runs again"
        self.executed.append(key)

    async def carry(self) -> None:
        for _ in range(300):
            dies = self.chance.random() < 0.8
            engine = FakeEngine(
                self.store, chance=self.chance, kill_after=self.chance.randrange(10) if dies else None, slots=8
            )
            execution = execution_of(engine, self.row, self.workflow)
            if isinstance(execution, Execution):
                execution.ahead = Noting(execution, self.players)
            sender = asyncio.ensure_future(self.send(execution))
            await asyncio.wait_for(execution.run(), 20)
            sender.cancel()
            self.kills += engine.is_dead
            self.check_prefixes()
            if self.row.status is not None:
                return
            assert self.row.pause_reason is None, self.row.pause_reason
            self.wake()
        raise AssertionError("the run does not come to an end")

    async def send(self, execution: Any) -> None:
        while True:
            await asyncio.sleep(self.chance.choice((0, 0.001, 0.004)))
            if self.is_cancelled and self.row.status is None and self.chance.random() < 0.2:
                self.row.cancel = "cancelled"
            self.row.signals.append((self.chance.choice(SIGNALS).name, self.chance.randrange(100)))
            execution.tell()

    def wake(self) -> None:
        if self.row.ready_at is not None and self.chance.random() < 0.7:
            self.store.skip(max(self.row.ready_at - self.store.now(), timedelta(0)))
        else:
            self.row.signals.extend((signal.name, self.chance.randrange(100)) for signal in SIGNALS)

    def check_prefixes(self) -> None:
        if len(self.players) >= 2:
            before, after = self.players[-2].trace[: self.players[-2].sure], self.players[-1].trace
            shorter = min(len(before), len(after))
            assert before[:shorter] == after[:shorter]

    async def replay(self) -> None:
        first, steps = self.row, dict(self.row.steps)
        trace, executed = self.players[-1].trace, len(self.executed)
        self.row = again = Row(first.run_id, first.workflow, first.input, first.created_at, steps=dict(steps))
        again.cancel = first.cancel if "~cancel" in steps else None
        self.store.rows[first.run_id] = again
        await asyncio.wait_for(execution_of(NothingNew(self.store), again, self.workflow).run(), 20)
        assert (again.result, kind(again)) == (first.result, kind(first)), again.pause_reason
        assert again.steps == steps
        assert self.players[-1].trace == trace
        assert len(self.executed) == executed


def kind(row: Row) -> Any:
    """Return the error without its traceback, which tells of the way and not of the outcome."""
    return None if row.error is None else (row.error["type"], row.error["message"])


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_killed_run_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    game = Game(seed)
    await game.carry()
    assert game.row.status == ("completed" if game.row.cancel is None else "cancelled"), game.row.error
    ordinals = [checkpoint.ordinal for checkpoint in game.row.steps.values()]
    assert len(set(ordinals)) == len(ordinals)
    await game.replay()
    await game.replay()
