"""What the model judges by: calls, what was committed before and after them, and small questions about both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Snapshot = Mapping[str, Any]

DRAINS = frozenset({"claim_runs", "drain", "tick"})
RECOVERS = frozenset({"recover", "tick"})
BATCHES = {
    "save_steps": "saves",
    "fail_steps": "tries",
    "suspend_runs": "suspensions",
    "complete_runs": "ends",
    "fail_runs": "ends",
    "release_runs": "releases",
}
# True only where somebody ticks in time; the simulation lets hours pass, so they are judged at the end alone.
TIMELY = frozenset(
    {
        "a_wake_is_drained_soon",
        "a_deadline_is_kept",
        "a_successor_is_freed_soon",
        "a_claim_belongs_to_a_live_worker",
        "a_worker_reports_its_runs",
    }
)
SHORTEST_CALM = 5_000_000


class Violation(Exception):
    """Something is so that must not be."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass
class Call:
    """A call of the engine, what was committed when it was made, and what it answered."""

    actor: str
    function: str
    arguments: dict[str, Any]
    seen: Snapshot
    answer: Any = None
    since: int = 0
    until: int = 0
    """When the answer came: a call may have lasted, and the engine looked at the clock meanwhile."""

    def elements(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """The elements of a worker's batch, each with its answer."""
        name = BATCHES.get(self.function)
        if name is None:
            return []
        answers = {(row["run_id"], row.get("key"), row.get("attempt")): row for row in self.answer}
        keyed = self.function in ("save_steps", "fail_steps")
        return [
            (
                each,
                answers[
                    each["run_id"],
                    each["key"] if keyed else None,
                    each["attempt"] if self.function == "fail_steps" else None,
                ],
            )
            for each in self.arguments[name]
        ]


def require(holds: object, rule: str, detail: object = "") -> None:
    """Raise a violation unless it holds."""
    if not holds:
        raise Violation(rule, str(detail))


def gives_back(calls: Sequence[Call], was: Row) -> bool:
    return any(
        element["run_id"] == was["run_id"] and element["claim"] == was["claim"]
        for call in calls
        if call.function in ("suspend_runs", "release_runs") and call.arguments["worker_id"] == was["worker_id"]
        for element, _ in call.elements()
    )


def retried_by(call: Call) -> list[str]:
    if call.function == "retry" and call.answer == ["accepted"]:
        return [call.arguments["run_id"]]
    if call.function == "retry_many":
        return [row["run_id"] for row in call.answer if row["answer"] == "accepted"]
    return []


def asked_by(call: Call) -> list[tuple[str, str, str]]:
    if call.function in ("cancel", "terminate", "pause", "resume"):
        return [(call.arguments["run_id"], call.function, call.answer[0])]
    if call.function in ("cancel_many", "terminate_many", "pause_many", "resume_many"):
        return [(row["run_id"], call.function.removesuffix("_many"), row["answer"]) for row in call.answer]
    return []


def saves_of(call: Call) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if call.function == "save_transaction_step":
        return [(call.arguments["save"], call.arguments["save"])]
    if call.function in ("save_steps", "fail_steps"):
        return [(each, each) for each, _ in call.elements()]
    if call.function in BATCHES:
        return [(each, save) for each, _ in call.elements() for save in each.get("saves") or []]
    return []


def waits_of(row: Row) -> list[dict[str, Any]]:
    """What a suspended run waits for; nothing, where somebody has spoilt it."""
    return [each for each in row.get("waits") or [] if isinstance(each, dict)]


def is_held(seen: Snapshot) -> bool:
    """Whether the install was on hold."""
    return bool(seen.get("holds"))


def same_hold(call: Call, before: Snapshot) -> bool:
    """Whether the install was on hold when a call was made, and has been ever since."""
    return is_held(call.seen) and call.seen["holds"] == before["holds"]
