"""One play through the public functions, whose answers depend on nothing that a caller may set.

Each call goes out as a statement with literals and comes back as JSON, so the session's own settings rule how it is
read and written; what is new each time (ids, times, names of this play) is blotted out.
"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d(:\d\d)?|Z)")
# In sentences a time is written as the session writes times.
_WHEN = re.compile(r"\b(at|until|since|is|every) [^\"()]*\d[^\"()]*(?=\(|, after|$)")
_FAR = re.compile(r"\((now|in <span>|<span> ago)\)")
_SPAN = re.compile(r"\d+(\.\d+)? (s|min|h|days)\b")

AWKWARD = {
    "text": 'it\'s \\ "quoted" \\n $$ %s :name ?',
    "numbers": [0.1, 1e-7, 123456789.123456789, 12345678901234567890, -0.5, 1e300],
    "null": None,
    "nested": {"NULL": "null", "İ": "\u0131"},
}
# Where the database cannot hold every letter.
PLAIN = AWKWARD | {"nested": {"NULL": "null", "I": "i"}}

SPANS = ("beat_age", "duration", "lease", "retention", "clock")  # written in the session's way, or new each time
# Arguments that are texts, which a caller may take from a column with a collation of its own.
TEXTS = ("workflow", "key", "keys", "queue", "queues", "workflows", "name", "id", "reason", "on_duplicate")
VIEWS = ("runs", "steps", "signals", "waits", "queues", "workers", "stuck", "history")


class Player:
    """Somebody who calls functions on one connection and notes the answers."""

    def __init__(self, conn: psycopg.Connection[Any], name: str, payload: Any, collation: str | None) -> None:
        self.conn = conn
        self.name = name
        self.payload = payload
        self.collation = collation
        self.answers: dict[str, Any] = {}
        self._count = 0

    def call(self, function: str, **arguments: Any) -> list[Any]:
        """Call a function; return its rows as JSON, and note them, or the error's code and message."""
        named = [
            sql.SQL("{} => {}{}").format(sql.Identifier(name), sql.Literal(_plain(value)), self._cast(name, value))
            for name, value in arguments.items()
        ]
        statement = sql.SQL("select to_json(x)::text from perdure.{}({}) as x").format(
            sql.Identifier(function), sql.SQL(", ").join(named)
        )
        try:
            rows = [None if row[0] is None else json.loads(row[0]) for row in self.conn.execute(statement).fetchall()]
        except psycopg.Error as error:
            if error.sqlstate is None or not error.sqlstate.startswith(("PD", "22", "23", "55")):
                raise
            self.note(function, [error.sqlstate, error.diag.message_primary])
            return []
        self.note(function, rows)
        return rows

    def _cast(self, name: str, value: Any) -> sql.Composable:
        if self.collation is None or name not in TEXTS:
            return sql.SQL(_cast(value))
        cast = "::text[] collate {}" if isinstance(value, list) else "::text collate {}"
        return sql.SQL(cast).format(sql.Identifier(self.collation))

    def ask(self, what: str, query: str, *parameters: Any) -> list[Any]:
        """Ask with SQL of one's own; return and note the rows."""
        rows = [row[0] for row in self.conn.execute(query.encode(), parameters or None).fetchall()]
        rows = [row.decode() if isinstance(row, bytes) else row for row in rows]  # in a session without an encoding
        self.note(what, rows)
        return rows

    def note(self, what: str, answer: Any) -> None:
        """Keep an answer without what is new each time."""
        self._count += 1
        self.answers[f"{self._count:02} {what}"] = self._blotted(answer)

    def _blotted(self, answer: Any) -> Any:
        if isinstance(answer, dict):
            return {key: self._blotted(value) for key, value in answer.items() if key not in SPANS}
        if isinstance(answer, list):
            return [self._blotted(each) for each in answer]
        if isinstance(answer, str):
            text = _TIME.sub("<time>", _ID.sub("<id>", answer.replace(self.name, "<name>")))
            return _FAR.sub("(<far>)", _SPAN.sub("<span>", _WHEN.sub(r"\1 <when> ", text)))
        return answer


