"""`doctor` finds what is wrong and says what to do; exit code 1 is for what is wrong alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from perdure.cli import checks
from support import provision
from support.database import FORGETFUL, Database, PostgresServer, private_server, remove
from support.engine import Worker, scalar

from .conftest import Shell
from .pooler import pooler


def found(perdure: Shell, *words: str, code: int) -> dict[str, dict[str, Any]]:
    """The worst finding about each thing."""
    said = perdure("doctor", "--json", *words)
    assert said.code == code, said.out + said.err
    levels = ["ok", "skipped", "warning", "wrong"]
    return {f["about"]: f for f in sorted(said.json, key=lambda f: levels.index(f["level"]))}


def test_all_is_well_with_a_live_worker(perdure: Shell, order: str, worker: Worker) -> None:
    said = perdure("doctor")
    assert said.code == 0, said.out
    assert all(line.startswith(("ok", " ")) for line in said.lines), said.out
    assert all(len(line) <= 80 for line in said.lines)
    assert "1 live worker" in said.out


def test_an_installation_on_hold_is_wrong(perdure: Shell, database: Database, order: str, worker: Worker) -> None:
    perdure("start", order)
    database.connect().execute("select perdure.hold('restored from tape')")
    findings = found(perdure, code=1)
    assert findings["hold"]["level"] == "wrong"
    assert "restored from tape" in findings["hold"]["says"]
    assert findings["hold"]["advice"].endswith("perdure adopt")


def test_nobody_who_ticks_is_wrong(perdure: Shell, order: str) -> None:
    findings = found(perdure, code=1)
    assert findings["workers"]["level"] == "warning"
    assert findings["cron"]["level"] == "wrong"
    assert "nobody ticks" in findings["cron"]["says"]
    assert "run_ticks()" in findings["cron"]["advice"]


def test_messages_that_nobody_looks_at_are_wrong(perdure: Shell, database: Database, order: str) -> None:
    run = perdure("start", order).out.strip()
    perdure("signal", run, "paid")
    database.clock.advance(minutes=2)
    findings = found(perdure, code=1)
    assert "1 message to runs not looked at for 2 m" in findings["ticks"]["says"]
    assert "select perdure.tick();" in findings["ticks"]["advice"]
    assert "A tick mends it" in findings["invariants"]["advice"]


def test_a_silent_worker_is_told_before_and_after_its_lease(
    perdure: Shell, database: Database, order: str, worker: Worker
) -> None:
    perdure("start", order)
    worker.claim_one()
    database.clock.stop()
    database.clock.advance(seconds=10)
    findings = found(perdure, code=0)
    assert "worker by hand has been silent for 1" in findings["workers"]["says"]
    database.clock.advance(seconds=50)
    findings = found(perdure, code=1)
    assert "longer than its lease of 30 s; it holds 1 run" in findings["workers"]["says"]
    assert "1 run in the hands of a silent worker for" in findings["runs"]["says"]


def test_runs_in_a_queue_that_no_worker_takes_are_wrong(
    perdure: Shell, database: Database, order: str, worker: Worker
) -> None:
    database.connect().execute("select perdure.put_queue('reports')")
    perdure("start", order, "--queue", "reports")
    findings = found(perdure, code=1)
    assert "1 run in a queue that no live worker takes for" in findings["runs"]["says"]
    assert "--queues reports" in findings["runs"]["advice"]


def test_runs_of_a_workflow_that_no_worker_knows_are_wrong(perdure: Shell, database: Database, worker: Worker) -> None:
    database.connect().execute("select perdure.put_workflow('bill')")
    perdure("start", "bill")
    assert "(workflow bill)" in found(perdure, code=1)["runs"]["says"]


def test_a_paused_run_is_a_warning(perdure: Shell, order: str, worker: Worker) -> None:
    run = perdure("start", order).out.strip()
    perdure("pause", run)
    scalar(worker.conn, "tick")
    findings = found(perdure, code=0)
    assert findings["runs"]["level"] == "warning"
    assert findings["runs"]["advice"].endswith(f"perdure explain {run}")
    assert f"perdure.resume('{run}')" in perdure("explain", run).out


def test_a_queue_that_no_worker_takes_is_told_before_anything_is_due_in_it(
    perdure: Shell, database: Database, order: str, worker: Worker
) -> None:
    assert "no live worker" not in found(perdure, code=0)["workers"]["says"]
    scalar(database.connect(), "put_workflow", name="report", queue="monthly reports")
    findings = found(perdure, code=0)
    assert findings["workers"]["level"] == "warning"
    assert findings["workers"]["says"] == (
        "no live worker takes from queue monthly reports: the home of workflow report"
    )
    assert findings["workers"]["advice"] == "perdure worker MODULE:APP --queues 'monthly reports'"
    perdure("start", "report", "--delay", "1 day")
    assert "1 unfinished run and the home of workflow report" in found(perdure, code=0)["workers"]["says"]
    Worker(database, queues=["monthly reports"], workflows=["report"])
    assert findings.keys() - found(perdure, code=0).keys() == set()
    assert found(perdure, code=0)["workers"]["level"] == "ok"


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
def test_whether_workers_are_told_of_work_is_said_where_they_are_not(
    perdure: Shell, database: Database, order: str, worker: Worker, mode: str
) -> None:
    assert "notify" not in found(perdure, code=0)
    database.connect().execute("select perdure.put_setting('notify', to_jsonb(%s::text))", [mode])
    told = found(perdure, code=0).get("notify")
    if mode == "never":
        assert told is not None and told["level"] == "ok"
        assert "the setting notify is never, so nobody is told of work" in told["says"]
    else:
        assert told is None


@pytest.mark.slow
def test_a_server_whose_transactions_can_be_prepared_is_a_warning_that_can_be_ended(
    tmp_path: Path, prefix: str
) -> None:
    binaries = provision.own_binaries()
    assert binaries is not None, "needs Postgres binaries on this machine"
    server = private_server(binaries, prefix, {**FORGETFUL, "max_prepared_transactions": "10"})
    try:
        warns_until_told(server.installed_database(), tmp_path)
    finally:
        remove(server)


def warns_until_told(database: Database, tmp_path: Path) -> None:
    """Doctor warns there, and both things that it proposes end the warning."""
    shell = Shell(tmp_path, database.dsn())
    told = found(shell, code=1)["notify"]
    assert told["level"] == "warning"
    assert "max_prepared_transactions is 10 and the setting notify is auto, so nobody is told of work" in told["says"]
    conn = database.connect()
    typed = re.search(r"select .*?;", told["advice"])
    assert typed is not None
    conn.execute(typed[0].encode())
    assert "notify" not in found(shell, code=1)
    conn.execute(typed[0].replace("always", "never").encode())
    assert found(shell, code=1)["notify"]["level"] == "ok"


def test_a_broken_invariant_is_wrong(perdure: Shell, database: Database, order: str, worker: Worker) -> None:
    run = perdure("start", order).out.strip()
    database.admin.execute("delete from perdure.dispatch")
    findings = found(perdure, code=1)
    assert "a run is unfinished or ended: broken 1 time" in findings["invariants"]["says"]
    assert run in findings["invariants"]["says"]


def test_invariants_that_take_long_are_left_to_a_thorough_look(
    perdure: Shell, database: Database, order: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_PATIENCE", 1)
    keeper = database.connect(database.superuser, autocommit=False)
    keeper.execute("lock table perdure.step_attempt in access exclusive mode")
    said = perdure("doctor")
    assert said.code == 0, said.out
    assert "skipped invariants not examined: here it takes more than 1 s" in " ".join(said.out.split())
    keeper.rollback()
    assert "not examined" not in perdure("doctor").out
    monkeypatch.setattr(checks, "_PATIENCE", 0.001)  # no time for anything
    assert "not examined" in perdure("doctor").out
    assert "all hold" in perdure("doctor", "--thorough").out


def test_another_version_is_wrong(perdure: Shell, database: Database, worker: Worker) -> None:
    database.connect().execute(
        "create or replace function perdure.version() returns text language sql immutable as $$ select '9.9.9' $$"
    )
    assert "functions of 9.9.9 and tables of" in found(perdure, code=1)["schema"]["says"]
    database.connect().execute("update perdure.install set version = '9.9.9'")
    findings = found(perdure, code=1)
    assert "has Perdure 9.9.9, this package is" in findings["schema"]["says"]
    assert "pip install perdure==9.9.9" in findings["schema"]["advice"]


def test_a_role_is_told_what_it_may(perdure: Shell, database: Database, worker: Worker) -> None:
    role = "perdure_test_patient"
    database.server.create_role(role)
    findings = found(perdure, "--dsn", database.dsn(role), code=1)
    assert findings["rights"]["says"] == f"role {role} may do nothing here"
    assert f"grant_role('{role}', 'observer')" in findings["rights"]["advice"]
    for kind in ("client", "observer"):
        database.connect().execute(f"select perdure.grant_role('{role}', '{kind}')".encode())
        findings = found(perdure, "--dsn", database.dsn(role), code=0)
        assert findings["rights"]["level"] == ("warning" if kind == "client" else "ok")
    assert findings["rights"]["says"] == f"role {role} may: client, observer"
    assert "invariants" in findings


def test_another_isolation_than_the_workers_is_a_warning(perdure: Shell, database: Database, worker: Worker) -> None:
    """Workers of the driver and ticks work all the same."""
    database.admin.execute(
        f"alter database {database.name} set default_transaction_isolation = 'serializable'".encode()
    )
    findings = found(perdure, code=0)
    assert findings["isolation"]["level"] == "warning"
    assert "serializable" in findings["isolation"]["says"]


@pytest.mark.parametrize("what", ["database {database}", "role {role}"])
def test_sessions_that_begin_read_only_are_wrong(perdure: Shell, database: Database, worker: Worker, what: str) -> None:
    database.server.create_role("perdure_test_reader")
    database.connect().execute("select perdure.grant_role('perdure_test_reader', 'observer')")
    whose = what.format(database=database.name, role="perdure_test_reader")
    database.admin.execute(f"alter {whose} set default_transaction_read_only = on".encode())
    try:
        findings = found(perdure, "--dsn", database.dsn("perdure_test_reader"), code=1)
    finally:
        database.admin.execute(f"alter {whose} reset default_transaction_read_only".encode())
    assert findings["read only"]["level"] == "wrong"
    assert f"alter {whose} reset default_transaction_read_only;" in findings["read only"]["advice"]


def test_a_failover_is_told_as_a_warning_for_a_day(perdure: Shell, database: Database, worker: Worker) -> None:
    assert "failover" not in found(perdure, code=0)
    database.admin.execute(
        "insert into perdure.timeline select 0, since - '1 year'::interval, calm_since, watched_since from perdure.timeline"
    )
    finding = found(perdure, code=0)["failover"]
    assert finding["level"] == "warning" and finding["says"].endswith("timeline 1 now")
    database.admin.execute("update perdure.timeline set since = since - '25 hours'::interval")
    finding = found(perdure, code=0)["failover"]
    assert finding["level"] == "ok" and "1 d" in finding["says"]


def test_a_pooler_is_noticed(perdure: Shell, database: Database, worker: Worker) -> None:
    with pooler(database.dsn()) as dsn:
        findings = found(perdure, "--dsn", dsn, code=0)
    assert findings["pooler"]["level"] == "warning"


@pytest.mark.cron
def test_cron_is_looked_at(tmp_path: Any, cron_server: PostgresServer, cron_database: Database) -> None:
    perdure = Shell(tmp_path, cron_database.dsn())
    findings = found(perdure, code=1)
    assert "no job that ticks" in findings["cron"]["says"]
    assert "enable_cron()" in findings["cron"]["advice"]

    cron_database.connect().execute("select perdure.enable_cron()")
    assert found(perdure, code=0)["cron"]["level"] in ("ok", "warning")  # a warning until it has run

    log = "insert into cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message, start_time, end_time)"
    cron_database.admin.execute(
        f"{log} select jobid, 1000000, 1, database, username, command, 'failed', 'ERROR: no such thing', now(), now() from cron.job where jobname ilike '%tick%'".encode()
    )
    findings = found(perdure, code=1)
    assert "ERROR: no such thing" in findings["cron"]["says"]
    cron_database.admin.execute(
        "update cron.job_run_details set status = 'succeeded', start_time = now() - interval '1 hour' where runid = 1000000"
    )
    assert "ran last 1 h" in found(perdure, code=1)["cron"]["says"]
    cron_database.admin.execute("update cron.job set active = false where jobname ilike '%tick%'")
    assert "switched off" in found(perdure, code=1)["cron"]["says"]


@pytest.mark.cron
def test_cron_in_another_database_is_told(tmp_path: Any, cron_server: PostgresServer, cron_database: Database) -> None:
    other = cron_server.installed_database()
    try:
        findings = found(Shell(tmp_path, other.dsn()), code=0)
        assert "out of sight" in findings["cron"]["says"]
        assert "enable_cron(); prints what to run there" in findings["cron"]["advice"]
    finally:
        other.drop()


def test_periods_that_nobody_makes_or_drops_are_told(
    perdure: Shell, database: Database, order: str, worker: Worker
) -> None:
    assert found(perdure, code=0)["retention"]["level"] == "ok"
    database.clock.stop()
    database.clock.advance(days=4)
    worker.beat()
    database.connect().execute("call perdure.run_ticks(0)")
    database.clock.advance(days=14)
    worker.beat()
    said = found(perdure, code=0)["retention"]
    assert said["level"] == "warning"
    assert "no partition was made ahead" in said["says"]
    user = database.connect(autocommit=False)
    user.execute("select perdure.start('order')")
    for _ in range(3):
        database.connect().execute("call perdure.run_ticks(0)")
    assert "pg_stat_activity" in found(perdure, code=0)["retention"]["advice"]
    user.commit()
    database.connect().execute("select perdure.rotate()")
    said = found(perdure, code=0)["retention"]
    assert said["level"] == "warning"
    assert "was to be dropped" in said["says"]
    for _ in range(3):
        database.connect().execute("select perdure.rotate()")
    assert found(perdure, code=0)["retention"]["level"] == "ok"
