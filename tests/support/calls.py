"""One call of each public function, what it needs, and what becomes of it when its answer is lost and it is made again.

`CALLS` is compared with the catalog: a function without a row here fails the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from typing_extensions import LiteralString

from support import effects
from support.database import Database
from support.engine import Connection, Held, Row, Worker, act, declare_dead, drain, signal, start, wait

Arguments = Mapping[str, Any]
PROCEDURES = frozenset({"await", "run_ticks"})
CRON = frozenset({"enable_cron", "disable_cron"})
STEP_POLICY = {"max_attempts": 4, "delay": 1, "jitter": 0}


class Stage:
    """A place of its own for each call: nobody else's workflow, queue or workers."""

    def __init__(self, database: Database, conn: Connection, name: str) -> None:
        self.database = database
        self.conn = conn
        self.name = name
        conn.execute("select perdure.put_workflow(%s, %s)", [name, name])

    def run(self, **options: Any) -> UUID:
        """Start a run."""
        return start(self.conn, workflow=self.name, **options)

    def worker(self) -> Worker:
        """Register a worker that nobody else's runs reach."""
        return Worker(self.database, conn=self.conn, workflows=[self.name], queues=[self.name])

    def held(self, **options: Any) -> tuple[Worker, Held]:
        """Start a run and claim it."""
        self.run(**options)
        worker = self.worker()
        return worker, worker.claim_one()

    def waiting(self) -> UUID:
        """Start a run that waits for the signal `paid`."""
        worker, held = self.held()
        worker.suspend(held, wait("paid"))
        return held.run_id

    def failed(self) -> UUID:
        """Start a run that failed at its second step."""
        worker, held = self.held()
        worker.save(held, "first")
        worker.fail(held, saves=[held.save("second", error={"type": "E", "message": "no"})], step="second")
        return held.run_id

    def paused(self) -> UUID:
        """Start a run that is paused."""
        run_id = self.run()
        act(self.conn, "pause", run_id)
        drain(self.conn)
        return run_id

    def completed(self) -> UUID:
        """Start a run that returned 7, with a value published."""
        worker, held = self.held()
        worker.complete(held, 7, saves=[held.save("shown", 3, kind="value", name="shown")])
        return held.run_id

    def orphaned(self) -> None:
        """Have a run in the hands of a worker that is dead and not yet buried."""
        worker, _ = self.held()
        self.database.admin.execute("delete from perdure.worker where worker_id = %s", [worker.worker_id])

    def told(self) -> None:
        """Have a waiting run whose signal has come and was not drained."""
        signal(self.conn, self.waiting())


@dataclass(frozen=True, slots=True)
class Call:
    """A call, and what the same call does when it is made again after an answer that was lost."""

    function: str
    prepare: Callable[[Stage], Arguments]
    variant: str = ""
    again: Mapping[str, Any] | None = field(default_factory=dict)
    """Columns of the second answer that differ from the first's; None: no rows come."""
    raises: str | None = None
    """SQLSTATE of the second call."""
    adds: Mapping[str, int] = field(default_factory=dict)
    """Rows by table that the second call adds: it is not the same call to the engine."""
    says: str = ""
    """Words of the function's comment that tell it; where the second call does or answers anything else."""

    afterwards: LiteralString = ""
    """What is executed at the end, so that others can go on."""

    @property
    def name(self) -> str:
        """How the call is named among the tests."""
        return f"{self.function} {self.variant}".strip().replace(" ", "_")

    @property
    def is_procedure(self) -> bool:
        """Whether it commits by itself."""
        return self.function in PROCEDURES

    def make(self, conn: psycopg.Connection[Any], arguments: Arguments) -> list[Row]:
        """Make the call in one statement, as bare as a driver's."""
        parts = [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments]
        text = "call perdure.{}({})" if self.is_procedure else "select * from perdure.{}({})"
        statement = sql.SQL(text).format(sql.Identifier(self.function), sql.SQL(", ").join(parts))
        with conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []


def plain(rows: list[Row] | None) -> list[Row] | None:
    """Rows as JSON sees them, without what differs from one call to the next."""
    found: list[Row] | None = json.loads(effects.plain(json.dumps(rows, default=str)))
    return found


def _save(stage: Stage) -> Arguments:
    worker, held = stage.held()
    return {"worker_id": worker.worker_id, "saves": Jsonb([held.named(**held.save("a", {"n": 1}))])}


def _save_in_transaction(stage: Stage) -> Arguments:
    worker, held = stage.held()
    return {"worker_id": worker.worker_id, "save": Jsonb(held.named(**held.save("a", kind="transaction")))}


def _try(attempt: int) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        worker, held = stage.held()
        tried = held.named(
            key="a", kind="step", ordinal=1, attempt=attempt, error={"type": "E", "message": ""}, policy=STEP_POLICY
        )
        return {"worker_id": worker.worker_id, "tries": Jsonb([tried])}

    return prepare


def _suspend(*, told: bool = False, keep: bool = False) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        worker, held = stage.held()
        if told:
            signal(stage.conn, held.run_id)
        suspension = held.named(waits=[wait("paid")], saves=[held.save("a")])
        return {"worker_id": worker.worker_id, "suspensions": Jsonb([suspension]), "keep": keep}

    return prepare


def _end(name: str, **fields: Any) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        worker, held = stage.held()
        return {"worker_id": worker.worker_id, name: Jsonb([held.named(saves=[held.save("a")], **fields)])}

    return prepare


def _of_worker(stage: Stage, **more: Any) -> Arguments:
    return {"worker_id": stage.held()[0].worker_id, **more}


def _claim(stage: Stage) -> Arguments:
    stage.told()
    return {"worker_id": stage.worker().worker_id, "max_runs": 5}


def _register(stage: Stage) -> Arguments:
    return {"queues": [stage.name], "workflows": [stage.name], "is_direct": True}


def _dead_worker(stage: Stage) -> Arguments:
    stage.orphaned()
    return {}


def _told(stage: Stage) -> Arguments:
    stage.told()
    return {}


def _housekeeping(stage: Stage) -> Arguments:
    stage.told()
    stage.orphaned()
    stage.run(deadline="2000-01-01")
    return {}


def _start(**options: Any) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        return {"workflow": stage.name, "input": Jsonb({"n": 1}), **options}

    return prepare


def _start_again(on_duplicate: str) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        worker, held = stage.held(key="k", input=Jsonb({"n": 1}))
        if on_duplicate != "replace":
            worker.fail(held)
        return {"workflow": stage.name, "input": Jsonb({"n": 1}), "key": "k", "on_duplicate": on_duplicate}

    return prepare


def _inputs(keys: Sequence[str] | None) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        inputs = [Jsonb({"n": 1}), Jsonb({"n": 2})]
        return {"workflow": stage.name, "inputs": inputs, **({"keys": list(keys)} if keys else {})}

    return prepare


def _signal(id: str | None) -> Callable[[Stage], Arguments]:
    return lambda stage: {"run_id": stage.waiting(), "name": "paid", "payload": Jsonb({"n": 1}), "id": id}


def _signal_key(id: str | None, *, starts: bool) -> Callable[[Stage], Arguments]:
    def prepare(stage: Stage) -> Arguments:
        if not starts:
            stage.run(key="k")
        more = {"start_input": Jsonb({})} if starts else {}
        return {"workflow": stage.name, "key": "k", "name": "paid", "payload": Jsonb({"n": 1}), "id": id, **more}

    return prepare


def _one(make: Callable[[Stage], UUID], **more: Any) -> Callable[[Stage], Arguments]:
    return lambda stage: {"run_id": make(stage), **more}


def _two(make: Callable[[Stage], UUID], **more: Any) -> Callable[[Stage], Arguments]:
    return lambda stage: {"run_ids": [make(stage), make(stage)], **more}


