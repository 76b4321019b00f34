"""The simulated world: one thread, many connections, a clock that stands still unless it is moved, one seed.

Invariants:

* One statement is under way at a time. Others may wait for locks, and one may pause; `locks.py` says who goes on.
* Each step begins at a later time than the one before. All chance comes from `World.chance`.
* After each commit the model compares what is there with what may be there.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from sim.damage import Damage
from sim.locks import Waits
from sim.model import Model
from sim.rules import BATCHES, DRAINS, Call
from sim.sessions import Arena, Lost, Refused, Wire

Turn = Generator[None, None, Any]
Arguments = dict[str, Any]

_NEVER_WAIT = frozenset({"tick", "recover", "drain", "worker_runs", "run_results", "read_steps"})
_READS = frozenset({"worker_runs", "run_results", "read_steps", "look"})


def iso(at: float) -> str:
    """A time of the simulation as SQL reads it."""
    return (datetime(2030, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=int(at))).isoformat()


@dataclass
class Faults:
    """How often what goes wrong, per statement or per step; all 0 in the end game."""

    lose_before: float = 0.006
    lose_after: float = 0.006
    lose_commit_before: float = 0.02
    lose_commit_after: float = 0.04
    kill: float = 0.004
    crash: float = 0.006
    freeze: float = 0.008
    restart: float = 0.001
    failover: float = 0.0005
    jump: float = 0.035
    strike: float = 0.025
    mend: float = 0.06
    turn: float = 0.6  # most of the time somebody is at work

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong any more."""
        return cls(*(0.0 for _ in range(13)))


class Session:
    """A connection of an actor: it breaks and is made again, and knows what its transaction has called."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.wire: Wire | None = None
        self.calls: list[Call] = []
        self.is_open = False
        self.is_broken = False  # what was open is gone, and its owner does not know it yet
        self.must_end = False
        self.generation = 0

    def connected(self) -> Wire:
        """Return the connection, made anew where it was lost."""
        if self.wire is None:
            self.wire = self.world.arena.connect(self.world.chance.random())
            self.generation += 1
        return self.wire

    def lose(self) -> None:
        """Lose the connection; what is not committed is gone."""
        if self.wire is not None:
            self.world.arena.terminate(self.wire.pid)
            self.wire.close()
        for worker_id, (session, generation) in self.world.locks.items():
            if session is self and generation == self.generation and self.wire is not None:
                self.world.lock_lost_at[worker_id] = self.world.now
        self.wire = None
        self.is_broken = self.is_broken or self.is_open
        self.world.waits.end(self)
        self.world.waits.settle()
        self.is_open = False
        self.must_end = False
        self.calls = []

    def _lost(self) -> Lost:
        """Tell the owner that the connection is gone."""
        self.is_broken = False
        return Lost()

    def _check(self) -> None:
        if self.is_broken:
            raise self._lost()

    def renew(self) -> None:
        """Lose the connection, with an owner who begins anew."""
        self.lose()
        self.is_broken = False

    # What actors do: each is one turn of the scheduler

    def begin(self, isolation: str = "read committed") -> Turn:
        """Open a transaction."""
        self.is_broken = False
        self.connected()
        yield from self._statement(f"begin isolation level {isolation}", [], None)
        self.is_open = True

    def call(self, function: str, **arguments: Any) -> Turn:
        """Call one of the engine's functions, in what is open, else in a transaction of its own; returns its rows."""
        self._check()
        world = self.world
        names = ", ".join(f"{name} => ${n}" for n, name in enumerate(arguments, 1))
        is_alone = not self.is_open
        call = Call(self.name, function, arguments, world.seen)
        query = f"select coalesce(jsonb_agg(to_jsonb(t)), '[]') from perdure.{function}({names}) as t"
        self.connected()
        if is_alone and function not in _NEVER_WAIT:  # else what waited would be committed by the end of the wait
            yield from self._statement("begin", [], None)
            self.is_open = True
        rows = yield from self._statement(query, [_literal(each) for each in arguments.values()], call)
        call.until = world.now
        call.answer = sorted(json.loads(rows[0][0]), key=_order)
        world.say(f"{self.name} {function} {_short(arguments)} -> {_short(call.answer)}")
        self.calls.append(call)
        if is_alone and self.is_open:
            yield from self.commit()
        elif is_alone:
            yield from self._committed(world.faults.lose_after)
        yield
        return call.answer

    def run(self, function: str, query: str, parameters: Sequence[str]) -> Turn:
        """Execute a statement of the user's own."""
        self._check()
        call = Call(self.name, function, {"parameters": list(parameters)}, self.world.seen)
        yield from self._statement(query, parameters, call)
        call.until = self.world.now
        self.world.say(f"{self.name} {query} {_short(parameters)}")
        self.calls.append(call)
        yield

    def commit(self) -> Turn:
        """Commit; the connection may break before it or before its answer comes."""
        self._check()
        world = self.world
        if world.happens(world.faults.lose_commit_before, "connection lost before its COMMIT"):
            self.lose()
            yield
            raise self._lost()
        try:
            yield from self._statement("commit", [], None)
        except Refused:
            yield from self.roll_back()
            raise
        self.is_open = self.must_end = False
        yield from self._committed(world.faults.lose_commit_after)
        yield

    def roll_back(self) -> Turn:
        """Roll back what is open, if anything is."""
        if self.is_open and self.wire is not None:
            self.is_open = self.must_end = False
            yield from self._statement("rollback", [], None)
        self.is_open = self.must_end = self.is_broken = False
        self.calls = []

    def savepoint(self) -> Turn:
        """Set a savepoint."""
        self._check()
        yield from self._statement("savepoint s", [], None)

    def roll_back_to_savepoint(self, calls: int) -> Turn:
        """Undo what came after the savepoint: all but the first calls."""
        self._check()
        yield from self._statement("rollback to s", [], None)
        self.calls = self.calls[:calls]

    def _committed(self, lose: float) -> Turn:
        calls, self.calls = self.calls, []
        self.world.check(calls)
        if self.world.happens(lose, "answer of a COMMIT lost"):
            named = [each["run_id"] for call in calls for each, _ in call.elements()]
            self.world.in_doubt.update((run_id, self.world.steps) for run_id in named)
            self.lose()
            yield
            raise self._lost()

    def _statement(self, query: str, parameters: Sequence[str | None], call: Call | None) -> Turn:
        world = self.world
        if call is None:
            world.say(f"{self.name} {query}")
        elif world.happens(world.faults.lose_before, "connection lost before a call"):
            self.lose()
            yield
            raise self._lost()
        wire = self.wire
        if wire is None:  # somebody killed it while its owner did something else
            self.is_open = False
            raise self._lost()
        world.counted["statements"] += 1
        world.counted["calls"] += call is not None
        if call is not None:  # nothing else asks what time it is
            world.set_clock()
            call.since = world.now
        wire.send(query, parameters)
        blockers = world.arena.settle(wire)
        if blockers and world.waits.begin(self, call, blockers):
            while self.wire is wire and world.waits.is_held_up(self):
                yield
            if self.wire is not wire:
                raise self._lost()
            world.waits.end(self)
        world.waits.settle()
        try:
            rows = wire.fetch()
        except Refused as refused:
            world.say(f"{self.name} {call.function if call else query} {_short(call and call.arguments)} !! {refused}")
            world.counted[f"refused {refused.sqlstate}"] += 1
            if refused.sqlstate.startswith(("57P", "08")):
                self.lose()
                raise self._lost() from None
            if not self.is_open:
                self.calls = []
            raise
        if call is not None and self.is_open and world.happens(world.faults.lose_after, "answer of a call lost"):
            self.lose()
            yield
            raise self._lost()
        return rows


