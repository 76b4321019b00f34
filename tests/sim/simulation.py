"""One seed, from an empty database to the end of its last run."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sim import periods
from sim.people import Person
from sim.rules import Violation, is_held, waits_of
from sim.sessions import Arena, micros
from sim.workers import WORKFLOWS, Worker
from sim.world import Actor, Faults, World

STEPS = 260
ROUNDS = 150


DISASTERS = ("failover with loss", "failover with loss", "dump restored", "files restored", "cluster upgraded")


@dataclass
class Plan:
    """What is to come of what comes once in a life, if it comes at all."""

    bad_runs: bool
    remembers_at: int = -1
    strikes_at: int = -1
    disaster: str = ""

    @classmethod
    def make(cls, chance: random.Random) -> Plan:
        """Throw the dice."""
        plan = cls(chance.random() < 0.35)
        if chance.random() < 0.5:
            plan.remembers_at = chance.randint(20, STEPS - 90)
            plan.strikes_at = plan.remembers_at + chance.choice((1, 5, 12, 25, 50, 80))
            plan.disaster = chance.choice(DISASTERS)
        return plan


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    digest: str
    counted: Counter[str]
    trace: list[str]
    steps: int


class Failure(Exception):
    """A seed that found something; its message has all that is needed to look into it."""

    def __init__(self, world: World, error: BaseException) -> None:
        tail = "\n".join(world.trace if world.keeps_trace else world.trace[-40:])
        super().__init__(
            f"{tail}\n\nseed {world.seed}, step {world.steps}: {error}\n"
            f"again: cd tests && ../.venv/bin/python -m sim.soak --seed {world.seed} --trace"
        )
        self.seed = world.seed
        self.rule = error.rule if isinstance(error, Violation) else type(error).__name__
        self.steps = world.steps


class Simulation:
    """The cast, and the course of things."""

    def __init__(self, arena: Arena, seed: int, *, keeps_trace: bool = False, pause_in: str = "") -> None:
        self.world = World(arena, seed, keeps_trace)
        self.pause_in = pause_in
        self.workers: list[Worker] = []
        self.people: list[Person] = []
        self.plan = Plan.make(self.world.chance)
        self.turns = random.Random(seed)  # of its own: what else a seed decides stays as it is

    def run(self) -> Result:
        """Simulate; raises Failure."""
        world = self.world
        try:
            self._open()
            while world.steps < STEPS:
                self._misfortune()
                world.step()
            self._close()
            self._finish()
        except Exception as error:
            raise Failure(world, error) from error
        finally:
            for session in world.sessions():
                if session.wire is not None:
                    world.arena.terminate(session.wire.pid)
                    session.wire.close()
        for run in sorted(world.seen["run"]):
            world.say(f"{run} {world.seen['outcome'][run]}")
        for step in sorted(world.seen["step"]):
            world.say(f"{step} {world.seen['step'][step]}")
        world.counted.update({f"ended {k}": v for k, v in world.model.counted.items()})
        return Result(world.seed, world.hash.hexdigest(), world.counted, world.trace, world.steps)

    def _open(self) -> None:
        world, chance = self.world, self.world.chance
        world.arena.empty()
        world.arena.pause_in(self.pause_in)
        for statement in [
            *(f"select perdure.put_workflow('{each}')" for each in WORKFLOWS),
            "select perdure.put_queue('default'), perdure.put_queue('slow')",
        ]:
            world.arena.onlooker.execute(statement)
        world.seen, _ = world.arena.look()
        world.holds = chance.random() < 0.3
        world.pauses = (1 if self.pause_in else chance.choice((0, 1, 1, 1))) * chance.randint(1, 1_000_000)
        world.waits.arrange_pauses()
        for n in range(chance.randint(1, 3)):
            self._add_worker(f"w{n + 1}")
        for name, weight in (("c1", 1.0), ("c2", 1.0), ("c3", 0.6), ("o1", 0.8), ("a1", 0.3), ("t1", 0.7), ("t2", 0.3)):
            self._add_person(name, weight)

    def _add_worker(self, name: str) -> None:
        worker = Worker(self.world, name)
        self.workers.append(worker)
        self.world.actors += [
            Actor(worker.flusher.name, worker.flush(), worker.flusher, 5.0),
            Actor(worker.beater.name, worker.beat(), worker.beater, 0.7),
            Actor(worker.hand.name, worker.work(), worker.hand, 1.5),
        ]

    def _add_person(self, name: str, weight: float) -> None:
        person = Person(self.world, name)
        if name.startswith("t"):
            turns = person.tick()
        else:
            calls = {"c": person.client_call, "o": person.operator_call, "a": person.admin_call}
            turns = person.live(calls[name[0]])
        person.actor = Actor(name, turns, person.session, weight)
        self.people.append(person)
        self.world.actors.append(person.actor)

    # What goes wrong

    def _misfortune(self) -> None:
        world, chance, faults = self.world, self.world.chance, self.world.faults
        if world.happens(faults.kill, "backend killed"):
            chance.choice(world.sessions()).lose()
        if world.happens(faults.crash, "worker crashed"):
            self._crash(chance.choice(self.workers))
        if world.happens(faults.freeze, "worker frozen"):
            worker, until = chance.choice(self.workers), world.steps + chance.choice((5, 30, 80))
            for actor in self._hands(worker):
                actor.rests_until = until
        if world.happens(faults.restart, "server restarted"):
            self._lose_all()
            self._be_away()
            world.restarted()
        if world.happens(faults.failover, "timeline changed"):
            self._lose_all()
            self._be_away()
            world.failed_over()
        self._disaster()
        if self.plan.bad_runs and world.happens(faults.strike, "bad run"):
            world.damage.strike()
        if world.damage.runs and world.happens(faults.mend, "bad runs mended"):
            world.damage.mend()
        if world.happens(faults.jump, "time jumps"):
            self._jump()
        if not self.plan.bad_runs and self.turns.random() < faults.turn:
            periods.turn(world, self.turns)

    def _lose_all(self) -> None:
        for session in self.world.sessions():
            session.lose()

    def _be_away(self) -> None:
        """However long the server needs to come back: nobody beats meanwhile."""
        self.world.move(self.world.chance.choice((1, 1_000_000, 3_000_000, 45_000_000)))

    def _disaster(self) -> None:
        """The server is lost with what it acknowledged last, or the database is another one all of a sudden."""
        world, plan = self.world, self.plan
        if world.steps == plan.remembers_at:
            world.say("*** a standby lags behind here, or a backup is taken")
            world.arena.past.remember()
        if world.steps != plan.strikes_at:
            return
        world.say(f"*** {plan.disaster}")
        world.counted[plan.disaster] += 1
        self._lose_all()
        self._be_away()
        if plan.disaster != "cluster upgraded":
            periods.forget_copy(world)
            world.arena.past.go_back()
            world.went_back()
        if plan.disaster == "failover with loss":
            world.failed_over()
        elif plan.disaster == "dump restored":  # into other tables
            world.arena.script("update perdure.install set table_id = (table_id::bigint + 1)::oid")
        elif plan.disaster == "cluster upgraded":  # and so it has another identity
            world.restarted()
            world.arena.script("update perdure.install set system_identifier = system_identifier + 1")
        else:  # its operator takes care that it is on hold before anybody comes
            world.restarted()
            world.set_clock()
            world.arena.script("select perdure.hold('restored from files')")
        world.model.copied_at = world.now
        world.refresh()

    def _hands(self, worker: Worker) -> list[Actor]:
        sessions = (worker.flusher, worker.beater, worker.hand)
        return [actor for actor in self.world.actors if actor.session in sessions]

    def _crash(self, worker: Worker) -> None:
        for session in (worker.flusher, worker.beater, worker.hand):
            session.renew()
        worker.forget()
        flush, beat, work = self._hands(worker)
        flush.turns, beat.turns, work.turns = worker.flush(), worker.beat(), worker.work()

    def _jump(self) -> None:
        """Let time pass; who is well beats right after it, before anybody can find out."""
        world, chance = self.world, self.world.chance
        times = [
            micros(row[name])
            for _, row in sorted(world.seen["dispatch"].items())
            for name in ("ready_at", "ends_at")
            if world.now < micros(row[name]) < float("inf")
        ]
        by = chance.choice((2_000_000, 10_000_000, 40_000_000, 64_000_000, 600_000_000))
        hop = 8_000_000 if by < 600_000_000 else by
        if times and chance.random() < 0.5:
            by = hop = max(1, int(chance.choice(times)) - world.now + chance.choice((-1, 0, 1, 1_000)))
        well = [worker for worker in self.workers if chance.random() < 0.85]
        world.say(f"*** it will be {by / 1e6} s later")
        for _ in range(max(1, by // hop)):  # a silence counts only while somebody looks all the time
            world.move(min(hop, by))
            for worker in well:
                beat = self._hands(worker)[1]
                if beat.rests_until <= world.steps:
                    self._turns(beat, 4)
            if by > hop:
                self._turns(next(actor for actor in world.actors if actor.name == "t1"), 3)

    def _turns(self, actor: Actor, count: int) -> None:
        """Let one actor take some turns."""
        for _ in range(count):
            if self.world.waits.of(actor.session) is not None:
                return
            next(actor.turns)

    # The end

    def _close(self) -> None:
        """Nothing goes wrong any more; what is open comes to its end."""
        world = self.world
        world.say("*** the end game")
        world.faults = Faults.none()
        world.is_calm = True
        world.waits.arrange_pauses()
        for actor in world.actors:
            actor.rests_until = 0
        self._add_worker("w0")  # one that knows every workflow
        for person in self.people:
            assert person.actor is not None
            if not person.session.name.startswith("t"):
                person.session.renew()
                person.actor.turns = person.live(lambda: None)

    def _finish(self) -> None:
        """Every run must end within a bounded number of rounds, whatever it waits for being given to it."""
        world = self.world
        operator = next(person for person in self.people if person.session.name == "o1")
        assert operator.actor is not None
        for n in range(ROUNDS):
            for actor in world.actors:
                for _ in range(1 if actor.name.startswith("t") else 4):
                    world.waits.end_pause()
                    while (session := world.waits.free()) is not None:
                        next(next(each for each in world.actors if each.session is session).turns)
                    if world.waits.of(actor.session) is not None:
                        break
                    world.steps += 1
                    world.move(100)
                    next(actor.turns)
            world.damage.mend()
            self.world.check([])
            if not self.plan.bad_runs:
                periods.turn(world, self.turns)
            if not world.seen["dispatch"] and not world.seen["wake"]:
                break
            if n % 3 == 2 and not world.waits.all and operator.is_done:
                operator.actor.turns = operator.make(self._help())
                self._go_on()
        seen, violations = world.arena.look()
        if seen["dispatch"]:
            raise Violation("every_run_ends", f"{len(seen['dispatch'])} do not\n{world.explain()}")
        world.model.judge_end(seen, [*violations, *world.arena.catalog_violations()])

    def _help(self) -> list[tuple[str, dict[str, Any]]]:
        """Give each run what it waits for."""
        calls: list[tuple[str, dict[str, Any]]] = []
        if is_held(self.world.seen):
            calls.append(("adopt", {"reason": "the end game"}))
        for run_id, row in sorted(self.world.seen["dispatch"].items()):
            if row["is_paused"]:
                calls.append(("resume", {"run_id": run_id, "reason": "the end game"}))
            there = {each["name"] for each in self.world.seen["signal"].values() if each["run_id"] == run_id}
            calls += [
                (
                    "signal",
                    {"run_id": run_id, "name": wait["name"], "payload": {"n": 0}, "id": f"end.{self.world.steps}"},
                )
                for wait in waits_of(row)[:1]
                if wait["kind"] == "signal" and (wait["name"] not in there or True)
            ]
        return calls

    def _go_on(self) -> None:
        """Jump to the next time that anybody waits for."""
        world = self.world
        times = [micros(row["ready_at"]) for row in world.seen["dispatch"].values() if row["worker_id"] is None]
        known = {worker.worker_id for worker in self.workers}
        if any(row["worker_id"] not in (None, *known) for row in world.seen["dispatch"].values()):
            world.move(8_000_000)  # held by the dead
            self._beat_all()
            return
        ahead = [each for each in times if world.now < each < float("inf")]
        if ahead and not any(each <= world.now for each in times):
            world.move(int(min(ahead)) - world.now)
        else:
            world.move(500_000)
        self._beat_all()

    def _beat_all(self) -> None:
        for worker in self.workers:
            self._turns(self._hands(worker)[1], 4)


def simulate(arena: Arena, seed: int, *, keeps_trace: bool = False, pause_in: str = "") -> Result:
    """Run one seed; raises Failure. pause_in: a function in which every statement may pause, whatever the seed chose."""
    return Simulation(arena, seed, keeps_trace=keeps_trace, pause_in=pause_in).run()
