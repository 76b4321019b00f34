"""Every call that concerns one run, the states of a run in which it has a place, and what it locks: to be paired.

A call holds resources until its transaction ends, and waits for those that it wants and another holds. This table is
the whole truth about who may ever wait: what is observed is compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

# What may be waited for.
KEY = "the idempotency key, which moves to another run"
TAKEN = "the idempotency key, by those who may move it"
FRESH = "an idempotency key that names no run yet"
ID = "the id of a signal"
OUTCOME = "how a run ended, by those who take it back"
FENCE = "the worker, by those who work in its name"
GRAVE = "the worker, by those who bury it"
BEAT = "the heartbeat of the worker"
RUN = "the run, by those who change where it stands"
STEP = "the checkpoint of one step"
OTHER_STEP = "the checkpoint of another step"
TRY = "one failed try of a step"

# Whoever wants the left waits where another holds the right.
CONFLICTS = {
    KEY: {KEY},
    TAKEN: {TAKEN},
    FRESH: {FRESH},
    ID: {ID},
    OUTCOME: {OUTCOME},
    FENCE: {GRAVE},
    GRAVE: {GRAVE, FENCE},
    BEAT: {BEAT},
    RUN: {RUN},
    STEP: {STEP},
    OTHER_STEP: {OTHER_STEP},
    TRY: {TRY},
}

# In the hands of worker `w`, by a valid claim; `told`: and told something that nobody has drained.
HELD = ("claimed", "told", "cancelling", "dead")
FREE = ("ready", "waiting", "heard", "paused")
ENDED = ("failed", "completed")
STATES = (*HELD, *FREE, *ENDED)
UNDRAINED = ("told", "heard")


@dataclass(frozen=True)
class Cell:
    """A run for one pair, with all that is its own: a queue, two workers, keys."""

    n: int
    run_id: UUID
    w: UUID
    w2: UUID
    claim: UUID | None

    def values(self) -> dict[str, Any]:
        """The values of every parameter that a call may have."""
        named = {"run_id": str(self.run_id), "claim": str(self.claim)}
        step = {**named, "key": "a", "kind": "step", "ordinal": 1, "result": 1}
        wait = {"key": "s", "kind": "signal", "name": "paid"}
        failed = {**named, "key": "a", "kind": "step", "ordinal": 1, "error": {"type": "E", "message": ""}}
        return {
            "run": self.run_id, "runs": [self.run_id], "w": self.w, "w2": self.w2, "queue": f"q{self.n}",
            "key": f"k{self.n}", "fresh": f"f{self.n}",
            "save": Jsonb([step]), "other": Jsonb([{**step, "key": "b", "ordinal": 2}]),
            "transaction": Jsonb({**step, "kind": "transaction"}),
            "tried": Jsonb([{**failed, "attempt": 1, "policy": {"delay": 3600}}]),
            "exhausted": Jsonb([{**failed, "attempt": 4, "policy": {}}]),
            "suspension": Jsonb([{**named, "waits": [wait], "saves": [{**step, "key": "c", "ordinal": 3}]}]),
            "end": Jsonb([{**named, "result": 1, "error": {"type": "E", "message": ""}}]),
            "release": Jsonb([named]), "pausing": Jsonb([{**named, "pause_reason": "because"}]),
        }  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call: which functions it is for, its statement, where it is legal, what it holds and wants there."""

    functions: tuple[str, ...]
    statement: str
    states: tuple[str, ...] = STATES
    holds: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()
    # resources that it holds, or wants, in some states only
    holds_in: dict[str, tuple[str, ...]] = field(default_factory=dict)
    wants_in: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def held(self, state: str) -> set[str]:
        """What it holds after it was made in this state."""
        return {*self.holds, *(what for what, states in self.holds_in.items() if state in states)}

    def wanted(self, state: str) -> set[str]:
        """What it waits for in this state."""
        return {*self.wants, *(what for what, states in self.wants_in.items() if state in states)}


def waits(state: str, first: Call, second: Call) -> bool:
    """Whether the second has to wait for the open transaction of the first."""
    held = first.held(state)
    return any(CONFLICTS[what] & held for what in second.wanted(state))


def _client(function: str, statement: str, states: tuple[str, ...] = STATES, *both: str, **options: Any) -> Call:
    return Call(
        (function,), f"select * from perdure.{function}({statement})", states,
        frozenset(both) | options.pop("holds", frozenset()), frozenset(both) | options.pop("wants", frozenset()),
        **options,
    )  # fmt: skip


def _start(rule: str, **options: Any) -> Call:
    statement = f"workflow => 'order', key => %(key)s, queue => %(queue)s, on_duplicate => '{rule}'"
    return _client("start", statement, **options)


def _worker(function: str, argument: str, value: str, *both: str, wants: frozenset[str] = frozenset()) -> Call:
    return Call(
        (function,),
        f"select * from perdure.{function}(worker_id => %(w)s, {argument} => %({value})s)",
        HELD,
        frozenset({FENCE, *both}),
        frozenset({FENCE, *both} - {RUN}) | wants,
    )


def _engine(function: str, call: str, *, drains: bool, buries: bool) -> Call:
    """One that never waits; it holds what it drains, and whoever it buries with what that one held."""
    holds_in: dict[str, tuple[str, ...]] = {RUN: (*(UNDRAINED if drains else ()), *(("dead",) if buries else ()))}
    if buries:
        holds_in |= {GRAVE: ("dead",), BEAT: ("dead",)}
    return Call((function,), call, holds_in=holds_in)


