"""What a caller passes is data, wherever it goes: the database, a terminal, a log, a command that somebody is told to type."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.types.json import Jsonb

from perdure._visible import one_line, visible, visible_json, visible_lines
from perdure.cli.root import cli
from support.calls import CALLS, CRON, Stage
from support.database import Database
from support.engine import act, call, drain, scalar, start
from support.hostile import callables, fingerprint, role_of

SQL = "create table public.canary (n int); create role perdure_test_canary"
HOSTILE = {
    "quotes": f"x'); {SQL}; --",
    "double quotes": f'x"; {SQL}; --',
    "dollar quotes": f"$$; {SQL}; $$ $do$ $do$",
    "format specifiers": "%s %I %L %1$s %%n %",
    "backslashes": f"\\'; {SQL}; --\\",
    "unicode escapes": "\\u0027); U&'\\0027' E'\\x27'; " + SQL,
    "JSON": '"}, {"run_id": "x", "$ref": null}]',
    "terminal": "\x1b[31mred\x1b[0m\r\n00:00:00 ERROR forged\x9b2J\u202e\x07",
    "a long identifier": "x" * 200,
    "a name": f"perdure.run; {SQL}",
    "a shell": "q; touch canary $(touch canary) `touch canary` 'x",
}


def test_no_text_that_any_function_takes_is_run(granted: Database) -> None:
    """Each argument of text, text[] or jsonb of every public function, the others being what a lawful caller passes."""
    owner = granted.connect()
    tried = accepted = 0
    for n, each in enumerate({each.function: each for each in CALLS}.values()):
        [routine] = [routine for routine in callables(granted) if routine.name == each.function]
        lawful = dict(each.prepare(Stage(granted, owner, f"w{n}")))
        before = fingerprint(granted)
        for name, kind in zip(routine.arguments, routine.types, strict=True):
            for text in HOSTILE.values() if kind in ("text", "text[]", "jsonb", "name") else ():
                given = {"text": text, "name": text, "text[]": [text], "jsonb": Jsonb(text)}[kind]
                tried += 1
                accepted += passes(owner, each.is_procedure, each.function, lawful | {name: given})
                if kind == "jsonb" and isinstance(lawful.get(name), Jsonb):
                    for forged in within(lawful[name].obj, text):
                        tried += 1
                        accepted += passes(owner, each.is_procedure, each.function, lawful | {name: Jsonb(forged)})
        if each.function not in ("grant_role", "revoke_role", *CRON):  # whose work it is to change privileges
            assert fingerprint(granted) == before, each.name
        if each.afterwards:
            owner.execute(each.afterwards)
    assert tried > 1000
    assert accepted > 100
    assert granted.value("select to_regclass('public.canary')") is None
    assert granted.value("select count(*) from pg_roles where rolname = 'perdure_test_canary'") == 0
    owner.execute("select perdure.tick()")
    for (run_id,) in granted.admin.execute("select run_id from perdure.run").fetchall():
        owner.execute("select * from perdure.explain(%s)", [run_id])
    assert granted.value("select to_regclass('public.canary')") is None
    broken = granted.admin.execute("select distinct invariant from perdure.violations").fetchall()
    assert broken == [("ordinals_of_a_run_differ",)]  # forged saves of one ordinal under many keys, which it tells


def within(value: Any, text: str) -> Iterator[Any]:
    """A JSON value with one of its texts, however deep, replaced."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for forged in within(inner, text):
                yield value | {name: forged}
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            for forged in within(inner, text):
                yield [*value[:n], forged, *value[n + 1 :]]
    elif isinstance(value, str):
        yield text


def passes(conn: psycopg.Connection[Any], is_procedure: bool, function: str, arguments: dict[str, Any]) -> bool:
    """Make a call; whether it was let in. What is refused is refused by a state of ours, not by a syntax error."""
    words = "call perdure.{}({})" if is_procedure else "select * from perdure.{}({})"
    given = sql.SQL(", ").join(sql.SQL("{} => {}").format(sql.Identifier(k), sql.Placeholder(k)) for k in arguments)
    try:
        conn.execute(sql.SQL(words).format(sql.Identifier(function), given), arguments)
    except psycopg.Error as error:
        if (error.sqlstate or "XX")[:2] in ("XX", "42") and error.sqlstate not in REFUSALS:
            raise
        return False
    return True


REFUSALS = {"42704"}  # a role that does not exist


def test_what_was_passed_is_what_is_read(granted: Database) -> None:
    conn = granted.connect()
    for text in HOSTILE.values():
        name = text[:200]
        conn.execute("select perdure.put_workflow(%s, %s)", [name, name])
        run_id = start(conn, workflow=name, key=name, input=Jsonb({text: text}), tags=Jsonb({name[:50]: name}))
        assert scalar(conn, "signal", run_id=run_id, name=name, payload=Jsonb([text]), id=name) == "accepted"
        assert act(conn, "pause", run_id, reason=text) in ("accepted", "duplicate")
        drain(conn)
        row = conn.execute(
            "select workflow, queue, key, input, pause_reason from perdure.runs where run_id = %s", [run_id]
        ).fetchone()
        assert row == (name, name, name, {text: text}, text)
        assert conn.execute("select name, payload, id from perdure.signals where run_id = %s", [run_id]).fetchone() == (
            name,
            [text],
            name,
        )
        assert call(conn, "find_run", workflow=name, key=name)[0]["find_run"] == run_id