def _role(stage: Stage) -> Arguments:
    stage.database.server.create_role("perdure_test_lost")
    return {"role": "perdure_test_lost", "kind": "observer"}


def _granted(stage: Stage) -> Arguments:
    stage.conn.execute("select perdure.grant_role('perdure_test_lost', 'observer')")
    return _role(stage)


def _held_up(stage: Stage) -> Arguments:
    stage.conn.execute("select perdure.hold('for a test')")
    return {}


def _dead(stage: Stage) -> UUID:
    worker, held = stage.held(max_recoveries=0)
    declare_dead(stage.database, worker)
    return held.run_id


def _none(stage: Stage) -> Arguments:
    return {}


_DUPLICATE = "Returns accepted, duplicate"
_AGAIN = "made again after a lost answer"
_ANOTHER_RUN = {"run": 1, "dispatch": 1}

CALLS: tuple[Call, ...] = (
    # start and talk to runs
    Call("start", _start(key="k"), "with key"),
    Call("start", _start(), "without key", adds=_ANOTHER_RUN, says="Without a key each call starts another run"),
    Call("start", _start_again("restart_if_failed"), "restart_if_failed"),
    Call("start", _start_again("restart_if_finished"), "restart_if_finished"),
    Call(
        "start", _start_again("replace"), "replace",
        adds={**_ANOTHER_RUN, "act": 1, "audit": 1, "wake": 2},
        says="replace made again after a lost answer replaces the run that the first call started",
    ),
    Call(
        "start", _start(key="k", on_duplicate="error"), "error", raises="PD005",
        says="error made again after a lost answer raises PD005 for its own run",
    ),
    Call("start_run", _start(key="k"), "with key", again={"is_new": False}, says="whether this call made it"),
    Call("start_run", _start(), "without key", adds=_ANOTHER_RUN, says="Raises and locks as start does"),
    Call("start_many", _inputs(["a", "b"]), "with keys", again={"is_new": False}, says="whether the run is new"),
    Call(
        "start_many", _inputs(None), "without keys", adds={"run": 2, "dispatch": 2},
        says="Without keys each call starts other runs",
    ),
    Call("signal", _signal("1"), "with id", again={"signal": "duplicate"}, says="duplicate (this id was sent before)"),
    Call("signal", _signal(None), "without id", adds={"signal": 1, "wake": 1}, says="Without it each call sends another"),
    Call("signal_key", _signal_key("1", starts=False), "with id", again={"signal_key": "duplicate"},
         says="Returns and raises as signal does"),
    Call("signal_key", _signal_key("1", starts=True), "that starts", again={"signal_key": "duplicate"},
         says="Returns and raises as signal does"),
    Call("signal_key", _signal_key(None, starts=True), "without id", adds={"signal": 1, "wake": 1},
         says="Without id each call sends another message"),
    Call("cancel", _one(Stage.waiting), again={"cancel": "duplicate"}, says=_DUPLICATE),
    Call("cancel_many", _two(Stage.waiting), again={"answer": "duplicate"}, says=_DUPLICATE),
    Call("result", _one(Stage.completed)),
    Call("await", _one(Stage.completed)),
    Call("find_run", lambda stage: {"workflow": stage.name, "key": str(stage.run(key="k")) and "k"}),
    Call("get_value", _one(Stage.completed, name="shown")),
    Call("run_results", _two(Stage.completed)),
    # execute runs
    Call("put_workflow", lambda stage: {"name": f"{stage.name}/new", "queue": f"{stage.name}/new"}),
    Call(
        "register_worker", _register, adds={"worker": 1, "worker_beat": 1},
        says="registers another worker; the first is buried after its lease",
    ),
    Call("worker_lock", lambda stage: _of_worker(stage)),
    Call("beat", lambda stage: _of_worker(stage, runs_held=1)),
    Call("listen", lambda stage: _of_worker(stage)),
    Call("unlisten", lambda stage: {"queues": [stage.name]}),
    Call("next_due", lambda stage: _of_worker(stage)),
    Call("claim_runs", _claim, again=None, says="After a lost answer ask worker_runs"),
    Call("read_steps", _one(Stage.completed)),
    Call(
        "save_steps", _save, again={"answer": "on_record", "kind": "step", "result": {"n": 1}}, says="on_record",
    ),
    Call("save_transaction_step", _save_in_transaction, raises="PD002", says="the step on record"),
    Call("fail_steps", _try(1), "retry"),
    Call("fail_steps", _try(4), "exhausted"),
    Call("suspend_runs", _suspend(), "suspended", again={"answer": "done"}, says="done (this claim suspended it before)"),
    Call("suspend_runs", _suspend(told=True), "answered"),
    Call("suspend_runs", _suspend(keep=True), "keep"),
    Call("suspend_runs", _suspend(told=True, keep=True), "keep answered"),
    Call("complete_runs", _end("ends", result=7)),
    Call("fail_runs", _end("ends", error={"type": "E", "message": "no"})),
    Call("release_runs", _end("releases"), "unfinished"),
    Call("release_runs", _end("releases", pause_reason="conflict"), "paused"),
    Call("worker_runs", lambda stage: _of_worker(stage)),
    Call("stop_worker", lambda stage: _of_worker(stage), again={"stop_worker": 0}, says="0 where it was stopped before"),
    # keep the engine going
    Call("tick", _housekeeping, again={"tick": "#"}, says="what it did"),
    Call("recover", _dead_worker, again={"recover": 0}, says="how many runs were taken back"),
    Call("drain", _told, again={"applied": 0}, says="how many were looked at"),
    Call("truncate_wake", _none, again={"truncate_wake": False}, says="whether it did"),
    Call("rotate", _none, again={"rotate": {}}, says="empty where nothing was to be"),
    Call("run_ticks", lambda stage: {**_housekeeping(stage), "max_seconds": 1}),
    # operate
    Call("terminate", _one(Stage.waiting), again={"terminate": "duplicate"}, says=_DUPLICATE),
    Call("terminate_many", _two(Stage.waiting), again={"answer": "duplicate"}, says=_DUPLICATE),
    Call("pause", _one(Stage.waiting), again={"pause": "duplicate"}, says="Returns accepted or duplicate"),
    Call("pause_many", _two(Stage.waiting), again={"answer": "duplicate"}, says=_DUPLICATE),
    Call("resume", _one(Stage.paused), again={"resume": "duplicate"}, says="duplicate"),
    Call("resume_many", _two(Stage.paused), again={"answer": "duplicate"}, says=_DUPLICATE),
    Call("retry", _one(Stage.failed), "failed", raises="PD009", says=_AGAIN),
    Call("retry", _one(_dead), "dead", raises="PD009", says=_AGAIN),
    Call("retry_many", _two(Stage.failed), again={"answer": "illegal"}, says=_AGAIN),
    Call("hold", lambda stage: {"reason": stage.name}, afterwards="select perdure.adopt()"),
    Call("adopt", _held_up),
    Call("put_queue", lambda stage: {"name": f"{stage.name}/new"}, adds={"audit": 1}, says="audited each time"),
    Call("put_setting", lambda _: {"name": "payload_soft_limit", "value": Jsonb(1048576)}, adds={"audit": 1},
         says="audited each time"),
    Call("grant_role", _role, adds={"audit": 1}, says="audited each time"),
    Call("revoke_role", _granted, adds={"audit": 1}, says="audited each time"),
    Call("enable_cron", _none),
    Call("disable_cron", _none),
    # look
    Call("version", _none),
    Call("explain", _one(Stage.waiting)),
    Call("selftest", _none),
    Call("at_risk", _none),
    Call("recorded_since", lambda _: {"since": "2000-01-01"}),
)  # fmt: skip