UNFINISHED = (*HELD, *FREE)

CALLS: dict[str, Call] = {
    # clients and operators
    "start": _start("attach", wants=frozenset({KEY})),
    "start error": _start("error", wants=frozenset({KEY})),
    "start restart_if_failed": _start(
        "restart_if_failed", wants=frozenset({KEY, TAKEN}), holds=frozenset({TAKEN}), holds_in={KEY: ("failed",)}
    ),
    "start restart_if_finished": _start(
        "restart_if_finished", wants=frozenset({KEY, TAKEN}), holds=frozenset({TAKEN}), holds_in={KEY: ENDED}
    ),
    "start replace": _start("replace", wants=frozenset({KEY, TAKEN}), holds=frozenset({KEY, TAKEN})),
    "start fresh": _client("start", "workflow => 'order', key => %(fresh)s, queue => %(queue)s", STATES, FRESH),
    "start_run": _client(
        "start_run", "workflow => 'order', key => %(key)s, queue => %(queue)s", wants=frozenset({KEY})
    ),
    "start_many": _client(
        "start_many", "workflow => 'order', inputs => array['{}'::jsonb], keys => array[%(key)s], queue => %(queue)s",
        wants=frozenset({KEY}),
    ),
    "start_many fresh": _client(
        "start_many", "workflow => 'order', inputs => array['{}'::jsonb], keys => array[%(fresh)s], queue => %(queue)s",
        STATES, FRESH,
    ),
    "signal": _client("signal", "run_id => %(run)s, name => 'paid'"),
    "signal id": _client("signal", "run_id => %(run)s, name => 'paid', id => '7'", UNFINISHED, ID),
    "signal_key": _client("signal_key", "workflow => 'order', key => %(key)s, name => 'paid'"),
    "signal_key fresh": _client(
        "signal_key", "workflow => 'order', key => %(fresh)s, name => 'paid', start_input => '{}'", STATES, FRESH
    ),
    "cancel": _client("cancel", "run_id => %(run)s"),
    "cancel_many": _client("cancel_many", "run_ids => %(runs)s"),
    "terminate": _client("terminate", "run_id => %(run)s"),
    "terminate_many": _client("terminate_many", "run_ids => %(runs)s"),
    "pause": _client("pause", "run_id => %(run)s", UNFINISHED),
    "pause_many": _client("pause_many", "run_ids => %(runs)s", UNFINISHED),
    "resume": _client("resume", "run_id => %(run)s", UNFINISHED),
    "resume_many": _client("resume_many", "run_ids => %(runs)s", UNFINISHED),
    "retry": _client("retry", "run_id => %(run)s", ("failed",), OUTCOME, TAKEN),
    "retry_many": _client("retry_many", "run_ids => %(runs)s", ("failed",), OUTCOME, TAKEN),
    # the worker that holds it, by its claim
    "save_steps": _worker("save_steps", "saves", "save", STEP),
    "save_steps of another step": _worker("save_steps", "saves", "other", OTHER_STEP),
    "save_transaction_step": _worker("save_transaction_step", "save", "transaction", STEP, wants=frozenset({RUN})),
    "fail_steps": _worker("fail_steps", "tries", "tried", TRY),
    "fail_steps exhausted": _worker("fail_steps", "tries", "exhausted", STEP),
    "suspend_runs": _worker("suspend_runs", "suspensions", "suspension", RUN),
    "suspend_runs keep": _worker("suspend_runs", "keep => true, suspensions", "suspension", RUN),
    "complete_runs": _worker("complete_runs", "ends", "end", RUN),
    "fail_runs": _worker("fail_runs", "ends", "end", RUN),
    "release_runs": _worker("release_runs", "releases", "release", RUN),
    "release_runs paused": _worker("release_runs", "releases", "pausing", RUN),
    "beat": _client("beat", "worker_id => %(w)s, runs_held => 1", HELD, BEAT),
    "stop_worker": Call(
        ("stop_worker",), "select perdure.stop_worker(worker_id => %(w)s)", HELD,
        frozenset({GRAVE, BEAT, RUN}), frozenset({GRAVE, RUN}),  # a beat that is under way is passed over
    ),
    # everybody else
    "claim_runs": _engine("claim_runs", "select * from perdure.claim_runs(worker_id => %(w2)s)", drains=True, buries=False),
    "drain": _engine("drain", "select * from perdure.drain()", drains=True, buries=False),
    "tick": _engine("tick", "select perdure.tick()", drains=True, buries=True),
    "recover": _engine("recover", "select perdure.recover()", drains=False, buries=True),
    "look": Call(
        ("find_run", "get_value", "run_results", "read_steps", "worker_runs", "explain"),
        "select (select count(*) from perdure.explain(%(run)s)), perdure.find_run('order', %(key)s),"
        " perdure.get_value(%(run)s, 'x'), (select count(*) from perdure.run_results(%(runs)s)),"
        " perdure.read_steps(%(run)s), (select count(*) from perdure.worker_runs(%(w)s))",
    ),
    "result": Call(("result",), "select perdure.result(%(run)s)", ("completed",)),
}  # fmt: skip

# What concerns no run: names, roles, settings, jobs.
OF_NO_RUN = {
    "put_workflow", "put_queue", "put_setting", "register_worker", "worker_lock", "listen", "unlisten", "next_due", "grant_role", "revoke_role",
    "enable_cron", "disable_cron", "version", "selftest", "run_ticks", "truncate_wake", "rotate", "await", "hold", "adopt", "at_risk", "recorded_since",
}  # fmt: skip
