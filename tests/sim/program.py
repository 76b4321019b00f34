"""Random workflows, and what a driver does next for a run whose checkpoints it knows.

A program is the run's input, so any worker can go on with it. `next_move` decides from the checkpoints alone, as a
replay does: the same checkpoints give the same move, whoever asks.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.sessions import micros

NAMES = ("apple", "pear", "plum")
WAITING = ("signal", "sleep", "timer")

Op = dict[str, Any]
Checkpoint = Mapping[str, Any]


@dataclass
class Move:
    """What a run asks for next: `what` is save, try, wait, transaction, pause or end."""

    what: str
    saves: list[tuple[str, Any]] = field(default_factory=list)
    waits: list[dict[str, Any]] = field(default_factory=list)
    fails: int = 0
    policy: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: dict[str, Any] | None = None


def make_program(chance: random.Random) -> dict[str, Any]:
    """Make a program of a few operations."""
    ops = [_make_op(chance, f"{n}") for n in range(chance.choice((1, 2, 2, 3, 3, 4, 6)))]
    cleanup = [_make_cleanup(chance, f"u{n}") for n in range(chance.choice((0, 1, 1, 2)))]
    return {"ops": ops, "cleanup": cleanup, "raises": chance.random() < 0.1}


def _make_op(chance: random.Random, key: str) -> Op:
    what = chance.choices(
        ("step", "many", "transaction", "flaky", "wait", "race", "all", "beside", "sleep", "pause"),
        (12, 5, 18, 12, 24, 14, 10, 10, 8, 3),
    )[0]
    op: Op = {"op": what, "key": key}
    if what == "many":
        op["steps"] = [f"{key}.{n}" for n in range(chance.randint(2, 4))]
    elif what == "flaky":
        op["fails"] = chance.randint(1, 4)
        op["catch"] = chance.random() < 0.6
        op["policy"] = {"max_attempts": chance.randint(1, 4), "delay": chance.choice((0, 0.01, 0.5, 4, 60))}
    elif what == "wait":
        op["waits"] = [_make_wait(chance, key)]
    elif what in ("race", "all"):
        op["waits"] = [_make_wait(chance, f"{key}.{n}", may_sleep=True) for n in range(chance.randint(2, 3))]
    elif what == "beside":
        op["steps"] = [f"{key}.{n}" for n in range(chance.randint(1, 3))]
        op["waits"] = [_make_wait(chance, f"{key}.w")]
    elif what == "sleep":
        op["waits"] = [{"key": key, "kind": chance.choice(("sleep", "timer")), "seconds": _seconds(chance)}]
    return op


def _make_wait(chance: random.Random, key: str, *, may_sleep: bool = False) -> Op:
    if may_sleep and chance.random() < 0.3:
        return {"key": key, "kind": "sleep", "seconds": _seconds(chance)}
    wait: Op = {"key": key, "kind": "signal", "name": chance.choice(NAMES)}
    if chance.random() < 0.35:
        wait["seconds"] = _seconds(chance)
    return wait


def _make_cleanup(chance: random.Random, key: str) -> Op:
    if chance.random() < 0.3:
        return {"op": "sleep", "key": key, "waits": [{"key": key, "kind": "sleep", "seconds": _seconds(chance)}]}
    return {"op": chance.choice(("step", "transaction")), "key": key}


def _seconds(chance: random.Random) -> float:
    return chance.choice((-1, 0, 0.001, 0.05, 0.5, 2, 20, 300, 5000))


def value_of(run_id: str, key: str) -> int:
    """What a step of a run returns: the same whoever executes it, another for every other step."""
    return zlib.crc32(f"{run_id}/{key}".encode())


def next_move(run_id: str, program: Mapping[str, Any], checkpoints: Mapping[str, Checkpoint], begun_at: str) -> Move:
    """Decide what the run asks for next."""
    seen: list[Checkpoint] = []

    def clock() -> float:
        return max([micros(begun_at), *(micros(each["saved_at"]) for each in seen)])

    is_cancelled = any(each["kind"] == "cancel" for each in checkpoints.values())
    for op in program["ops"]:
        move = _move(run_id, op, checkpoints, clock(), seen)
        if isinstance(move, dict):
            return Move("end", error=move)
        if move is not None:
            if is_cancelled:
                break
            return move
    else:
        if not is_cancelled:
            if program["raises"]:
                return Move("end", error={"type": "Raised", "message": "so it goes"})
            return Move("end", result=_digest(seen))
    for op in program["cleanup"]:
        move = _move(run_id, op, checkpoints, clock(), seen)
        if move is not None and not isinstance(move, dict):
            return move
    return Move("end", error={"type": "Cancelled", "message": "told to"})


def _move(
    run_id: str, op: Op, checkpoints: Mapping[str, Checkpoint], clock: float, seen: list[Checkpoint]
) -> Move | dict[str, Any] | None:
    """Return what an operation still asks for, the error that it ends the run with, or None when it is done."""
    what, key = op["op"], op["key"]
    steps = op.get("steps", [key] if what in ("step", "transaction", "flaky", "pause") else [])
    missing = [(each, value_of(run_id, each)) for each in steps if each not in checkpoints]
    waits = op.get("waits", [])
    answered = [each for each in waits if each["key"] in checkpoints]
    is_waiting = len(answered) < (1 if what == "race" else len(waits))
    if not missing and not is_waiting:
        seen += [checkpoints[each] for each in steps]
        seen += sorted((checkpoints[each["key"]] for each in answered), key=lambda each: int(each["ordinal"]))[
            : 1 if what == "race" else None
        ]
        if what == "flaky" and "error" in checkpoints[key] and not op["catch"]:
            return {"type": "StepFailed", "message": key, "step": key}
        return None
    asked = [_ask(each, clock) for each in waits if each["key"] not in checkpoints]
    if what == "flaky":
        return Move("try", saves=missing, fails=op["fails"], policy=op["policy"])
    if what in ("transaction", "pause"):
        return Move(what, saves=missing)
    return Move("save", saves=missing, waits=asked) if missing else Move("wait", waits=asked)


def _ask(wait: Op, clock: float) -> dict[str, Any]:
    asked: dict[str, Any] = {name: wait[name] for name in ("key", "kind", "name") if name in wait}
    if "seconds" in wait:
        asked["until"] = clock + wait["seconds"] * 1_000_000
    return asked


def _digest(seen: Iterable[Checkpoint]) -> list[Any]:
    return sorted([each["key"], each.get("result"), "error" in each] for each in seen)