def play(
    conn: psycopg.Connection[Any], name: str, payload: Any = AWKWARD, collation: str | None = None
) -> dict[str, Any]:
    """Play one worker and its clients through the life of some runs; `name` is new on each call."""
    me = Player(conn, name, payload, collation)
    worker_id = _begin(me)
    first, second = _live(me, worker_id)
    _act(me, worker_id)
    _refuse(me, worker_id)
    _look(me, first, second)
    me.call("stop_worker", worker_id=worker_id)
    return me.answers


def _begin(me: Player) -> str:
    me.call("put_queue", name=me.name, retention="30 days")
    me.call("put_workflow", name=me.name, queue=me.name, timeout="1 day 02:03:04.5", max_recoveries=3)
    for _ in range(2):
        me.call("start", workflow=me.name, input=me.payload, key="k'1\\", tags={"a": "b"}, priority=2)
    me.call("start", workflow=me.name, input={"other": 1}, key="k'1\\")
    me.call("start", workflow=me.name, input={}, key="late", delay="1 year 2 mons 3 days 04:05:06")
    me.call(
        "start_many",
        workflow=me.name,
        inputs=Payloads([{"n": 1}, {"n": 2}]),
        keys=["B", "a"],
        start_at="2030-01-02T03:04:05Z",
    )
    me.call("find_run", workflow=me.name, key="k'1\\")
    [worker_id] = me.call("register_worker", queues=[me.name], workflows=[me.name], name=me.name, lease="1 hour")
    return str(worker_id)


def _live(me: Player, worker_id: str) -> tuple[str, str]:
    """One run through steps, a failed try, a wait with a message, and its end; another one fails."""
    [claimed] = me.call("claim_runs", worker_id=worker_id, max_runs=5)
    held = {"run_id": claimed["run_id"], "claim": claimed["claim"]}
    step = held | {"kind": "step", "started_at": "2026-03-08T01:59:59.123456-05:00"}
    mark = "0123456789abcdef0123456789abcdef"
    saves = [
        step | {"key": "one", "ordinal": 1, "result": me.payload, "fingerprint": mark},
        step | {"key": "NULL", "ordinal": 2, "result": None},
        held | {"key": "~value/seen", "kind": "value", "name": "seen", "ordinal": 3, "result": me.payload},
    ]
    for _ in range(2):
        me.call("save_steps", worker_id=worker_id, saves=saves)
    failed = step | {"key": "try", "ordinal": 4, "attempt": 1, "error": {"type": "Oops", "message": "no\\"}}
    policy = {"max_attempts": 2, "delay": 86400.123456789, "factor": 1.0000001, "max_delay": 1e9, "jitter": 0}
    me.call("fail_steps", worker_id=worker_id, tries=[failed | {"policy": policy}])
    me.ask(
        "delay",
        "select round(extract(epoch from a.retry_at - a.failed_at), 3)::text from perdure.step_attempt as a where a.run_id = %s",
        claimed["run_id"],
    )
    waits = [
        {"key": "paid", "kind": "signal", "name": "paid"},
        {"key": "~timer", "kind": "timer", "until": "2031-10-26T01:30:00.5+01:00"},
    ]
    me.call("suspend_runs", worker_id=worker_id, suspensions=[held | {"waits": waits, "saves": []}])
    me.ask("waits", "select to_jsonb(w) - 'run_id' from perdure.waits as w where w.run_id = %s", claimed["run_id"])
    me.call("explain", run_id=claimed["run_id"])
    for _ in range(2):
        me.call("signal", run_id=claimed["run_id"], name="paid", payload=me.payload, id="s\\1")
    me.call("signal_key", workflow=me.name, key="k'1\\", name="Other", payload=[1, None])
    me.call("drain")
    [again] = me.call("claim_runs", worker_id=worker_id)
    held = {"run_id": again["run_id"], "claim": again["claim"]}
    me.call("read_steps", run_id=again["run_id"], after=1)
    me.call("beat", worker_id=worker_id, runs_held=1, activity=[{**held, "key": "one", "since": "2026-01-01T00:00Z"}])
    me.call("worker_runs", worker_id=worker_id)
    for _ in range(2):
        me.call("complete_runs", worker_id=worker_id, ends=[held | {"result": me.payload, "saves": []}])
    me.call("result", run_id=again["run_id"])
    me.call("get_value", run_id=again["run_id"], name="seen")
    [other] = me.call("start", workflow=me.name, input=me.payload, headers={"h": "1"}, timeout="90 seconds")
    [claimed] = me.call("claim_runs", worker_id=worker_id)
    held = {"run_id": claimed["run_id"], "claim": claimed["claim"]}
    me.call("fail_runs", worker_id=worker_id, ends=[held | {"error": {"type": "E", "message": "m"}, "saves": []}])
    me.call("result", run_id=other)
    me.call("run_results", run_ids=[UUID(str(other))])
    return str(again["run_id"]), str(other)