# -- terminals, logs, shells


def test_text_of_others_is_one_line_that_steers_nothing() -> None:
    steering = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0x9B, 0x2028, 0x202E, 0x2066, 0x200F]))
    assert visible(steering).isprintable()
    assert visible("Grüße, 世界 🎉 \\") == "Grüße, 世界 🎉 \\"
    assert visible("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert visible_lines("a\nerror: b\r") == "a\n  error: b\\r"
    text = json.dumps({"a": steering}, ensure_ascii=False)
    assert json.loads(visible_json(text)) == {"a": steering}
    assert "\x9b" not in visible_json(text)


def test_a_message_of_the_driver_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "perdure"):
        logging.getLogger("perdure").warning("run %s is paused: %s", 7, "x\n00:00 ERROR forged \x1b[31m")
    assert caplog.messages == ["run 7 is paused: x\\n00:00 ERROR forged \\x1b[31m"]

    class Untellable(Exception):
        def __str__(self) -> str:
            raise ValueError

    record = logging.LogRecord("perdure", logging.INFO, "", 0, "it fails: %s", (Untellable(),), None)
    assert one_line(record)


def test_nothing_that_the_command_line_prints_steers_a_terminal_or_fakes_a_line(granted: Database) -> None:
    conn = granted.connect()
    text = HOSTILE["terminal"]
    conn.execute("select perdure.put_workflow(%s, %s)", [text, text])
    run_id = start(conn, workflow=text, key=text, input=Jsonb({text: text}), tags=Jsonb({text: text}))
    call(conn, "signal", run_id=run_id, name=text, payload=Jsonb(text))
    failed = start(conn, workflow=text)
    worker_id = scalar(conn, "register_worker", queues=[text], workflows=[text], name=text, version=text)
    for row in call(conn, "claim_runs", worker_id=worker_id, max_runs=2):
        named = {"run_id": str(row["run_id"]), "claim": str(row["claim"])}
        save = {"key": text, "kind": "step", "ordinal": 1, "result": text}
        if row["run_id"] == failed:
            call(
                conn,
                "fail_runs",
                worker_id=worker_id,
                ends=[named | {"error": {"type": text, "message": text, "step": text}, "saves": [save]}],
            )
        else:
            call(conn, "release_runs", worker_id=worker_id, releases=[named | {"saves": [save], "pause_reason": text}])
    for words in (
        ("runs",), ("runs", "--json"), ("show", run_id), ("show", run_id, "--all"), ("show", run_id, "--json"), ("explain", run_id),
        ("show", failed), ("show", failed, "--all"), ("explain", failed), ("explain", failed, "--json"), ("doctor",),
        ("start", text), ("start", "no such " + text), ("signal", run_id, text), ("runs", "--state", text), ("resume", text),
        ("start", text, "--key", text, "--wait"),
    ):  # fmt: skip
        if "--wait" in words:
            conn.execute("select perdure.terminate(%s, %s)", [run_id, text])
            drain(conn)
        said = CliRunner().invoke(
            cli, [*map(str, words)], env={"PERDURE_DSN": granted.dsn(), "PERDURE_SCHEMA": "perdure"}
        )
        printed = said.stdout + said.stderr
        assert printed, words
        steering = {char for char in printed if not char.isprintable()} - {"\n"}
        assert steering == set(), words
        assert [line for line in printed.splitlines() if line.startswith(("00:00:00", "\\r"))] == [], words


@pytest.mark.parametrize("queue", [HOSTILE["a shell"], HOSTILE["quotes"], "plain-queue.1", "a b\nc"])
def test_a_queue_in_a_command_to_be_typed_is_one_word_of_it(granted: Database, queue: str) -> None:
    conn = granted.connect()
    conn.execute("select perdure.put_workflow('order', %s)", [queue])
    run_id = start(conn)
    [line] = [
        line
        for (line,) in granted.connect(role_of("observer")).execute("select * from perdure.explain(%s)", [run_id])
        if "--queues" in line
    ]
    command = line.partition("Start one: ")[2]
    assert shlex.split(command) == ["perdure", "worker", "MODULE:APP", "--queues", queue]
    granted.admin.execute("update perdure.dispatch set ready_at = '2000-01-01'")
    said = CliRunner().invoke(
        cli, ["doctor", "--json"], env={"PERDURE_DSN": granted.dsn(), "PERDURE_SCHEMA": "perdure"}
    )
    advice = [finding["advice"] for finding in json.loads(said.stdout) if "--queues" in (finding["advice"] or "")]
    assert [shlex.split(each.partition(": ")[2])[-1] for each in advice] == [queue]
