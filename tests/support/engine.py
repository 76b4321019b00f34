"""Drive the SQL engine from a test as a client, an operator or a worker would: one call, one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from support.database import Database

Connection = psycopg.Connection[Any]
Row = dict[str, Any]
WORKFLOW = "order"


def call(conn: Connection, function: str, **arguments: Any) -> list[Row]:
    """Call a function of Perdure by named arguments; dicts and lists of dicts go as JSON."""
    parts = [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments]
    statement = sql.SQL("select * from perdure.{}({})").format(sql.Identifier(function), sql.SQL(", ").join(parts))
    values = {name: Jsonb(value) if _is_json(value) else value for name, value in arguments.items()}
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()


def scalar(conn: Connection, function: str, **arguments: Any) -> Any:
    """Call a function that returns one value."""
    [row] = call(conn, function, **arguments)
    [value] = row.values()
    return value


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, dict) for each in value)
    return isinstance(value, dict)


def start(conn: Connection, *, workflow: str = WORKFLOW, **options: Any) -> UUID:
    """Start a run."""
    run_id: UUID = scalar(conn, "start", workflow=workflow, **options)
    return run_id


def signal(conn: Connection, run_id: UUID, name: str = "paid", payload: Any = None, **options: Any) -> str:
    """Send a signal; its payload is an object with the number 1 unless one is given."""
    answer: str = scalar(conn, "signal", run_id=run_id, name=name, payload=Jsonb(payload or {"n": 1}), **options)
    return answer


def act(conn: Connection, name: str, run_id: UUID, **options: Any) -> str:
    """Ask an act of a run."""
    answer: str = scalar(conn, name, run_id=run_id, **options)
    return answer


def drain(conn: Connection) -> tuple[int, int]:
    """Drain; return how many runs were looked at and how many were skipped."""
    [row] = call(conn, "drain")
    return row["applied"], row["skipped"]


def state(database: Database, run_id: UUID) -> str | None:
    """The run's state as act_rules names it; None for an unknown run."""
    found: str | None = database.value("select s.state from perdure._states(array[%s::uuid]) as s", run_id)
    return found


def outcome(database: Database, run_id: UUID) -> str | None:
    """How the run ended; None while it has not."""
    found: str | None = database.value("select status from perdure.outcome where run_id = %s", run_id)
    return found


def dispatch(database: Database, run_id: UUID) -> Row:
    """The run's row in dispatch, times as text; empty when it has none."""
    row: Row | None = database.value("select to_jsonb(d) from perdure.dispatch as d where d.run_id = %s", run_id)
    return row or {}


def steps(database: Database, run_id: UUID) -> list[Row]:
    """The run's checkpoints in their order."""
    with database.admin.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from perdure.step where run_id = %s order by ordinal", [run_id]).fetchall()


def keys(database: Database, run_id: UUID) -> list[str]:
    """The keys of the run's checkpoints in their order."""
    return [row["key"] for row in steps(database, run_id)]


def wait(key: str, kind: str = "signal", *, name: str | None = None, until: Any = None) -> Row:
    """Make a wait; a signal's name is its key unless one is given."""
    made: Row = {"key": key, "kind": kind}
    if kind == "signal":
        made["name"] = name or key
    if until is not None:
        made["until"] = until if isinstance(until, str) else until.isoformat()
    return made


@dataclass
class Held:
    """A run in a worker's hands."""

    run_id: UUID
    claim: UUID
    row: Row
    ordinal: int = 0
    steps: list[Row] = field(default_factory=list)

    @property
    def cancel(self) -> str | None:
        """What the run was told to end as."""
        cancel: str | None = self.row["cancel"]
        return cancel

    def save(self, key: str, result: Any = None, **fields: Any) -> Row:
        """Make a save of one step, with the next ordinal."""
        self.ordinal += 1
        made: Row = {"key": key, "kind": "step", "ordinal": self.ordinal, "result": result}
        return made | fields

    def named(self, **fields: Any) -> Row:
        """Make an object of a batch that names this run by its claim."""
        return {"run_id": str(self.run_id), "claim": str(self.claim), **fields}


