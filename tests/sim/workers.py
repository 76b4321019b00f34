"""Workers of the simulation: they speak the protocol as the driver does, and break as workers do.

A worker has three hands, each a connection of its own: one beats and registers, one flushes batches and claims, one
executes transaction steps. What it knows of its runs is in memory and goes with a crash.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sim.damage import BAD_DATA
from sim.program import Move, next_move
from sim.rules import BATCHES, Violation, require
from sim.sessions import Lost, Refused, micros
from sim.world import Session, Turn, World, iso

WORKFLOWS = ("plain", "other")
BEAT = 1_000_000
_TRY_AGAIN = ("40001", "40P01", "55P03", "57014")
# In this order a flush calls them, as the driver's does.
FUNCTIONS = (
    ("save_steps", "saves"),
    ("fail_steps", "tries"),
    ("suspend_runs", "suspensions"),
    ("complete_runs", "ends"),
    ("fail_runs", "ends"),
    ("release_runs", "releases"),
)


@dataclass
class Held:
    """A run in a worker's memory."""

    run_id: str
    claim: str
    program: dict[str, Any]
    begun_at: str
    checkpoints: dict[str, dict[str, Any]]
    attempts: dict[str, tuple[int, float]]
    ordinal: int
    pending: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keep: bool = False
    must_release: bool = False
    is_told: bool = False
    is_in_hand: bool = False
    has_more: bool = False
    is_bad: bool = False

    def named(self, **fields: Any) -> dict[str, Any]:
        """An element of a batch that names the run by its claim."""
        return {"run_id": self.run_id, "claim": self.claim, **fields}

    def move(self) -> Move:
        """What the run asks for next."""
        return next_move(self.run_id, self.program, self.checkpoints, self.begun_at)

    def take(self, checkpoint: dict[str, Any]) -> None:
        """Note what is on record."""
        self.checkpoints[checkpoint["key"]] = checkpoint
        self.ordinal = max(self.ordinal, checkpoint["ordinal"])


