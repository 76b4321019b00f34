"""The simulated world: one thread, many connections, a clock that stands still unless it is moved, one seed.

Invariants:

* One statement is under way at a time, beside at most one that waits for a lock. A second one that would wait is
  cancelled, as an impatient caller's would be.
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

from sim.model import Call, Model, Violation
from sim.sessions import Arena, Lost, Refused, Wire

Turn = Generator[None, None, Any]
Arguments = dict[str, Any]

# Who may wait for whom: clients for each other, a transaction step for its row, a stopping worker for its own
# transactions, and whoever passes the fence for somebody who just forgets the worker.
_MAY_WAIT = frozenset(
    {"start", "start_many", "signal", "signal_key", "retry", "retry_many", "save_transaction_step", "stop_worker"}
)
_NEVER_WAIT = frozenset({"tick", "recover", "drain", "worker_runs", "run_results", "read_steps"})
_READS = frozenset({"worker_runs", "run_results", "read_steps", "look"})
_FORGETS = frozenset({"tick", "recover", "stop_worker"})

LONGEST_WAIT = 12  # steps; then whoever is in the way has to end


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

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong any more."""
        return cls(*(0.0 for _ in range(10)))


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
        if self.world.waiting is not None and self.world.waiting.session is self:
            self.world.wait(None)
        self.world.settle_waiter()
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
        wire.send(query, parameters)
        blockers = world.arena.settle(wire)
        if blockers and world.begin_wait(self, call, blockers):
            while self.wire is wire and world.waiting is not None and world.waiting.blockers:
                yield
            if self.wire is not wire:
                raise self._lost()
            world.wait(None)
        world.settle_waiter()
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
class Waiting:
    """The one statement that waits for a lock."""

    session: Session
    since: int
    blockers: list[int]
    pauses_until: int = 0
    call: Call | None = None


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
    waiting: Waiting | None = None

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.hash = hashlib.sha256()
        self.seen: dict[str, Any] = {}
        self.model = Model(self)
        self.locks: dict[str, tuple[Session, int]] = {}
        self.timeline = 1
        self.clock = 0
        self.is_calm = False
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

    # Locks

    def begin_wait(self, session: Session, call: Call | None, blockers: list[int]) -> bool:
        """Judge a wait; return false where it was given up, because somebody waits already."""
        if self.arena.is_pause(blockers):
            self.say(f"{session.name} {call.function if call else ''} pauses")
            self.counted["pauses between two statements"] += 1
            self.wait(Waiting(session, self.steps, blockers, self.steps + self.chance.choice((1, 3, 8, 20)), call))
            return True
        self._judge_wait(session, call, blockers)
        if self.waiting is None:
            self.wait(Waiting(session, self.steps, blockers, 0, call))
            return True
        self.counted["impatient callers"] += 1
        assert session.wire is not None
        self.arena.cancel(session.wire.pid)
        while not session.wire.is_done(1.0):
            pass
        return False

    def _judge_wait(self, session: Session, call: Call | None, blockers: list[int]) -> None:
        holders = [each for each in self.sessions() if each.wire is not None and each.wire.pid in blockers]
        names = ", ".join(each.name for each in holders)
        function = call.function if call else "a statement"
        self.say(f"{session.name} {function} waits for {names}")
        self.counted["lock waits"] += 1
        forgets = any(each.function in _FORGETS for holder in holders for each in holder.calls)
        if self.waiting is not None and self.waiting.session in holders and self.waiting.call is not None:
            forgets = forgets or self.waiting.call.function in _FORGETS  # it pauses in the middle of it
        if function not in _MAY_WAIT and not forgets:
            raise Violation("nobody_waits_who_must_not", f"{session.name}, {function} waits for {names}")

    def wait(self, waiting: Waiting | None) -> None:
        """Note who waits; meanwhile nobody pauses, for two could only go on at once."""
        self.waiting = waiting
        self.arena.set_pauses(0 if waiting is not None or self.is_calm else self.pauses)

    def settle_waiter(self) -> None:
        """See whether who waits is still in somebody's way; if not, it goes on until it has ended or waits again."""
        waiting = self.waiting
        if waiting is None or waiting.session.wire is None:
            return
        wire = waiting.session.wire
        waiting.blockers = self.arena.blockers(wire.pid) or self.arena.settle(wire)

    def end_pause(self, waiting: Waiting) -> None:
        """Let the statement that pauses go on, unless it is too early."""
        if self.steps >= waiting.pauses_until or self.is_calm:
            self.arena.unpause()
            self.settle_waiter()
            if waiting.blockers and not self.arena.is_pause(waiting.blockers):
                self._judge_wait(waiting.session, waiting.call, waiting.blockers)

    @property
    def waiting_session(self) -> Session | None:
        """Whose statement waits for a lock."""
        return None if self.waiting is None else self.waiting.session

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

    def explain(self) -> str:
        """What the engine says about everything unfinished."""
        lines = []
        for run_id in self.seen.get("dispatch", {}):
            rows = self.arena.onlooker.execute("select to_jsonb(e)::text from perdure.explain($1) as e", [run_id])
            lines += [f"{run_id}: {row}" for [row] in rows]
            lines.append(f"  dispatch: {json.dumps(self.seen['dispatch'][run_id])}")
        return "\n".join(lines)

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
        able = [actor for actor in self.actors if actor.rests_until <= self.steps]
        if self.waiting is not None:
            waiter = self.waiting.session
            if self.arena.is_pause(self.waiting.blockers):
                self.waiting.since = self.steps
                self.end_pause(self.waiting)
            if not self.waiting.blockers:
                return next(actor for actor in self.actors if actor.session is waiter)
            if self.steps - self.waiting.since > LONGEST_WAIT:
                holders = [
                    actor
                    for actor in self.actors
                    if actor.session.wire is not None and actor.session.wire.pid in self.waiting.blockers
                ]
                for actor in holders:
                    actor.session.must_end = True
                able = holders or able
            able = [actor for actor in able if actor.session is not waiter]
        if not able:
            return None
        return self.chance.choices(able, [actor.weight for actor in able])[0]