class Worker:
    """A worker that does what the test says, on one connection; `on` gives the same worker another one."""

    def __init__(
        self,
        database: Database,
        *,
        workflows: Sequence[str] = (WORKFLOW,),
        queues: Sequence[str] = ("default",),
        conn: Connection | None = None,
        **options: Any,
    ) -> None:
        self.conn = conn or database.connect()
        self.worker_id: UUID = scalar(
            self.conn, "register_worker", queues=list(queues), workflows=list(workflows), **options
        )

    def on(self, conn: Connection) -> Worker:
        """Return the same worker on another connection, in whatever transaction that has."""
        other = object.__new__(Worker)
        other.conn, other.worker_id = conn, self.worker_id
        return other

    def call(self, function: str, **arguments: Any) -> list[Row]:
        """Call one of the worker's functions."""
        return call(self.conn, function, worker_id=self.worker_id, **arguments)

    def claim(self, max_runs: int = 1) -> list[Held]:
        """Claim runs."""
        held = []
        for row in self.call("claim_runs", max_runs=max_runs):
            ordinal = max([step["ordinal"] for step in row["steps"]], default=0)
            held.append(Held(row["run_id"], row["claim"], row, ordinal, row["steps"]))
        return held

    def claim_one(self) -> Held:
        """Claim the one run that is there to be claimed."""
        [held] = self.claim()
        return held

    def save(self, held: Held, key: str, result: Any = None, **fields: Any) -> str:
        """Save one step; return the answer."""
        answer: str = self.save_row(held, key, result, **fields)["answer"]
        return answer

    def save_row(self, held: Held, key: str, result: Any = None, **fields: Any) -> Row:
        """Save one step; return the whole answer."""
        [row] = self.call("save_steps", saves=[held.named(**held.save(key, result, **fields))])
        return row

    def fail_step(self, held: Held, key: str, attempt: int, *, policy: Mapping[str, Any], **error: Any) -> Row:
        """Report a failed try; return the whole answer."""
        problem = {"type": "Oops", "message": "no", **error}
        tried = {"key": key, "kind": "step", "ordinal": held.ordinal + 1, "attempt": attempt}
        [row] = self.call("fail_steps", tries=[held.named(**tried, error=problem, policy=dict(policy))])
        return row

    def suspend_row(self, held: Held, *waits: Row, saves: Iterable[Row] = (), keep: bool = False, **fields: Any) -> Row:
        """Suspend on a set of waits; return the whole answer."""
        suspension = held.named(waits=list(waits), saves=list(saves), **fields)
        [row] = self.call("suspend_runs", suspensions=[suspension], keep=keep)
        return row

    def suspend(self, held: Held, *waits: Row, saves: Iterable[Row] = (), keep: bool = False) -> str:
        """Suspend on a set of waits; return the answer."""
        answer: str = self.suspend_row(held, *waits, saves=saves, keep=keep)["answer"]
        return answer

    def complete(self, held: Held, result: Any = None, saves: Iterable[Row] = ()) -> str:
        """End the run with its result; return the answer."""
        return self._one("complete_runs", ends=[held.named(result=result, saves=list(saves))])

    def fail(self, held: Held, saves: Iterable[Row] = (), **error: Any) -> str:
        """End the run with an error; return the answer."""
        problem = {"type": "Oops", "message": "no", **error}
        return self._one("fail_runs", ends=[held.named(error=problem, saves=list(saves))])

    def release(self, held: Held, pause_reason: str | None = None, saves: Iterable[Row] = ()) -> str:
        """Give the run back; return the answer."""
        released = held.named(saves=list(saves))
        return self._one("release_runs", releases=[released | ({"pause_reason": pause_reason} if pause_reason else {})])

    def transaction_step(self, held: Held, key: str, result: Any = None, **fields: Any) -> Row:
        """Save a step in the transaction that is open on the connection; return its checkpoint."""
        save = held.named(**held.save(key, result, kind="transaction", **fields))
        checkpoint: Row = self.call("save_transaction_step", save=save)[0]["save_transaction_step"]
        return checkpoint

    def beat(self, runs_held: int | None = None) -> Row:
        """Show that the worker is alive; return the answer."""
        [row] = self.call("beat", runs_held=runs_held)
        answer: Row = row["beat"]
        return answer

    def runs(self) -> set[UUID]:
        """What the database says the worker holds."""
        return {row["run_id"] for row in self.call("worker_runs")}

    def stop(self) -> int:
        """Stop in good order; return how many runs it gave back."""
        [row] = self.call("stop_worker")
        released: int = row["stop_worker"]
        return released

    def _one(self, function: str, **arguments: Any) -> str:
        [row] = self.call(function, **arguments)
        answer: str = row["answer"]
        return answer


def declare_dead(database: Database, worker: Worker) -> None:
    """Make a worker look dead without waiting for its lease, then recover: whatever else is alive is left alone."""
    with_no_grace(database)
    bury(database, worker.worker_id)


def bury(database: Database, worker_id: UUID) -> None:
    """Let a recovery find a worker dead, however lately it has beaten; none of its beats comes in between."""
    with database.admin.transaction():
        database.admin.execute(
            "update perdure.worker_beat set beat_at = '2000-01-01' where worker_id = %s", [worker_id]
        )
        database.admin.execute("select perdure.recover()")


def with_no_grace(database: Database) -> None:
    """Let deaths be declared at the first look, although the server has just started and nobody has watched."""
    database.admin.execute(
        "create or replace function perdure._watch(now timestamptz, out calm_since timestamptz, out watched_since "
        "timestamptz, out looked_at timestamptz) returns record language sql volatile set search_path = pg_catalog, pg_temp as $$ "
        "update perdure.timeline as t set ticked_at = _watch.now from (select s.timeline from perdure.timeline as s "
        "for no key update skip locked) as l where l.timeline = t.timeline; "
        "select '-infinity'::timestamptz, '-infinity'::timestamptz, null::timestamptz $$"
    )


def a_run(database: Database, **options: Any) -> tuple[Worker, Held]:
    """Start a run and claim it by a worker of its own."""
    worker = Worker(database)
    run_id = start(worker.conn, **options)
    [held] = [held for held in worker.claim(100) if held.run_id == run_id]
    return worker, held


def unknown_run() -> UUID:
    """An id that names no run."""
    return uuid4()
