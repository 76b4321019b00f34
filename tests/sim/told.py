"""What may be true of acts, messages, workers and answers: the half of the model that is about what was said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.rules import (
    DRAINS,
    RECOVERS,
    SHORTEST_CALM,
    Call,
    Row,
    Snapshot,
    asked_by,
    is_held,
    require,
    same_hold,
    waits_of,
)
from sim.sessions import micros

if TYPE_CHECKING:
    from sim.world import World


class Told:
    """What it knows of the world, and the rules."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counted: Counter[str] = Counter()
        self.started_at = 1
        self.timeline_at = 0
        self.adopted_at = 0
        self.copied_at = 0

    def _acts(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        old, new = before.get("act", {}), after["act"]
        asked = {(run_id, act) for call in calls for run_id, act, answer in asked_by(call) if answer == "accepted"}
        fresh = {(row["run_id"], row["act"]) for key, row in new.items() if key not in old}
        replaced = {
            (run["predecessor_id"], "cancel")
            for run_id, run in after["run"].items()
            if run_id not in before.get("run", {}) and run["predecessor_id"] is not None
        }
        released = {
            (element["run_id"], "pause")
            for call in calls
            if call.function == "release_runs"
            for element in call.arguments["releases"]
            if element.get("pause_reason")
        }
        works = any(call.function in DRAINS | RECOVERS for call in calls)
        set_aside = {(run_id, "pause") for run_id in self.world.damage.runs if works}
        require(asked <= fresh, "an_accepted_act_is_kept", asked - fresh)
        unasked = fresh - asked - replaced - released - set_aside
        require(not unasked, "nobody_acts_unasked", unasked)
        self.counted["set aside"] += len(fresh & set_aside - asked - released)
        for key, row in old.items():
            now = new.get(key)
            require(now is not None, "an_act_is_kept", key)
            if row["applied_at"] is not None:
                require(now == row, "an_act_is_answered_once", key)
            elif now["applied_at"] is not None and now["answer"] == "accepted":
                self._applied(before, after, calls, now)
            elif now["answer"] == "failed":
                require(now["run_id"] in self.world.damage.runs, "only_a_bad_runs_acts_fail", now)

    def _applied(self, before: Snapshot, after: Snapshot, calls: Sequence[Call], act: Row) -> None:
        run_id = act["run_id"]
        self.counted[f"applied {act['act']}"] += 1
        outcome, dispatch = after["outcome"].get(run_id), after["dispatch"].get(run_id)
        if act["act"] == "terminate":
            require(outcome and outcome["status"] == "terminated", "a_termination_ends_its_run", run_id)
        elif act["act"] == "cancel":
            require(outcome or (dispatch and dispatch["cancel"] is not None), "a_cancel_takes_effect", run_id)

    def _signals(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        old, new = before.get("signal", {}), after["signal"]
        fresh = Counter(row["run_id"] for key, row in new.items() if key not in old)
        sent: Counter[str] = Counter()
        for call in calls:
            if call.function in ("signal", "signal_key") and call.answer == ["accepted"]:
                run_id = call.arguments.get("run_id") or after["run_key"].get(
                    f"{call.arguments['workflow']} {call.arguments['key']}", {}
                ).get("run_id")
                sent[run_id] += 1
                found = new.get(f"{run_id} {call.arguments.get('id')}")
                require(
                    found and found["payload"] == call.arguments["payload"],
                    "an_accepted_message_is_there",
                    call.arguments,
                )
            elif call.function in ("signal", "signal_key") and call.answer == ["duplicate"]:
                require(
                    any(each["id"] == call.arguments["id"] for each in new.values()),
                    "only_a_message_that_is_there_is_a_duplicate",
                    call.arguments,
                )
        require(fresh == sent, "messages_are_those_that_were_sent", f"{fresh} {sent}")
        for key, row in old.items():
            require(new.get(key) == row, "a_message_stays", key)

    def _workers(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        for worker_id in before.get("worker", {}).keys() - after["worker"].keys():
            worker = before["worker"][worker_id]
            if any(c.function == "stop_worker" and c.arguments["worker_id"] == worker_id for c in calls):
                continue
            if any(call.function == "adopt" for call in calls):
                is_past = micros(worker["registered_at"]) < self.started_at
                require(is_past or _is_copy(before), "who_is_adopted_with_its_server_stays", worker_id)
                continue
            judges = [call for call in calls if call.function in RECOVERS]
            require(judges, "only_recovery_buries", worker_id)
            at = max(call.until for call in judges)
            # a sign of life that comes while it is being buried comes too late
            beats = judges[-1].seen["worker_beat"].get(worker_id) or before["worker_beat"][worker_id]
            beat_at = micros(beats["beat_at"])
            silent = at - beat_at
            shortest = 1_500_000 if worker["is_direct"] and not self.world.is_locked(worker_id, beat_at) else 30_000_000
            require(silent > shortest, "no_live_worker_is_buried", f"{worker_id} silent for {silent / 1e6} s")
            calm = max(self.started_at, self.timeline_at, self.adopted_at) + SHORTEST_CALM
            require(at >= calm, "nobody_dies_of_a_restart", worker_id)
            self.counted["buried"] += 1

    def _holds(self, before: Snapshot, after: Snapshot, calls: Sequence[Call]) -> None:
        """On hold nothing begins, and only an adoption ends it."""
        adoptions = [call for call in calls if call.function == "adopt"]
        if is_held(before) and not is_held(after):
            require(adoptions, "only_an_adoption_ends_a_hold", before["holds"])
        elif is_held(after) and not is_held(before):
            require(any(call.function == "hold" for call in calls), "nobody_holds_unasked", after["holds"])
        if adoptions and is_held(before):
            self.counted["adoptions"] += not is_held(after)
            self.adopted_at = adoptions[-1].since
            if _is_copy(before):
                self.counted["adoptions of copies"] += 1
                past = {key for key, row in before["worker"].items() if micros(row["registered_at"]) < self.copied_at}
                require(not past & after["worker"].keys(), "an_adopted_copy_forgets_its_past_workers", past)
                held = [row["run_id"] for row in after["dispatch"].values() if row["worker_id"] in past]
                require(not held, "an_adopted_copy_takes_their_runs_back", held)
        if not calls or not all(same_hold(call, before) for call in calls):
            return
        for call in calls:
            if call.function == "claim_runs":
                require(not call.answer, "on_hold_a_claim_brings_nothing", call.answer)
            elif call.function == "beat":
                require(call.answer[0]["hold"], "on_hold_a_beat_tells_why", call.answer)
        if all(call.function in DRAINS | RECOVERS for call in calls):
            changed = [name for name in before if name != "holds" and before[name] != after[name]]
            require(not changed, "on_hold_nobody_is_told_or_ended", changed)

    # Answers

    def _answers(self, before: Snapshot, after: Snapshot, call: Call) -> None:
        worker_id = call.arguments["worker_id"]
        for element, row in call.elements():
            run_id, claim, answer = element["run_id"], element["claim"], row["answer"]
            was = before["dispatch"].get(run_id) or {}
            is_held = was.get("claim") == claim and was.get("worker_id") == worker_id
            saw = call.seen["dispatch"].get(run_id) or {}
            was_held = saw.get("claim") == claim and saw.get("worker_id") == worker_id
            require(
                answer != "lost" or not (is_held and was_held), "no_holder_is_told_that_it_lost", f"{run_id} {claim}"
            )
            if call.function == "save_steps" and answer in ("saved", "on_record"):
                there = after["step"].get(f"{run_id} {element['key']}")
                # of what is new nothing is repeated: it is on record as it was sent
                told = element.get("result") if answer == "saved" else row["result"]
                require(there and there["result"] == told, "a_save_is_on_record", f"{run_id} {element['key']}")
                require(is_held, "only_the_holder_saves", f"{run_id} {element['key']}")
            elif call.function == "suspend_runs" and answer == "suspended":
                now = after["dispatch"].get(run_id)
                require(is_held, "only_the_holder_suspends", run_id)
                waits = now and ((now["worker_id"] is None and now["waits"]) or now["claim"] != claim)  # claimed again
                require(waits or run_id in after["outcome"], "a_suspended_run_waits", run_id)
                for wait in waits_of(now or {}) if now and now["claim"] == claim else []:
                    known = f"{run_id} {wait['key']}" in after["step"]
                    require(not known, "nobody_waits_for_what_is_on_record", f"{run_id} {wait['key']}")
            elif call.function in ("complete_runs", "fail_runs") and answer == "done":
                status = "completed" if call.function == "complete_runs" else "failed"
                there = after["outcome"].get(run_id)
                require(there and there["status"] == status and there["claim"] == claim, "done_is_done", run_id)
            elif call.function == "fail_steps" and answer == "exhausted":
                require(f"{run_id} {element['key']}" in after["step"], "an_exhausted_step_is_on_record", run_id)
            elif answer == "answered":
                require(is_held, "only_the_holder_is_answered", run_id)
                require(f"{run_id} {row['checkpoint']['key']}" in after["step"], "an_answer_is_on_record", run_id)

    def _claimed(self, after: Snapshot, call: Call) -> None:
        """Who claims a run sees what is on record, and whether there is more."""
        for row in call.answer:
            run_id = row["run_id"]
            if run_id not in after["dispatch"] or after["dispatch"][run_id]["claim"] != row["claim"]:
                continue
            told = [each["key"] for each in row["steps"] if each["kind"] != "attempt"]
            steps = [each for each in after["step"].values() if each["run_id"] == run_id]
            there = [each["key"] for each in sorted(steps, key=lambda each: int(each["ordinal"]))]
            is_page = told == there[: len(told)] and row["has_more"] == (told != there)
            require(is_page and bool(told) == bool(there), "a_claim_brings_the_first_page", f"{run_id} {told} {there}")


def _is_copy(seen: Snapshot) -> bool:
    return any(row["is_copy"] for row in seen["install"].values())
