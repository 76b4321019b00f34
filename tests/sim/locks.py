"""Who waits for whom: several statements may wait for a lock at once, and one may pause between two of its own.

A statement that waits is stopped (SIGSTOP to its backend), so that the end of a wait lets nobody go on by itself: of
those that could, the seed chooses one, and it goes on until it has ended or waits again. No deadlock ends by itself
either: a circle is seen as soon as it closes, and only clients may close one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.rules import Call, Violation

if TYPE_CHECKING:
    from sim.world import Session, World

# Who may wait for whom: clients for each other, a transaction step for its row, a stopping worker for its own
# transactions, operators for the install, and whoever passes the fence for somebody who just forgets the worker.
_CLIENTS = frozenset({"start", "start_many", "signal", "signal_key", "retry", "retry_many"})
_MAY_WAIT = _CLIENTS | {"save_transaction_step", "stop_worker", "hold", "adopt"}
_FORGETS = frozenset({"tick", "recover", "stop_worker", "adopt"})

MOST = 5  # who wait at once; one more is impatient and gives up
LONGEST = 12  # steps; then whoever is in the way has to end


@dataclass
class Waiting:
    """A statement that waits for a lock, or pauses."""

    session: Session
    call: Call | None
    blockers: list[int]
    since: int
    pauses_until: int | None = None

    @property
    def pid(self) -> int:
        """Its backend."""
        assert self.session.wire is not None
        return self.session.wire.pid


class Waits:
    """All statements that are under way and cannot go on, in the order in which they came."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.all: list[Waiting] = []

    def of(self, session: Session) -> Waiting | None:
        """The wait of a session's statement."""
        return next((each for each in self.all if each.session is session), None)

    def is_held_up(self, session: Session) -> bool:
        """Whether a session's statement still cannot go on."""
        found = self.of(session)
        return found is not None and bool(found.blockers)

    @property
    def pausing(self) -> Waiting | None:
        """Who pauses; one at a time, for two could only go on at once."""
        return next((each for each in self.all if each.pauses_until is not None and each.blockers), None)

    def begin(self, session: Session, call: Call | None, blockers: list[int]) -> bool:
        """Judge a wait; return false where it was given up: there are too many, or it closed a circle."""
        world = self.world
        waiting = Waiting(session, call, blockers, world.steps)
        self.all.append(waiting)
        if self._stop(waiting):
            return True
        self.all.remove(waiting)
        world.arena.cancel(waiting.pid)
        assert session.wire is not None
        while not session.wire.is_done(1.0):
            pass
        return False

    def _stop(self, waiting: Waiting) -> bool:
        """Hold up a statement that has begun to wait; return false where it is to be cancelled instead."""
        world = self.world
        if world.arena.is_pause(waiting.blockers):
            world.say(f"{_name(waiting)} pauses")
            world.counted["pauses between two statements"] += 1
            waiting.pauses_until = world.steps + world.chance.choice((1, 3, 8, 20))
            self.arrange_pauses()
            return True
        waiting.pauses_until = None
        self._judge(waiting)
        if circle := self._circle(waiting):
            self._judge_circle(circle)
            world.counted["deadlocks of clients"] += 1
            return False
        others = [each for each in self.all if each is not waiting and each.pauses_until is None]
        if len(others) >= (MOST if world.arena.can_stop else 1):
            world.counted["impatient callers"] += 1
            return False
        if others:
            world.counted["waits beside others"] += 1
        world.arena.stop(waiting.pid)
        return True

    def end(self, session: Session) -> None:
        """A statement has ended, or its backend."""
        self.all = [each for each in self.all if each.session is not session]
        self.arrange_pauses()

    def settle(self) -> None:
        """Let those go on, one after the other, in whose way nobody is any more."""
        while True:
            for each in self.all:
                if each.blockers and each.pauses_until is None:
                    each.blockers = self.world.arena.in_the_way(each.pid)
            free = [each for each in self.all if not each.blockers and self.world.arena.is_stopped(each.pid)]
            if not free:
                return
            self._go_on(self.world.chance.choice(free))

    def _go_on(self, waiting: Waiting) -> None:
        wire = waiting.session.wire
        assert wire is not None
        self.world.say(f"{_name(waiting)} goes on")
        self.world.arena.go_on(wire.pid)
        waiting.blockers = self.world.arena.settle(wire)
        if waiting.blockers and not self._stop(waiting):
            self.world.arena.cancel(wire.pid)
            while not wire.is_done(1.0):
                pass
            waiting.blockers = []

    def end_pause(self) -> None:
        """Let the statement that pauses go on, unless it is too early."""
        waiting = self.pausing
        if waiting is None or (self.world.steps < (waiting.pauses_until or 0) and not self.world.is_calm):
            return
        wire = waiting.session.wire
        assert wire is not None
        self.world.arena.set_pauses(0)  # it has paused enough for now
        self.world.arena.unpause()
        waiting.pauses_until = None
        waiting.blockers = self.world.arena.settle(wire)
        if waiting.blockers and not self._stop(waiting):
            self.world.arena.cancel(wire.pid)
            while not wire.is_done(1.0):
                pass
            waiting.blockers = []
        self.arrange_pauses()
        self.settle()

    def arrange_pauses(self) -> None:
        """Allow pauses while nobody pauses; where nobody can be stopped, while nobody waits."""
        world = self.world
        is_taken = self.pausing is not None or (bool(self.all) and not world.arena.can_stop)
        world.arena.set_pauses(0 if is_taken or world.is_calm else world.pauses)

    def free(self) -> Session | None:
        """A session whose statement has ended its wait: it is next; first of all one that was a transaction by itself."""
        free = [each.session for each in self.all if not each.blockers]
        return min(free, key=lambda session: session.is_open, default=None)

    def in_the_way(self) -> list[Session]:
        """Whoever has been in the way of somebody for too long, and does not wait itself."""
        blockers = {
            pid
            for each in self.all
            if each.pauses_until is None and self.world.steps - each.since > LONGEST
            for pid in each.blockers
        }
        return [
            each
            for each in self.world.sessions()
            if each.wire is not None and each.wire.pid in blockers and self.of(each) is None
        ]

    # What may be

    def _holders(self, waiting: Waiting) -> list[Session]:
        return [each for each in self.world.sessions() if each.wire is not None and each.wire.pid in waiting.blockers]

    def _judge(self, waiting: Waiting) -> None:
        holders = self._holders(waiting)
        names = ", ".join(each.name for each in holders)
        self.world.say(f"{_name(waiting)} waits for {names}")
        self.world.counted["lock waits"] += 1
        calls = [call for holder in holders for call in holder.calls]
        calls += [found.call for holder in holders if (found := self.of(holder)) is not None and found.call is not None]
        forgets = any(call.function in _FORGETS for call in calls)
        if waiting.call is None or (waiting.call.function not in _MAY_WAIT and not forgets):
            raise Violation("nobody_waits_who_must_not", f"{_name(waiting)} waits for {names}")

    def _circle(self, waiting: Waiting) -> list[Waiting]:
        """Those who wait for each other in a circle that this wait closes."""

        def path(at: Waiting, been: list[Waiting]) -> list[Waiting]:
            for each in self.all:
                if each.pid not in at.blockers or each.pauses_until is not None:
                    continue
                if each is waiting:
                    return been
                if each not in been and (found := path(each, [*been, each])):
                    return found
            return []

        return path(waiting, [waiting])

    def _judge_circle(self, circle: list[Waiting]) -> None:
        names = ", ".join(_name(each) for each in circle)
        self.world.say(f"*** a circle: {names}")
        if not all(each.call is not None and each.call.function in _CLIENTS for each in circle):
            raise Violation("only_clients_deadlock", names)


def _name(waiting: Waiting) -> str:
    return f"{waiting.session.name} {waiting.call.function if waiting.call else 'a statement'}"