def _act(me: Player, worker_id: str) -> None:
    [run] = me.call("start", workflow=me.name, input={}, priority=5)
    for act in ("pause", "pause", "resume", "cancel"):
        me.call(act, run_id=run, reason=f"it's {act}")
        me.call("drain")
    me.call("retry", run_id=run, reason="again")
    me.call("terminate_many", run_ids=[UUID(str(run))], reason="enough")
    me.call("tick")
    me.call("start", workflow=me.name, input={}, key="late")
    me.call("claim_runs", worker_id=worker_id)


def _refuse(me: Player, worker_id: str) -> None:
    for options in (
        {"priority": 9},
        {"delay": "-1 day"},
        {"timeout": "200 years"},
        {"on_duplicate": "Attach"},
        {"start_at": "2030-01-01T00:00Z", "delay": "1 s"},
        {"queue": " \t\n"},
        {"max_recoveries": -1},
    ):
        me.call("start", workflow=me.name, input={}, **options)
    me.call("start", workflow=me.name + "x", input={})
    me.call("claim_runs", worker_id=worker_id, max_runs=0)
    me.call("save_steps", worker_id=worker_id, saves={})
    me.call("enable_cron", every="61 minutes")
    me.call("put_setting", name="payload_soft_limit", value="x")


def _look(me: Player, *run_ids: str) -> None:
    for run_id in run_ids:
        me.call("explain", run_id=run_id)
    for view in VIEWS:
        name = sql.Identifier(view)
        of_mine = sql.SQL("position({} in to_jsonb(v)::text) > 0").format(sql.Literal(me.name))
        if view in ("steps", "signals", "waits", "history"):
            of_mine = sql.SQL("v.run_id = any({}::uuid[])").format(sql.Literal(list(run_ids)))
        query = sql.SQL("select to_jsonb(v)::text from perdure.{} as v where {}").format(name, of_mine)
        rows = [json.loads(row[0]) for row in me.conn.execute(query).fetchall()]
        me.note(view, sorted((me._blotted(row) for row in rows), key=json.dumps))
    me.ask("selftest", "select t.invariant from perdure.selftest() as t where t.violations > 0")


class Payloads(list[Any]):
    """An array of JSON values, not a JSON array."""


def _plain(value: Any) -> Any:
    if isinstance(value, Payloads):
        return [json.dumps(each, ensure_ascii=False) for each in value]
    return json.dumps(value, ensure_ascii=False) if _is_json(value) else value


def _cast(value: Any) -> str:
    if isinstance(value, Payloads):
        return "::jsonb[]"
    return "::jsonb" if _is_json(value) else ""


def _is_json(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and not all(isinstance(each, str | UUID) for each in value)
    )