def _order(row: Any) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("ordinal", "run_id", "key")) if isinstance(row, dict) else ()


def _literal(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):  # the mark of an array of SQL
        return "{" + ",".join(sorted(value)) + "}"
    if isinstance(value, tuple):
        return "{" + ",".join("NULL" if each is None else json.dumps(each) for each in value) + "}"
    return json.dumps(value)


def _short(value: Any) -> str:
    text = json.dumps(value, default=sorted, sort_keys=True)
    return text if len(text) <= 700 else f"{text[:690]}... ({len(text)})"


@dataclass
class Actor:
    """Somebody who does one thing after the other."""

    name: str
    turns: Turn
    session: Session
    weight: float = 1.0
    rests_until: int = 0


@dataclass
class World:
    """Everything that one seed decides."""

    arena: Arena
    seed: int
    keeps_trace: bool = False
    faults: Faults = field(default_factory=Faults)
    counted: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    steps: int = 0
    now: int = 1

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.hash = hashlib.sha256()
        self.seen: dict[str, Any] = {}
        self.model = Model(self)
        self.waits = Waits(self)
        self.damage = Damage(self)
        self.lost_runs: list[str] = []
        self.losses = 0
        self.in_doubt: dict[str, int] = {}
        self.locks: dict[str, tuple[Session, int]] = {}
        self.timeline = 1
        self.clock = 0
        self.is_calm = False
        self.holds = False
        self.pauses = 0
        self.lock_lost_at: dict[str, int] = {}

    # What is told

    def say(self, line: str) -> None:
        """Note what happened, for the reader and for the comparison of two runs."""
        line = f"{self.steps:5} {self.now / 1e6:14.6f} {line}"
        self.hash.update(line.encode())
        self.trace.append(line)
        if not self.keeps_trace and len(self.trace) > 4000:
            del self.trace[:2000]

    def happens(self, probability: float, what: str) -> bool:
        """Throw the dice."""
        if self.chance.random() >= probability:
            return False
        self.counted[what] += 1
        self.say(f"*** {what}")
        return True

    # Time

    def move(self, by: int) -> None:
        """Move the clock on."""
        self.now += max(by, 1)

    def set_clock(self) -> None:
        """Let the database know what time it is."""
        if self.clock != self.now:
            self.clock = self.now
            self.arena.set_time(self.now)

    # Who is where

    def rest(self, session: Session, steps: int) -> None:
        """Let the owner of a session do nothing for some steps."""
        for actor in self.actors:
            if actor.session is session and not self.is_calm:
                actor.rests_until = self.steps + steps

    def is_locked(self, worker_id: str, since: float = float("inf")) -> bool:
        """Whether a session holds the worker's advisory lock, and has held it since then."""
        if self.lock_lost_at.get(worker_id, -1) >= since:
            return False
        session, generation = self.locks.get(worker_id, (None, 0))
        return session is not None and session.wire is not None and session.generation == generation

    def restarted(self) -> None:
        """The server was away: all sessions are lost, nobody may be declared dead for a while."""
        self.model.started_at = self.now
        self.arena.onlooker.execute("select setval('sim.started', $1::bigint)", [str(self.now)])

    def failed_over(self) -> None:
        """Another server took over, with all that was committed."""
        self.timeline += 1
        self.model.timeline_at = self.now
        self.arena.onlooker.execute("select setval('sim.timeline', $1::bigint)", [str(self.timeline)])

    def went_back(self) -> None:
        """What was acknowledged since some moment is lost; who heard of it remembers."""
        before = self.seen
        self.refresh()
        self.lost_runs += sorted(before["run"].keys() - self.seen["run"].keys())
        self.losses += 1
        self.counted["runs lost"] += len(before["run"]) - len(self.seen["run"])
        self.counted["checkpoints lost"] += len(before["step"].keys() - self.seen["step"].keys())
        self.counted["messages lost"] += len(before["signal"].keys() - self.seen["signal"].keys())
        self.model.go_back(self.seen)

    def sessions(self) -> list[Session]:
        """All sessions."""
        return [actor.session for actor in self.actors]

    # Truth

    def check(self, calls: Sequence[Call]) -> None:
        """Compare what a commit left with what it may leave."""
        if all(call.function in _READS for call in calls) and calls:
            return
        before = self.seen
        if not calls:
            self.set_clock()
        self.seen, violations = self.arena.look()
        self.model.judge(before, self.seen, calls, violations)
        self.damage.look(self.seen)

    def refresh(self) -> None:
        """See what somebody did without the engine."""
        self.seen, _ = self.arena.look()
        self.damage.look(self.seen)

    def explain(self) -> str:
        """What the engine says about everything unfinished."""
        lines = []
        for run_id in self.seen.get("dispatch", {}):
            rows = self.arena.onlooker.execute("select to_jsonb(e)::text from perdure.explain($1) as e", [run_id])
            lines += [f"{run_id}: {row}" for [row] in rows]
            lines.append(f"  dispatch: {json.dumps(self.seen['dispatch'][run_id])}")
        return "\n".join(lines)

    def hot_runs(self) -> list[str]:
        """Runs that somebody is at work on: in a call that is under way or not committed, or of an unknown fate."""
        calls = [call for each in self.sessions() for call in each.calls]
        calls += [each.call for each in self.waits.all if each.call is not None]
        named = {each["run_id"] for call in calls for each in call.arguments.get(BATCHES.get(call.function, ""), [])}
        named |= {run_id for run_id, step in self.in_doubt.items() if self.steps - step < 30}
        if any(call.function in DRAINS for call in calls):
            named |= set(self.seen["wake"])
        return sorted(named & self.seen["dispatch"].keys())

    # The scheduler

    def step(self) -> None:
        """Let one actor take one turn."""
        self.steps += 1
        self.move(int(10 ** self.chance.uniform(0, 5)))
        actor = self._pick()
        if actor is None:
            return
        next(actor.turns)

    def _pick(self) -> Actor | None:
        self.waits.end_pause()
        if (session := self.waits.free()) is not None:
            return next(actor for actor in self.actors if actor.session is session)
        # who pauses gives others their chance: those who tell the runs something
        pausing = self.waits.pausing
        tellers = [each for each in self.actors if pausing is not None and each.name[0] in "co"]
        able = [
            each
            for each in self.actors
            if (each.rests_until <= self.steps or each in tellers) and not self.waits.is_held_up(each.session)
        ]
        if holders := self.waits.in_the_way():
            for session in holders:
                session.must_end = True
            able = [actor for actor in self.actors if actor.session in holders]
        if not able:
            return None
        return self.chance.choices(able, [each.weight * (4 if each in tellers else 1) for each in able])[0]
