"""What may be true: after each commit, what changed in the tables must follow from the calls of that one transaction.

The simulation knows which transactions took effect, whatever their callers were told. So the model is exact: each new,
changed or missing row is somebody's, and each answer that was given is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sim.rules import (
    BATCHES,
    RECOVERS,
    TIMELY,
    Call,
    Row,
    Snapshot,
    Violation,
    gives_back,
    require,
    retried_by,
    saves_of,
    waits_of,
)
from sim.sessions import micros
from sim.told import Told

if TYPE_CHECKING:
    from sim.world import World


class Model(Told):
    """The judge."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.claims: set[str] = set()
        self.ledger: Counter[str] = Counter()

    # One commit

    def judge(self, before: Snapshot, after: Snapshot, calls: Sequence[Call], violations: Sequence[Row]) -> None:
        """Judge what one transaction left."""
        for row in violations:
            is_damaged = row["run_id"] in self.world.damage.runs
            require(row["invariant"] in TIMELY or is_damaged, row["invariant"], row)
        self._runs(before, after, calls)
        self._outcomes(before, after, calls)
        self._claims(before, after, calls)
        self._steps(before, after, calls)
        self._acts(before, after, calls)
        self._signals(before, after, calls)
        self._workers(before, after, calls)
        self._holds(before, after, calls)
        for call in calls:
            if call.function in BATCHES or call.function in ("claim_runs", "save_transaction_step"):
                worker_id = call.arguments["worker_id"]
                require(worker_id in after["worker"], "whoever_works_is_registered", worker_id)
                of = after["worker"][worker_id]["timeline"]
                require(of == self.world.timeline, "whoever_works_is_of_this_timeline", f"{worker_id} is of {of}")
            if call.function in BATCHES:
                self._answers(before, after, call)
            elif call.function == "claim_runs":
                self._claimed(after, call)

    def _runs(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        new = after["run"].keys() - before.get("run", {}).keys()
        require(not before.get("run", {}).keys() - after["run"].keys(), "a_run_never_vanishes")
        asked: dict[str, Call] = {}
        for call in calls:
            if call.function == "start":
                asked[call.answer[0]] = call
            elif call.function == "start_many":
                asked |= {row["run_id"]: call for row in call.answer}
            elif call.function == "signal_key" and call.arguments.get("start_input") is not None:
                where = f"{call.arguments['workflow']} {call.arguments['key']}"
                if where in after["run_key"]:
                    asked[after["run_key"][where]["run_id"]] = call
        for run_id in new:
            require(run_id in asked, "a_rollback_leaves_no_trace", run_id)
            run = after["run"][run_id]
            if run["key"] is not None:
                self._keyed(before, after, asked[run_id], run)
        for run_id, call in asked.items():
            require(run_id in after["run"], "what_was_started_is_there", run_id)
            if run_id not in new and call.arguments.get("key") is not None:
                run = after["run"][run_id]
                require(run["key"] == call.arguments["key"], "a_key_gives_its_run", run_id)
        self.counted["started"] += len(new)
        self.started = len(after["run"])

    def _keyed(self, before: Snapshot, after: Snapshot, call: Call, run: Row) -> None:
        """A second run under one key needs the option that allows it."""
        where = f"{run['workflow']} {run['key']}"
        others = [
            each
            for each in after["run"].values()
            if (each["key"], each["workflow"]) == (run["key"], run["workflow"])
            and (
                each["run_id"] in before.get("run", {}) or each["run_id"] < run["run_id"]
            )  # or by the same transaction
        ]
        require(where in after["run_key"], "a_key_is_taken", where)
        how = call.arguments.get("on_duplicate", "attach")
        if not others:
            return
        require(how in ("replace", "restart_if_failed", "restart_if_finished"), "a_key_gives_one_run", where)
        latest = before.get("run_key", {}).get(where, {}).get("run_id")
        if latest is None or latest not in before["outcome"]:
            require(how == "replace" or latest is None, "only_an_ended_run_is_restarted", where)
        elif how == "restart_if_failed":
            require(before["outcome"][latest]["status"] in ("failed", "dead"), "only_a_failed_run_is_restarted", where)

    def _outcomes(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        old, new = before.get("outcome", {}), after["outcome"]
        retried = {each for call in calls for each in retried_by(call)}
        for run_id in old.keys() - new.keys():
            require(run_id in retried, "an_outcome_stays", run_id)
        for run_id, outcome in new.items():
            if run_id in old:
                if old[run_id] != outcome:
                    require(run_id in retried, "an_outcome_never_changes", run_id)
                continue
            self.counted[outcome["status"]] += 1
            self._ended(before, after, calls, run_id, outcome)

    def _ended(self, before: Snapshot, after: Snapshot, calls: Sequence[Call], run_id: str, outcome: Row) -> None:
        """How a run ended follows from what was asked, and from nothing else."""
        was = before.get("dispatch", {}).get(run_id)
        require(was is not None, "only_a_dispatched_run_ends", run_id)
        status = outcome["status"]
        now = max((call.until for call in calls), default=0)
        if status in ("completed", "failed"):
            name = "complete_runs" if status == "completed" else "fail_runs"
            ends = [
                element
                for call in calls
                if call.function == name and call.arguments["worker_id"] == was["worker_id"]
                for element, answer in call.elements()
                if element["run_id"] == run_id and element["claim"] == was["claim"] and answer["answer"] == "done"
            ]
            require(len(ends) >= 1, "only_the_holder_ends_a_run", run_id)
            require(was["cancel"] is None, "a_cancelled_run_ends_as_cancelled", run_id)
            self._no_act_came_first(calls, name, run_id)
            if status == "completed":
                require(outcome["result"] == ends[-1]["result"], "the_result_is_what_was_returned", run_id)
        elif status == "dead":
            require(any(call.function in RECOVERS for call in calls), "only_recovery_finds_a_run_dead", run_id)
            require(was["recoveries"] >= was["max_recoveries"], "no_run_dies_early", run_id)
            require(was["worker_id"] is not None, "only_a_held_run_dies", run_id)
        elif status == "timed_out":
            is_told = was["cancel"] == status
            require(is_told or micros(was["ends_at"]) <= now, "a_deadline_is_never_early", f"{run_id} {was}")
        else:
            act = "cancel" if status == "cancelled" else "terminate"
            found = (
                was["cancel"] == status
                or any(
                    row["act"] == act and row["run_id"] == run_id and row["applied_at"] is None
                    for row in before["act"].values()
                )
                or any(
                    row["act"] == act and row["run_id"] == run_id and key not in before["act"]
                    for key, row in after["act"].items()
                )
            )
            require(found, "only_an_act_ends_a_run_so", f"{run_id} {status}")

    def _no_act_came_first(self, calls: Sequence[Call], name: str, run_id: str) -> None:
        """What was asked and committed before a run was reported as ended decides how it ended."""
        seen = next(call.seen for call in calls if call.function == name)
        asked = [row["act"] for row in seen["act"].values() if row["run_id"] == run_id and row["applied_at"] is None]
        require(not {"cancel", "terminate"} & set(asked), "an_act_that_came_first_decides", f"{run_id} {asked}")

    def _claims(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        old, new = before.get("dispatch", {}), after["dispatch"]
        claimed = {row["run_id"]: (call, row) for call in calls if call.function == "claim_runs" for row in call.answer}
        for run_id, (call, row) in claimed.items():
            require(row["claim"] not in self.claims, "a_token_is_used_once", row["claim"])
            self.claims.add(row["claim"])
            was = old.get(run_id) or {}
            given_back = was.get("worker_id") == call.arguments["worker_id"] and gives_back(calls, was)
            require(was.get("worker_id") is None or given_back, "a_run_is_in_one_workers_hands", run_id)
            if not given_back:
                self._due(before, after, call, row, was)
        for run_id in old.keys() & new.keys():
            was, now = old[run_id], new[run_id]
            if was["claim"] != now["claim"]:
                require(run_id in claimed, "only_a_claim_gives_a_token", run_id)
            if was["worker_id"] is not None and now["worker_id"] is None:
                self._let_go(before, after, calls, was)
            elif now["worker_id"] is not None and was["worker_id"] != now["worker_id"]:
                require(run_id in claimed, "a_run_is_in_one_workers_hands", run_id)
            if now["recoveries"] > was["recoveries"]:
                is_recovery = any(call.function in RECOVERS for call in calls)
                require(
                    (
                        is_recovery
                        and now["recoveries"] == was["recoveries"] + 1
                        and was["worker_id"] is not None
                        and was["worker_id"] not in before["worker"]
                    )
                    or (was["worker_id"] not in after["worker"] and is_recovery),
                    "only_a_death_is_counted",
                    run_id,
                )
            if now["cancel"] == "timed_out" and was["cancel"] is None:
                at = max(call.until for call in calls)
                require(micros(was["ends_at"]) <= at, "a_deadline_is_never_early", f"{run_id} {was['ends_at']}")
            if now["is_paused"] != was["is_paused"]:
                self._paused(before, after, calls, now)

    def _paused(self, before: Snapshot, after: Snapshot, calls: Sequence[Call], now: Row) -> None:
        """A pause comes and goes by what was asked; a cancel and a deadline end it."""
        applied = {
            row["act"]
            for key, row in after["act"].items()
            if row["run_id"] == now["run_id"]
            and row["applied_at"] is not None
            and before["act"].get(key, {}).get("applied_at") is None
        }
        ends = {"resume", "cancel"}
        if now["is_paused"]:
            require("pause" in applied, "only_an_act_pauses", now["run_id"])
        else:
            require(applied & ends or now["cancel"], "only_an_act_ends_a_pause", now["run_id"])

    def _due(self, before: Snapshot, after: Snapshot, call: Call, row: Row, was: Row) -> None:
        """A run is claimed when it is due, not before; a paused one never."""
        run_id = row["run_id"]
        pending = {
            act["act"] for act in before["act"].values() if act["run_id"] == run_id and act["applied_at"] is None
        }
        if was.get("is_paused"):
            require(pending & {"resume", "cancel"}, "a_paused_run_is_not_claimed", run_id)
        due = micros(was.get("ready_at")) <= call.until
        waits = waits_of(was)
        names = {wait["name"] for wait in waits if wait["kind"] == "signal"}
        told = any(each["run_id"] == run_id and each["name"] in names for each in before["signal"].values())
        freed = was.get("predecessor_id") is not None
        require(
            due or told or freed or pending or not was or was.get("cancel"),
            "no_wait_ends_early",
            f"{run_id} ready at {was.get('ready_at')}",
        )
        if waits and row["cancel"] is None:
            known = {each["key"] for each in after["step"].values() if each["run_id"] == run_id}
            retry = any(w["kind"] == "retry" and micros(w["until"]) <= call.until for w in waits)
            require(
                retry or any(wait["key"] in known for wait in waits),
                "a_woken_run_finds_its_answer",
                f"{run_id} waited for {waits}",
            )

    def _let_go(self, before: Snapshot, after: Snapshot, calls: Sequence[Call], was: Row) -> None:
        run_id, worker_id = was["run_id"], was["worker_id"]
        if gives_back(calls, was):
            return
        for call in calls:
            if call.function == "stop_worker" and call.arguments["worker_id"] == worker_id:
                return
            if (call.function in RECOVERS or call.function == "adopt") and worker_id not in after["worker"]:
                return
        raise Violation("a_claim_is_taken_from_the_dead_only", f"{run_id} of worker {worker_id}")

    def _steps(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        old, new = before.get("step", {}), after["step"]
        retried = {each for call in calls for each in retried_by(call)}
        for name, row in old.items():
            if name not in new:
                require(row["run_id"] in retried, "a_checkpoint_stays", name)
            elif new[name] != row:
                raise Violation("a_checkpoint_never_changes", name)
        offered = [
            (element["run_id"], element["claim"], call.arguments["worker_id"], save)
            for call in calls
            for element, save in saves_of(call)
        ]
        for name in new.keys() - old.keys():
            row = new[name]
            was = before.get("dispatch", {}).get(row["run_id"])
            require(was is not None, "only_an_unfinished_run_gets_steps", name)
            if row["kind"] in ("signal", "sleep", "timer"):
                self._answered(before, calls, row, was)
            elif row["kind"] == "cancel":
                require(
                    was["cancel"] is not None
                    or (after["dispatch"].get(row["run_id"]) or {}).get("cancel")
                    or after["outcome"].get(row["run_id"], {}).get("status") == "cancelled",
                    "only_a_cancel_is_delivered",
                    name,
                )
            else:
                fitting = [
                    save
                    for run_id, claim, worker_id, save in offered
                    if (run_id, claim, worker_id, save["key"])
                    == (row["run_id"], was["claim"], was["worker_id"], row["key"])
                    and (save.get("result"), save.get("error")) == (row["result"], row["error"])
                    and save["ordinal"] == row["ordinal"]
                ]
                require(fitting, "only_the_holder_saves", name)
                if row["kind"] == "transaction":
                    self.ledger[name] += 1
        require(
            Counter(after["ledger"] or []) == self.ledger,
            "a_transaction_step_is_one_commit_with_its_writes",
            Counter(after["ledger"] or []) - self.ledger or self.ledger - Counter(after["ledger"] or []),
        )
        for key, row in before.get("step_attempt", {}).items():
            there = after["step_attempt"].get(key)
            require(there == row or row["run_id"] in retried, "a_failed_try_stays", key)

    def _answered(self, before: Snapshot, calls: Sequence[Call], row: Row, was: Row) -> None:
        """A wait ends by the oldest message of its name, else when its time has come; only one at a time."""
        run_id = row["run_id"]
        at: int | None = None
        waits: list[dict[str, Any]] = []
        for call in calls:
            if call.function == "claim_runs" and any(each["run_id"] == run_id for each in call.answer):
                at, seen, waits = call.until, call.seen, waits or waits_of(was)
            elif call.function == "suspend_runs":
                for element, answer in call.elements():
                    if (
                        element["run_id"] == run_id
                        and element["claim"] == was["claim"]
                        and answer["answer"] in ("answered", "suspended")
                    ):
                        at, seen, waits = call.until, call.seen, element["waits"]
        require(at is not None, "only_a_look_answers_a_wait", f"{run_id} {row['key']}")
        wait = next((each for each in waits if each["key"] == row["key"]), None)
        require(wait is not None, "only_what_is_waited_for_is_answered", f"{run_id} {row['key']}")
        assert wait is not None and at is not None
        consumed = {each["signal_id"] for each in before["step"].values() if each["run_id"] == run_id}
        there = sorted(
            (each["sent_at"], each["sequence"], each["id"])
            for each in seen["signal"].values()
            if each["run_id"] == run_id and each["name"] == wait.get("name") and each["id"] not in consumed
        )
        if row["signal_id"] is None:
            require(micros(wait.get("until")) <= at, "no_wait_ends_early", f"{run_id} {row['key']} {wait}")
            require(wait["kind"] != "signal" or not there, "a_message_wins_over_a_time_out", f"{run_id} {row['key']}")
        else:
            # one that was committed while the call lasted may have been seen or not
            taken = before["signal"].get(f"{run_id} {row['signal_id']}")
            require(taken, "only_what_was_sent_is_consumed", f"{run_id} {row['signal_id']}")
            assert taken is not None
            place = (taken["sent_at"], taken["sequence"], taken["id"])
            require(not there or place <= there[0], "messages_come_in_the_order_sent", f"{run_id} {place} {there}")
            require(place[2] not in consumed, "a_message_is_consumed_once", f"{run_id} {row['signal_id']}")
        siblings = {each["key"] for each in waits if each["key"] != row["key"]}
        fresh = [
            name
            for name in siblings
            if f"{run_id} {name}" in self.world.seen["step"] and f"{run_id} {name}" not in before["step"]
        ]
        require(not fresh, "one_wait_is_answered_at_a_time", f"{run_id} {row['key']} and {fresh}")

    def go_back(self, seen: Snapshot) -> None:
        """Forget what was lost with the commits that were; no token may come again all the same."""
        self.ledger = Counter(seen["ledger"] or [])

    # The end

    def judge_end(self, after: Snapshot, violations: Sequence[object]) -> None:
        """Everything has ended, and the counters agree."""
        require(not violations, "violations_is_empty", violations)
        require(not after["dispatch"], "every_run_ends", list(after["dispatch"]))
        require(after["outcome"].keys() == after["run"].keys(), "every_run_has_one_outcome")
        require(not after["wake"], "every_wake_is_drained", after["wake"])
        pending = [key for key, row in after["act"].items() if row["applied_at"] is None]
        require(not pending, "every_act_is_answered", pending)
