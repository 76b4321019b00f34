"""Clients, operators and tickers of the simulation."""

from __future__ import annotations

import json
from typing import Any

from sim.damage import BAD_DATA
from sim.program import NAMES, make_program
from sim.rules import is_held, waits_of
from sim.sessions import Lost, Refused
from sim.workers import WORKFLOWS
from sim.world import Actor, Session, Turn, World

_EXPECTED = ("PD001", "PD003", "PD005", "PD009", "22023", "40001", "40P01", "55P03", "57014")
_ISOLATIONS = ("read committed", "read committed", "read committed", "repeatable read", "serializable")
MOST_RUNS = 14


class Person:
    """Somebody with a connection whose transactions may stay open for long."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.session = Session(world, name)
        self.actor: Actor | None = None
        self.sent = 0
        self.losses = 0
        self.favourite = ""
        self.is_done = True
        self.last = ("", "")
        self.remembered: list[tuple[str, dict[str, Any]]] = []

    def rest(self, steps: int) -> Turn:
        """Leave things as they are for some steps."""
        if self.actor is not None and not self.session.must_end:
            self.actor.rests_until = self.world.steps + steps
        yield

    def live(self, calls: Any) -> Turn:
        """Make transactions of a few calls."""
        while not self.world.is_calm:
            again = self._what_was_lost()
            try:
                again = again or (yield from self._transaction(calls))
            except Lost:
                yield
            except Refused as refused:
                self._expect(refused)
                try:
                    yield from self.session.roll_back()
                except Lost:
                    yield
            if again:
                self.world.counted["calls replayed"] += 1
                try:
                    yield from self.session.call(again[0], **again[1])
                except (Lost, Refused) as error:
                    if isinstance(error, Refused):
                        self._expect(error)
                    yield
                    try:
                        yield from self.session.roll_back()
                    except Lost:
                        yield
            yield from self.rest(self.world.chance.choice((0, 3, 10, 25)))
        while True:
            yield

    def make(self, calls: list[tuple[str, dict[str, Any]]]) -> Turn:
        """Make some calls, each committed at once."""
        self.is_done = False
        for function, arguments in calls:
            try:
                yield from self.session.call(function, **arguments)
            except Refused as refused:
                self._expect(refused)
                yield from self.session.roll_back()
        self.is_done = True
        while True:
            yield

    def _expect(self, refused: Refused) -> None:
        is_bad = refused.sqlstate[:2] in BAD_DATA and bool(self.world.damage.runs)
        if refused.sqlstate not in _EXPECTED and not is_bad:
            raise refused

    def _what_was_lost(self) -> tuple[str, dict[str, Any]] | None:
        """After a loss: a call that was acknowledged, to be made again."""
        if self.losses == self.world.losses:
            return None
        self.losses = self.world.losses
        return self.world.chance.choice(self.remembered) if self.remembered else None

    def _transaction(self, calls: Any) -> Turn:
        chance = self.world.chance
        made: list[tuple[str, dict[str, Any]]] = []
        if chance.random() < (0.3 if self.world.waits.pausing is None else 0.8):  # one call, committed at once
            function, arguments = calls()
            made.append((function, arguments))
            try:
                yield from self.session.call(function, **arguments)
            except Lost:
                yield
                return made[0]
            self._remember(made)
            return None
        yield from self.session.begin(chance.choice(_ISOLATIONS))
        saved = -1
        for _ in range(chance.randint(1, 3)):
            if chance.random() < 0.15 and saved < 0:
                yield from self.session.savepoint()
                saved = len(self.session.calls)
            function, arguments = calls()
            made.append((function, arguments))
            yield from self.session.call(function, **arguments)
            yield from self.rest(chance.choice((0, 0, 1, 4, 15)))
            if self.session.must_end:
                break
        if saved >= 0 and chance.random() < 0.5:
            yield from self.session.roll_back_to_savepoint(saved)
        if chance.random() < 0.15:
            self.world.counted["clients rolled back"] += 1
            yield from self.session.roll_back()
            return None
        try:
            yield from self.session.commit()
        except Lost:
            yield
            return made[0]
        self._remember(made)
        return None

    def _remember(self, made: list[tuple[str, dict[str, Any]]]) -> None:
        self.remembered = [*self.remembered, *(each for each in made if each[0] in ("start", "signal"))][-4:]

    def some_run(self) -> str:
        """A run that is known, often one that somebody is at work on; or none that anybody knows."""
        chance, seen = self.world.chance, self.world.seen
        if self.favourite in seen["dispatch"] and chance.random() < 0.4:
            return self.favourite
        hot = self.world.hot_runs()
        if hot and chance.random() < 0.5:
            self.favourite = chance.choice(hot)
            return self.favourite
        nobody = ["00000000-0000-7000-8000-000000000000"]
        pools = [sorted(seen["dispatch"]), sorted(seen["run"]), self.world.lost_runs, nobody]
        pool = chance.choices(pools, (76, 17, 5, 2))[0] or nobody
        return str(chance.choice(pool))

    # Clients

    def client_call(self) -> tuple[str, dict[str, Any]]:
        """Start or signal."""
        world, chance = self.world, self.world.chance
        if (echo := self._echo()) and chance.random() < 0.25:
            world.counted["calls echoed"] += 1
            return echo
        what = chance.random()
        if len(world.seen["run"]) < MOST_RUNS and (what < 0.45 or not world.seen["run"]):
            return self._start() if what < 0.38 else self._start_many()
        if what < 0.85:
            waited = [
                (run_id, wait["name"])
                for run_id, row in sorted(world.seen["dispatch"].items())
                for wait in waits_of(row)
                if wait["kind"] == "signal"
            ]
            self.sent += 1
            message_id = (
                f"{self.session.name}.{self.sent}" if chance.random() < 0.7 else chance.choice(("shared", "common"))
            )
            run_id, name = self.some_run(), chance.choice(NAMES)
            if waited and chance.random() < 0.75:
                hot = [each for each in waited if each[0] in world.hot_runs()]
                run_id, awaited = chance.choice(hot or waited)
                name = awaited if hot or chance.random() < 0.5 else name
            return "signal", {"run_id": run_id, "name": name, "payload": {"n": self.sent}, "id": message_id}
        if what < 0.93:
            self.sent += 1
            sent: dict[str, Any] = {
                "workflow": chance.choice(WORKFLOWS), "key": chance.choice("kl"), "name": chance.choice(NAMES),
                "payload": {"n": self.sent}, "id": f"{self.session.name}.{self.sent}",
            }  # fmt: skip
            if len(world.seen["run"]) < MOST_RUNS:
                sent["start_input"] = make_program(chance)
            return "signal_key", sent
        return "run_results", {"run_ids": frozenset(world.seen["run"])}

    def _echo(self) -> tuple[str, dict[str, Any]] | None:
        """A call that somebody else has made and not committed yet: what came twice comes here as well."""
        made = [
            (call.function, call.arguments)
            for each in self.world.sessions()
            for call in each.calls
            if each is not self.session and call.function in ("start", "start_many", "signal", "signal_key")
        ]
        return self.world.chance.choice(made) if made else None

    def _start(self) -> tuple[str, dict[str, Any]]:
        chance = self.world.chance
        options: dict[str, Any] = {
            "workflow": chance.choices(WORKFLOWS, (3, 1))[0],
            "input": make_program(chance),
            "queue": chance.choice(("default", "slow")),
            "priority": str(chance.randint(1, 5)),
        }
        if chance.random() < 0.4:
            options["key"] = chance.choice("klmn")
            options["on_duplicate"] = chance.choice(
                ("attach", "restart_if_failed", "restart_if_finished", "replace", "error")
            )
            if chance.random() < 0.4:
                options["input"] = {"ops": [], "cleanup": [], "raises": False}
        if chance.random() < 0.2:
            options["delay"] = chance.choice(("0.01 s", "1 s", "30 s", "1 h"))
        if chance.random() < 0.25:
            options["timeout"] = chance.choice(("0.01 s", "1 s", "30 s", "1 h"))
        if chance.random() < 0.3:
            options["max_recoveries"] = chance.choice("0123")
        return "start", options

    def _start_many(self) -> tuple[str, dict[str, Any]]:
        chance = self.world.chance
        count = chance.randint(1, 3)
        options: dict[str, Any] = {
            "workflow": "plain",
            "inputs": tuple(json.dumps(make_program(chance)) for _ in range(count)),
        }
        if chance.random() < 0.5:
            options["keys"] = tuple(chance.choice(("k", "l", "m", None)) for _ in range(count))
            options["on_duplicate"] = chance.choice(("attach", "restart_if_failed", "restart_if_finished", "error"))
        return "start_many", options

    # Operators

    def operator_call(self) -> tuple[str, dict[str, Any]]:
        """Ask an act of a run, or of some."""
        chance = self.world.chance
        act = chance.choices(("cancel", "terminate", "pause", "resume", "retry"), (20, 6, 30, 34, 16))[0]
        arguments: dict[str, Any] = {"reason": "so it was decided"}
        after = {"cancel": "pause", "pause": "resume"}.get(self.last[0])
        if after and chance.random() < 0.4:  # one thing leads to another
            self.last = (after, self.last[1])
            return after, {"run_id": self.last[1], **arguments}
        if act == "retry":
            return self._retry()
        if act == "cancel":
            arguments["grace"] = chance.choice(("0 s", "1 s", "5 min", "1 h"))
        if chance.random() < 0.25:
            return f"{act}_many", {"run_ids": frozenset(self.some_run() for _ in range(3)), **arguments}
        self.last = (act, self.some_run())
        return act, {"run_id": self.last[1], **arguments}

    def _retry(self) -> tuple[str, dict[str, Any]]:
        chance, seen = self.world.chance, self.world.seen
        ended = sorted(seen["outcome"]) or [self.some_run()]
        run_id = chance.choice(ended)
        if chance.random() < 0.3:
            return "retry_many", {"run_ids": frozenset({run_id, chance.choice(ended)})}
        keys = sorted(row["key"] for row in seen["step"].values() if row["run_id"] == run_id)
        if keys and chance.random() < 0.4:
            return "retry", {"run_id": run_id, "from_step": chance.choice(keys)}
        return "retry", {"run_id": run_id}

    def admin_call(self) -> tuple[str, dict[str, Any]]:
        """Put the install on hold now and then, and go on with it."""
        world, chance = self.world, self.world.chance
        if is_held(world.seen):
            return "adopt", {"reason": "looked at it"}
        if world.holds and chance.random() < 0.25:
            return "hold", {"reason": chance.choice(("looks strange", "restored"))}
        return "run_results", {"run_ids": frozenset(world.seen["run"])}

    # Tickers

    def tick(self) -> Turn:
        """Tick, recover or drain; mostly alone, sometimes in a transaction that stays open."""
        chance = self.world.chance
        while True:
            try:
                function = chance.choices(("tick", "recover", "drain"), (6, 1, 3))[0]
                if chance.random() < 0.85 or self.world.is_calm:
                    yield from self.session.call(function)
                else:
                    yield from self.session.begin()
                    yield from self.session.call(function)
                    yield from self.rest(chance.choice((0, 2, 8)))
                    yield from self.session.commit()
                yield from self.rest(chance.choice((0, 2, 6, 20)))
            except Lost:
                yield
