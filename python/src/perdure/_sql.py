"""Every statement of the driver about runs: a call of one function, in named notation.

Invariants:

* A statement decides nothing; what it may do is told by the comment on its function.
* The schema's name is put in at one place, after it was checked; nothing else is ever put in.
* A refusal of class PD becomes the class of `_errors` with that SQLSTATE, at one place; every other
  error of the database passes unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from typing_extensions import LiteralString

from ._build import BuildError, check_schema
from ._errors import DatabaseError, Misuse

# Not written as texts, because they are no statements about runs: they only open and close transactions.
BEGIN = b"begin isolation level read committed"
COMMIT = b"commit"
# Whatever the role's default is: for a session of one's own, and before a statement of the same message, whose
# transaction is theirs alone.
SESSION_READ_COMMITTED = b"set session characteristics as transaction isolation level read committed"
READ_COMMITTED = b"set transaction isolation level read committed; "

# The worker's
PUT_WORKFLOW: LiteralString = (
    "select perdure.put_workflow(name => %(name)s, queue => %(queue)s, timeout => %(timeout)s,"
    " max_recoveries => %(max_recoveries)s::int)"
)
REGISTER_WORKER: LiteralString = (
    "select perdure.register_worker(queues => %(queues)s, workflows => %(workflows)s, name => %(name)s,"
    " version => %(version)s, lease => %(lease)s, is_direct => %(is_direct)s)"
)
WORKER_LOCK: LiteralString = "select perdure.worker_lock(worker_id => %(worker_id)s)"
BEAT: LiteralString = (
    "select perdure.beat(worker_id => %(worker_id)s, runs_held => %(runs_held)s::int, activity => %(activity)s::jsonb)"
)
RUN_TICKS: LiteralString = "call perdure.run_ticks(max_seconds => 0)"
TICK: LiteralString = "select perdure.tick()"
CLAIM_RUNS: LiteralString = (
    "select * from perdure.claim_runs(worker_id => %(worker_id)s, max_runs => %(max_runs)s::int)"
)
LISTEN: LiteralString = "select perdure.listen(worker_id => %(worker_id)s, queues => %(queues)s)"
UNLISTEN: LiteralString = "select perdure.unlisten(queues => %(queues)s)"
NEXT_DUE: LiteralString = "select perdure.next_due(worker_id => %(worker_id)s)"
READ_STEPS: LiteralString = (
    "select perdure.read_steps(run_id => %(run_id)s, after => %(after)s::int, max_bytes => %(max_bytes)s::int)"
)
SAVE_STEPS: LiteralString = "select * from perdure.save_steps(worker_id => %(worker_id)s, saves => %(calls)s::jsonb)"
FAIL_STEPS: LiteralString = "select * from perdure.fail_steps(worker_id => %(worker_id)s, tries => %(calls)s::jsonb)"
SUSPEND_RUNS: LiteralString = (
    "select * from perdure.suspend_runs(worker_id => %(worker_id)s, suspensions => %(calls)s::jsonb, keep => %(keep)s)"
)
COMPLETE_RUNS: LiteralString = (
    "select * from perdure.complete_runs(worker_id => %(worker_id)s, ends => %(calls)s::jsonb)"
)
FAIL_RUNS: LiteralString = "select * from perdure.fail_runs(worker_id => %(worker_id)s, ends => %(calls)s::jsonb)"
RELEASE_RUNS: LiteralString = (
    "select * from perdure.release_runs(worker_id => %(worker_id)s, releases => %(calls)s::jsonb)"
)
SAVE_TRANSACTION_STEP: LiteralString = (
    "select perdure.save_transaction_step(worker_id => %(worker_id)s, save => %(save)s::jsonb)"
)
WORKER_RUNS: LiteralString = "select * from perdure.worker_runs(worker_id => %(worker_id)s)"
STOP_WORKER: LiteralString = "select perdure.stop_worker(worker_id => %(worker_id)s)"

# The client's
START_RUN: LiteralString = (
    "select * from perdure.start_run(workflow => %(workflow)s, input => %(input)s::jsonb, key => %(key)s,"
    " on_duplicate => %(on_duplicate)s, queue => %(queue)s, priority => %(priority)s::int,"
    " start_at => %(start_at)s, delay => %(delay)s, deadline => %(deadline)s, timeout => %(timeout)s,"
    " tags => %(tags)s::jsonb, max_recoveries => %(max_recoveries)s::int, headers => %(headers)s::jsonb)"
)
START_MANY: LiteralString = "select * from perdure.start_many(workflow => %(workflow)s, inputs => %(inputs)s::jsonb[], keys => %(keys)s::text[])"
SIGNAL: LiteralString = (
    "select perdure.signal(run_id => %(run_id)s, name => %(name)s, payload => %(payload)s::jsonb, id => %(id)s)"
)
SIGNAL_KEY: LiteralString = (
    "select perdure.signal_key(workflow => %(workflow)s, key => %(key)s, name => %(name)s,"
    " payload => %(payload)s::jsonb, id => %(id)s, start_input => %(start_input)s::jsonb)"
)
CANCEL: LiteralString = "select perdure.cancel(run_id => %(run_id)s, reason => %(reason)s, grace => %(grace)s)"
EXPLAIN: LiteralString = "select * from perdure.explain(run_id => %(run_id)s)"
FIND_RUN: LiteralString = "select perdure.find_run(workflow => %(workflow)s, key => %(key)s)"
GET_VALUE: LiteralString = "select perdure.get_value(run_id => %(run_id)s, name => %(name)s)"
RUN_RESULTS: LiteralString = "select * from perdure.run_results(run_ids => %(run_ids)s::uuid[])"


class Schema:
    """Put the name of the installation's schema into statements; raise Misuse for an impossible name."""

    def __init__(self, name: str = "perdure") -> None:
        try:
            self.name = check_schema(name)
        except BuildError as error:
            raise Misuse(str(error)) from None
        self._known: dict[str, bytes] = {}

    def __call__(self, statement: LiteralString) -> bytes:
        """Return the statement as it is sent."""
        found = self._known.get(statement)
        if found is None:
            found = self._known[statement] = statement.replace("perdure.", f"{self.name}.", 1).encode()
        return found


def to_json(value: Any) -> str:
    """Return JSON text of names and numbers that the driver itself made."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


_BY_STATE = {kind.sqlstate: kind for kind in DatabaseError.__subclasses__()}


def refusal(error: psycopg.Error) -> DatabaseError | None:
    """Return the error as one of class PD, or None for others."""
    kind = _BY_STATE.get(error.sqlstate or "")
    if kind is None:
        return None
    diagnosis = error.diag
    parts = [diagnosis.message_primary or str(error), diagnosis.message_detail, diagnosis.message_hint]
    return kind("\n".join(part for part in parts if part))


@contextmanager
def refusals() -> Iterator[None]:
    """Raise errors of class PD as the classes of `_errors`, all others as they are."""
    try:
        yield
    except psycopg.Error as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error