class Worker:
    """The memory that the three hands share."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.flusher = Session(world, f"{name}.flush")
        self.beater = Session(world, f"{name}.beat")
        self.hand = Session(world, f"{name}.hand")
        self.forget()

    def forget(self) -> None:
        """Forget everything, as a process that died."""
        self.worker_id: str | None = None
        self.is_direct = False
        self.timeline = 1
        self.held: dict[str, Held] = {}
        self.must_reconcile = False
        self.beat_at = 0
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def drop_all(self) -> None:
        """Forget what is held: the database gave it to others, or will."""
        self.worker_id = None
        self.held = {}
        self.must_reconcile = False

    # The hand that beats

    def beat(self) -> Turn:
        """Register, then beat each second."""
        while True:
            try:
                if self.worker_id is None:
                    yield from self._register()
                elif self.world.now - self.beat_at >= BEAT:
                    yield from self._beat_once(self.worker_id)
                else:
                    yield
            except (Lost, Refused) as error:
                self._refused(error)
                yield from self._give_up(self.beater)
                yield

    def _register(self) -> Turn:
        chance = self.world.chance
        is_direct = chance.random() < 0.5
        workflows = frozenset(WORKFLOWS if chance.random() < 0.8 or self.world.is_calm else WORKFLOWS[:1])
        self.beat_at = self.world.now
        [worker_id] = yield from self.beater.call(
            "register_worker", queues=frozenset({"default", "slow"}), workflows=workflows, is_direct=is_direct
        )
        self.held = {}
        self.worker_id, self.is_direct, self.must_reconcile = worker_id, is_direct, False
        self.timeline = self.world.timeline
        if is_direct:
            self.world.locks[worker_id] = (self.beater, self.beater.generation)

    def _beat_once(self, worker_id: str) -> Turn:
        self.beat_at = self.world.now
        if self.is_direct and not self.world.is_locked(worker_id):
            yield from self.beater.call("worker_lock", worker_id=worker_id)
            self.world.locks[worker_id] = (self.beater, self.beater.generation)
        [answer] = yield from self.beater.call("beat", worker_id=worker_id, runs_held=str(len(self.held)))
        if worker_id != self.worker_id:
            return
        if answer["timeline"] != self.timeline:
            self.drop_all()
            return
        self.must_reconcile |= answer["reconcile"]
        for held in self.held.values():
            held.must_release |= answer["hold"] is not None  # begin nothing, give all back
        for told in answer["runs"]:
            named = self.held.get(told["run_id"])
            if named is not None and named.claim == told["claim"]:
                named.must_release |= told["is_paused"]
                named.is_told = True

    # The hand that flushes

    def flush(self) -> Turn:
        """Send what runs ask for, claim more, and reconcile where it is not sure."""
        while True:
            try:
                yield from self._round()
            except (Lost, Refused) as error:
                self._refused(error)
                yield from self._give_up(self.flusher)
                yield

    def _round(self) -> Turn:
        chance, worker_id = self.world.chance, self.worker_id
        if worker_id is None:
            yield
        elif self.must_reconcile and (not any(h.pending for h in self.held.values()) or chance.random() < 0.5):
            yield from self._reconcile(worker_id)
        elif not self.world.is_calm and chance.random() < 0.025:
            yield from self._stop(worker_id)
        elif (late := self._late(worker_id)) and chance.random() < 0.08:
            self.world.counted["calls that came late"] += 1
            yield from self.flusher.call(late[0], **late[1])
        elif (held := next((h for h in self.held.values() if h.has_more), None)) and chance.random() < 0.6:
            yield from self._read_on(held)
        else:
            yield from self._flush(worker_id)

    def _flush(self, worker_id: str) -> Turn:
        chance = self.world.chance
        sent: list[tuple[Held, str, dict[str, Any]]] = []
        for held in list(self.held.values()):
            if not held.is_in_hand and not held.has_more and (self.world.is_calm or chance.random() < 0.7):
                if not held.pending:
                    held.pending = self._plan(held)
                sent += [(held, function, element) for function, element in held.pending]
        if chance.random() < 0.35 and not self.world.is_calm:
            sent += [(h, "release_runs", h.named(saves=[])) for h in self.held.values() if h.is_in_hand][:1]
            self.world.counted["hands at odds"] += len(sent) > 0 and sent[-1][0].is_in_hand
        room = 6 - len(self.held)
        claims = room > 0 and chance.random() < 0.6
        if not sent and not claims:
            yield
            return
        try:
            yield from self.flusher.begin()
            answers = []
            for function, name in FUNCTIONS:
                for keep in (False, True) if function == "suspend_runs" else (False,):
                    group = [(h, e) for h, f, e in sent if f == function and h.keep == keep]
                    if group:
                        arguments: dict[str, Any] = {"worker_id": worker_id, name: [e for _, e in group]}
                        if function == "suspend_runs":
                            arguments["keep"] = keep
                        self.sent = [*self.sent[-11:], (function, arguments)]
                        rows = yield from self.flusher.call(function, **arguments)
                        answers.append((function, group, rows))
            claimed = []
            if claims:
                claimed = yield from self.flusher.call(
                    "claim_runs", worker_id=worker_id, max_runs=str(chance.randint(1, room))
                )
            yield from self.flusher.commit()
        except Lost:
            self.must_reconcile = self.must_reconcile or claims or chance.random() < 0.5
            self.world.rest(self.flusher, chance.choice((0, 3, 12)))  # to connect again takes its time
            raise
        except Refused as refused:
            self._single_out(refused, [held for held, _, _ in sent])
            raise
        if worker_id != self.worker_id:
            return  # what is in memory now is another registration's
        for function, group, rows in answers:
            found = {(row["run_id"], row.get("key")): row for row in rows}
            keyed = function in ("save_steps", "fail_steps")
            for held, element in group:
                self._take(held, function, element, found[element["run_id"], element["key"] if keyed else None])
        for row in claimed:
            self._take_claim(row)

    def _late(self, worker_id: str) -> tuple[str, dict[str, Any]] | None:
        """A call with claims that were given up meanwhile, as if it had hung in the network."""
        able = [
            (function, {**arguments, BATCHES[function]: stale})
            for function, arguments in self.sent
            if arguments["worker_id"] == worker_id
            and (
                stale := [
                    each
                    for each in arguments[BATCHES[function]]
                    if (held := self.held.get(each["run_id"])) is not None and held.claim != each["claim"]
                ]
            )
        ]
        return self.world.chance.choice(able) if able and not self.world.is_calm else None

    def _single_out(self, refused: Refused, sent: list[Held]) -> None:
        """Find the bad run of a batch, as halving it does, and pause that one."""
        bad = [held for held in sent if held.run_id in self.world.damage.runs]
        if refused.sqlstate[:2] in BAD_DATA and not bad:
            raise Violation("a_bad_run_stops_nobody_else", str(refused))
        for held in bad:
            held.pending, held.must_release, held.is_bad = [], True, True

    def _read_on(self, held: Held) -> Turn:
        """Read the next page of a run's checkpoints."""
        self.world.counted["pages read"] += 1
        most = self.world.chance.choice(("1", "500", "900"))
        [page] = yield from self.flusher.call("read_steps", run_id=held.run_id, after=str(held.ordinal), max_bytes=most)
        for step in page:
            held.take(step)
        if page:
            return
        held.has_more = False
        there = {row["key"] for row in self.world.seen["step"].values() if row["run_id"] == held.run_id}
        is_ours = self.world.seen["dispatch"].get(held.run_id, {}).get("claim") == held.claim
        require(there <= held.checkpoints.keys() or not is_ours, "pages_bring_all_checkpoints", held.run_id)

    def _take_claim(self, row: dict[str, Any]) -> None:
        steps = {step["key"]: step for step in row["steps"] if step["kind"] != "attempt"}
        attempts = {
            step["key"]: (step["attempt"], micros(step["retry_at"]))
            for step in row["steps"]
            if step["kind"] == "attempt"
        }
        ordinal = max((step["ordinal"] for step in steps.values()), default=0)
        self.held[row["run_id"]] = Held(
            row["run_id"],
            row["claim"],
            row["input"],
            row["begun_at"],
            steps,
            attempts,
            ordinal,
            has_more=row["has_more"],
        )

    def _plan(self, held: Held) -> list[tuple[str, dict[str, Any]]]:
        """Decide what a run sends: one call, or several saves."""
        chance = self.world.chance
        held.keep = False
        move = held.move()
        if held.must_release or chance.random() < 0.03:
            held.must_release = True
            saves = []
            if move.what == "save" and chance.random() < 0.5:
                saves = [self._save(held, 1, *move.saves[0])]
            reason = {"pause_reason": "the database refuses what it asks for"} if held.is_bad else {}
            return [("release_runs", held.named(saves=saves, **reason))]
        if held.is_told or (move.waits and move.saves and chance.random() < 0.4) or chance.random() < 0.05:
            held.is_told = False
            held.keep = True
            waits = [_sent(wait) for wait in move.waits]
            return [("suspend_runs", held.named(waits=waits, after=held.ordinal))]
        if move.what == "save":
            return self._plan_saves(held, move)
        if move.what == "try":
            return self._plan_try(held, move)
        if move.what == "wait":
            return [("suspend_runs", held.named(waits=[_sent(wait) for wait in move.waits], after=held.ordinal))]
        if move.what == "pause":
            saves = [self._save(held, 1, *move.saves[0])]
            return [("release_runs", held.named(saves=saves, pause_reason="the workflow asks for it"))]
        if move.what == "end":
            return [self._plan_end(held, move)]
        return []

    def _plan_saves(self, held: Held, move: Move) -> list[tuple[str, dict[str, Any]]]:
        """Save some of what is missing; the last saves may go along with what comes after them."""
        chance = self.world.chance
        count = chance.randint(1, len(move.saves))
        saves = [self._save(held, n, *each) for n, each in enumerate(move.saves[:count], 1)]
        if count == len(move.saves) and chance.random() < 0.4:
            ahead = Held(held.run_id, held.claim, held.program, held.begun_at, dict(held.checkpoints), {}, held.ordinal)
            for save in saves:
                ahead.take({**save, "saved_at": iso(self.world.now).replace(" ", "T")})
            after = ahead.move()
            if after.what == "wait":
                waits = [_sent(wait) for wait in after.waits]
                return [("suspend_runs", held.named(waits=waits, saves=saves, after=ahead.ordinal))]
            if after.what == "end":
                function, element = self._plan_end(ahead, after)
                return [(function, {**element, "saves": saves})]
        return [("save_steps", {**held.named(), **save}) for save in saves]

    def _plan_try(self, held: Held, move: Move) -> list[tuple[str, dict[str, Any]]]:
        chance = self.world.chance
        [(key, value)] = move.saves
        attempt, retry_at = held.attempts.get(key, (0, 0.0))
        if retry_at > self.world.now:
            if chance.random() < 0.5:
                return []  # waits in memory
            wait = {"key": key, "kind": "retry", "until": iso(retry_at)}
            return [("suspend_runs", held.named(waits=[wait], after=held.ordinal))]
        if attempt < move.fails:
            tried = {
                "key": key, "kind": "step", "ordinal": held.ordinal + 1, "attempt": attempt + 1,
                "error": {"type": "Oops", "message": key}, "policy": move.policy,
            }  # fmt: skip
            return [("fail_steps", held.named(**tried))]
        return [("save_steps", {**held.named(), **self._save(held, 1, key, value)})]

    def _plan_end(self, held: Held, move: Move) -> tuple[str, dict[str, Any]]:
        if move.error is None:
            return "complete_runs", held.named(result=move.result)
        return "fail_runs", held.named(error=move.error)

    def _save(self, held: Held, n: int, key: str, value: Any) -> dict[str, Any]:
        return {"key": key, "kind": "step", "ordinal": held.ordinal + n, "result": value}

    def _take(self, held: Held, function: str, element: dict[str, Any], row: dict[str, Any]) -> None:
        """Learn from an acknowledged answer."""
        answer = row["answer"]
        self.world.counted[f"answer {answer}"] += 1
        if self.held.get(held.run_id) is not held:
            return  # claimed again meanwhile
        if answer == "busy":
            return  # the same again
        held.pending = [each for each in held.pending if each[1] is not element]
        if answer == "on_record" and "saves" in element:
            held.must_release = True  # the run has not ended: whoever claims it next reads what there is
        elif answer in ("saved", "on_record"):
            recorded = element if answer == "saved" else row
            held.take(
                {
                    **{k: row[k] for k in ("key", "ordinal", "saved_at")},
                    "kind": recorded["kind"],
                    "result": recorded["result"],
                }
            )
            held.must_release |= row["ordinal"] != element["ordinal"]
        elif answer == "retry":
            held.attempts[row["key"]] = (row["attempt"], micros(row["retry_at"]))
        elif answer == "exhausted":
            held.take(row["checkpoint"])
        elif answer == "answered":
            checkpoint = row["checkpoint"]
            held.take(checkpoint)
            asked = {wait["key"] for wait in element["waits"]}
            held.must_release |= checkpoint["kind"] != "cancel" and checkpoint["key"] not in asked
        elif answer == "retry_due":
            key = row["checkpoint"]["key"]
            held.attempts[key] = (held.attempts.get(key, (1, 0))[0], 0.0)
        elif answer != "waiting":
            del self.held[held.run_id]

    def _reconcile(self, worker_id: str) -> Turn:
        """Release what the database says we hold but do not, drop what we hold but it does not say so."""
        self.world.counted["reconciled"] += 1
        rows = yield from self.flusher.call("worker_runs", worker_id=worker_id)
        if worker_id != self.worker_id:
            return
        theirs = {row["run_id"]: row["claim"] for row in rows}
        for held in list(self.held.values()):
            if theirs.get(held.run_id) != held.claim and not held.is_in_hand:
                del self.held[held.run_id]
        strange = [
            {"run_id": run_id, "claim": claim}
            for run_id, claim in sorted(theirs.items())
            if run_id not in self.held or self.held[run_id].claim != claim
        ]
        if strange:
            yield from self.flusher.call("release_runs", worker_id=worker_id, releases=strange)
        self.must_reconcile = False

    def _stop(self, worker_id: str) -> Turn:
        """Stop in good order; somebody else starts under the same name."""
        self.world.counted["soft stops"] += 1
        yield from self.flusher.call("stop_worker", worker_id=worker_id)
        if self.worker_id == worker_id:
            self.drop_all()

    # The hand that executes transaction steps

    def work(self) -> Turn:
        """Execute transaction steps, each in a transaction of the user's."""
        while True:
            held = self._choose()
            if held is None:
                yield
                continue
            held.is_in_hand = True
            try:
                yield from self._transact(held)
            except (Lost, Refused) as error:
                if isinstance(error, Refused) and error.sqlstate != "PD002":
                    raise
            finally:
                held.is_in_hand = False

    def _choose(self) -> Held | None:
        if self.worker_id is None:
            return None
        able = [
            held for held in self.held.values()
            if not held.pending and not held.must_release and not held.has_more and held.move().what == "transaction"
        ]  # fmt: skip
        return self.world.chance.choice(able) if able else None

    def _transact(self, held: Held) -> Turn:
        chance, worker_id = self.world.chance, self.worker_id
        assert worker_id is not None
        [(key, value)] = held.move().saves
        save = {"key": key, "kind": "transaction", "ordinal": held.ordinal + 1, "result": value}
        isolation = chance.choice(("read committed", "repeatable read", "repeatable read", "serializable"))
        try:
            yield from self.hand.begin(isolation)
            if isolation != "read committed" and chance.random() < 0.5:
                yield from self.hand.run("look", "select count(*) from sim.ledger", [])
            yield from self.hand.run("ledger", "insert into sim.ledger values ($1, $2)", [held.run_id, key])
            self.world.rest(self.hand, chance.choice((0, 0, 5, 15)))  # the user's own work takes its time
            yield
            [checkpoint] = yield from self.hand.call(
                "save_transaction_step", worker_id=worker_id, save={**held.named(), **save}
            )
            yield from self.hand.commit()
        except (Lost, Refused) as error:
            if isinstance(error, Refused):
                yield from self._give_up(self.hand)
                if error.sqlstate not in (*_TRY_AGAIN, "PD002"):
                    raise
            self.world.counted["transaction steps in doubt"] += 1
            yield from self._settle_doubt(held, worker_id)
            return
        if self.held.get(held.run_id) is held:
            held.take(checkpoint)
        self.world.counted["transaction steps"] += 1

    def _settle_doubt(self, held: Held, worker_id: str) -> Turn:
        """Ask whether the run is still ours; then what is on record, and go on from there."""
        while True:
            try:
                rows = yield from self.hand.call("worker_runs", worker_id=worker_id)
                if not any(row["claim"] == held.claim for row in rows):
                    if self.held.get(held.run_id) is held:
                        del self.held[held.run_id]
                    return
                steps = yield from self._read_all(held.run_id)
            except Lost:
                yield
                continue
            for step in steps:
                if step["key"] not in held.checkpoints:
                    held.take(step)
            return

    def _read_all(self, run_id: str) -> Turn:
        steps: list[dict[str, Any]] = []
        while True:
            after = str(steps[-1]["ordinal"] if steps else 0)
            [page] = yield from self.hand.call("read_steps", run_id=run_id, after=after, max_bytes="700")
            more = [step for step in page if step["kind"] != "attempt"]
            if not more:
                return steps
            steps += more

    # What goes wrong

    def _give_up(self, session: Session) -> Turn:
        with suppress(Lost):
            yield from session.roll_back()

    def _refused(self, error: Exception) -> None:
        if isinstance(error, Refused):
            if error.sqlstate == "PD002":
                self.world.counted["workers forgotten"] += 1
                self.drop_all()
            elif error.sqlstate not in _TRY_AGAIN and not (error.sqlstate[:2] in BAD_DATA and self.world.damage.runs):
                raise error


def _sent(wait: dict[str, Any]) -> dict[str, Any]:
    return {**wait, "until": iso(wait["until"])} if "until" in wait else wait
