"""A payload is shown to who may read payloads: not in errors, logs, the list of sessions, or what a person pastes into a report."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

import perdure
from perdure import _connect
from perdure.cli.root import cli
from support.aio import until
from support.database import PASSWORD, Database
from support.engine import Connection, Worker, act, call, drain, scalar, start

SECRET = "s3cr3t-payload"
DSN_SECRET = "s3cr3t-password"
TOLD = perdure.Signal("told", str)
SHOWN = perdure.Value("shown", str)


@pytest.fixture
def logged(own_database: Database) -> Database:
    """A server that logs every statement, without parameters, as an auditor may have set it."""
    for setting in (
        "log_min_duration_statement = 0",
        "log_parameter_max_length = 0",
        "log_parameter_max_length_on_error = 0",
    ):
        own_database.admin.execute(f"alter database {own_database.name} set {setting}")  # type: ignore[arg-type]
    return own_database


def log_of(database: Database) -> str:
    return database.server.server.log.read_text(errors="replace")


async def test_a_payload_is_in_no_log_and_no_list_of_sessions_while_a_run_lives(
    logged: Database, caplog: pytest.LogCaptureFixture
) -> None:
    app = perdure.App(logged.dsn())
    shown: list[str] = []

    async def keep(text: str) -> str:
        perdure.current_step().progress({"at": SECRET})
        heard = "select bool_or(b.activity::text like %s) from perdure.worker_beat as b"
        await until(lambda: bool(logged.value(heard, f"%{SECRET}%")), seconds=60)  # a beat has told it
        return text + SECRET

    async def stumble(text: str) -> str:
        raise ValueError("no")

    @app.workflow()
    async def order(run: perdure.AsyncRun, text: str) -> str:
        shown.extend((repr(run), str(run)))
        await run.set_value(SHOWN, text)
        kept = await run.step(keep, text)
        try:
            await run.step(stumble, text, retry=perdure.Retry(max_attempts=1))
        except perdure.Error as error:
            shown.extend((repr(error), str(error)))
        told = await run.wait_signal(TOLD)
        return kept + told

    with caplog.at_level(logging.DEBUG):
        async with app.worker() as worker:
            handle = await app.start(order, SECRET, tags={"kind": SECRET})
            with pytest.raises(perdure.Error) as waited:
                await handle.result(timeout=timedelta(milliseconds=50))
            await until(lambda: logged.value("select count(*) = 1 from perdure.waits"), seconds=60)
            shown.append(await handle.explain())
            await handle.signal(TOLD, SECRET)
            assert SECRET in await handle.result(timeout=timedelta(seconds=60))
            sessions = logged.admin.execute("select query, application_name from pg_stat_activity").fetchall()
            shown += [repr(each) for each in (handle, app, worker, waited.value, order, TOLD, SHOWN)]
    assert any("perdure." in query for query, _ in sessions)
    assert SECRET not in repr(sessions)
    assert SECRET not in "\n".join(shown)
    assert SECRET not in caplog.text
    said = log_of(logged)
    assert "complete_runs" in said
    assert SECRET not in said


def test_no_refusal_tells_a_payload_to_the_caller_or_the_log(logged: Database) -> None:
    conn = logged.connect()
    conn.execute("select perdure.put_workflow('order')")
    payload = {"card": SECRET}
    run_id = start(conn, key="k", input=Jsonb(payload))
    ended = start(conn)
    act(conn, "terminate", ended)
    drain(conn)
    worker = Worker(logged, conn=conn)
    held = worker.claim_one()
    worker.save(held, "a", payload)
    of_run = held.named(result=payload)
    lost = of_run | {"claim": str(uuid4())}
    bad_save = held.save("b", payload, fingerprint="no")
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("start", {"workflow": "no such", "input": Jsonb(payload)}),
        ("start", {"workflow": "order", "input": Jsonb(payload), "priority": 9}),
        ("start", {"workflow": "order", "input": Jsonb(payload), "tags": Jsonb([SECRET])}),
        ("start", {"workflow": "order", "input": Jsonb(payload), "headers": Jsonb([SECRET])}),
        ("start", {"workflow": "order", "input": Jsonb(payload), "tags": Jsonb({"a": {"b": SECRET}})}),
        ("start", {"workflow": "order", "input": Jsonb({"other": SECRET}), "key": "k", "on_duplicate": "error"}),
        ("start", {"workflow": "order", "input": Jsonb({"other": SECRET}), "key": "k"}),
        ("start", {"workflow": "order", "input": Jsonb(payload), "queue": " "}),
        ("start", {"workflow": "order", "input": Jsonb({"big": SECRET * 5000}), "delay": "-1 second"}),
        ("start_many", {"workflow": "order", "inputs": [Jsonb(payload)], "keys": ["a", "b"]}),
        ("signal", {"run_id": run_id, "name": " ", "payload": Jsonb(payload)}),
        ("signal_key", {"workflow": "order", "key": "none", "name": "", "payload": Jsonb(payload)}),
        ("result", {"run_id": run_id}),
        ("save_steps", {"worker_id": worker.worker_id, "saves": [held.named(**bad_save)]}),
        ("save_steps", {"worker_id": worker.worker_id, "saves": [held.named(key="c", result=payload)]}),
        ("save_steps", {"worker_id": uuid4(), "saves": [held.named(**held.save("c", payload))]}),
        ("save_transaction_step", {"worker_id": worker.worker_id, "save": lost | held.save("d", payload, kind="transaction")}),
        ("fail_steps", {"worker_id": worker.worker_id, "tries": [held.named(key="e", attempt=0, error=payload)]}),
        ("suspend_runs", {"worker_id": worker.worker_id, "suspensions": [held.named(waits=[{"key": ""}], saves=[held.save("f", payload)])]}),
        ("complete_runs", {"worker_id": worker.worker_id, "ends": [of_run, lost]}),
        ("fail_runs", {"worker_id": worker.worker_id, "ends": [held.named(error=payload), lost]}),
        ("beat", {"worker_id": uuid4(), "activity": [{"progress": SECRET}]}),
        ("put_setting", {"name": "no such", "value": Jsonb(payload)}),
    ]  # fmt: skip
    call(conn, "put_setting", name="payload_hard_limit", value=Jsonb(2000))
    big = {"big": SECRET + "".join(map(str, range(3000)))}
    refusals += [
        ("start", {"workflow": "order", "input": Jsonb(big)}),
        ("signal", {"run_id": run_id, "name": "told", "payload": Jsonb(big)}),
        ("save_steps", {"worker_id": worker.worker_id, "saves": [held.named(**held.save("g", big))]}),
        ("complete_runs", {"worker_id": worker.worker_id, "ends": [held.named(result=big)]}),
        ("fail_runs", {"worker_id": worker.worker_id, "ends": [held.named(error=big)]}),
    ]
    told = [(function, refusal(conn, function, arguments)) for function, arguments in refusals]
    assert [function for function, said in told if said is not None and SECRET in said] == []
    assert sum(said is not None for _, said in told) >= len(refusals) - 3, "what is let in tests nothing"
    assert SECRET not in log_of(logged)


def refusal(conn: Connection, function: str, arguments: dict[str, Any]) -> str | None:
    """All that an error carries; None where there is none."""
    try:
        call(conn, function, **arguments)
    except psycopg.Error as error:
        diag = error.diag
        return repr((str(error), error, diag.message_detail, diag.message_hint, diag.context, diag.internal_query))
    return None


def test_the_command_line_shows_payloads_where_it_is_asked_for_them_only(logged: Database) -> None:
    conn = logged.connect()
    conn.execute("select perdure.put_workflow('order')")

    def type_in(*words: object, input: str | None = None) -> str:
        said = CliRunner().invoke(
            cli, list(map(str, words)), input=input, env={"PERDURE_DSN": logged.dsn(), "PERDURE_SCHEMA": "perdure"}
        )
        return said.stdout + said.stderr

    run_id = type_in("start", "order", "-", "--tag", f"kind={SECRET}", input=f'"{SECRET}"').strip()
    hidden = [
        type_in("signal", run_id, "told", f'"{SECRET}"'),
        type_in("start", "no such", f'"{SECRET}"'),
        type_in("start", "order", f'{{"{SECRET}"'),
        type_in("runs"),
        type_in("explain", run_id),
        type_in("doctor"),
        type_in("doctor", "--json"),
        type_in("pause", run_id),
    ]
    # what a person asks to see of one run
    assert SECRET in type_in("show", run_id)
    assert [text for text in hidden if SECRET in text] == []
    assert SECRET not in log_of(logged)


def test_the_views_that_show_payloads_to_an_observer_are_these(database: Database) -> None:
    """Written down as it is: whoever gets the kind observer reads them."""
    columns = database.admin.execute(
        "select c.relname || '.' || a.attname from pg_class as c join pg_attribute as a on a.attrelid = c.oid"
        " where c.relnamespace = 'perdure'::regnamespace and c.relkind = 'v' and c.relname !~ '^_' and a.atttypid = 'jsonb'::regtype"
        " order by 1"
    ).fetchall()
    assert " ".join(name for (name,) in columns) == SHOWN_TO_OBSERVERS


SHOWN_TO_OBSERVERS = (
    "history.detail metrics.labels runs.error runs.headers runs.input runs.result runs.tags settings.value"
    " signals.payload steps.error steps.result workers.activity"
)


async def test_a_password_is_in_no_repr_no_error_and_no_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = make_conninfo(database.dsn(), password=DSN_SECRET)
    nowhere = make_conninfo(dsn, host="/nonexistent", port=1, connect_timeout=2)
    with caplog.at_level(logging.DEBUG):
        app = perdure.App(nowhere)
        shown = [repr(app), str(app)]
        with pytest.raises(Exception) as caught:
            await asyncio.wait_for(app.register(), 30)
        shown += [repr(caught.value), str(caught.value)]
        for name in dir(_connect):
            kind = getattr(_connect, name)
            if isinstance(kind, type) and name.endswith("Connector"):
                shown.append(repr(kind(dsn, "name")))
    said = CliRunner().invoke(cli, ["doctor", "--dsn", nowhere])
    shown += [said.stdout, said.stderr]
    said = CliRunner().invoke(cli, ["doctor"], env={"PERDURE_DSN": dsn, "PERDURE_SCHEMA": "perdure"})
    shown += [said.stdout, said.stderr]
    assert DSN_SECRET not in "\n".join(shown)
    assert DSN_SECRET not in caplog.text
    assert conninfo_to_dict(dsn)["password"] == DSN_SECRET != PASSWORD
    assert scalar(database.connect(), "version")
