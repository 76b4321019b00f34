"""The single checks of doctor: each looks at one thing and says what it found and what to do.

What a run may do is for the database to judge; what is judged here is the installation around it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import psycopg

from perdure import _install
from perdure.cli import statements
from perdure.cli.output import duration
from perdure.cli.session import Session


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `advice` is there unless all is well."""

    level: Literal["ok", "skipped", "warning", "wrong"]
    about: str
    says: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """What doctor wants to know of a row of the view workers."""

    name: str
    is_alive: bool
    beat_age: timedelta
    lease: timedelta
    runs: int
    disagreements: int
    queues: list[str]


@dataclass(frozen=True, slots=True)
class CronJob:
    """A job of pg_cron, with its last run."""

    schedule: str
    active: bool
    username: str
    status: str | None
    return_message: str | None
    age: timedelta | None
    failures: int


_PATIENCE = 5
"""Seconds for what reads all tables."""

_SAYS = {
    "no_worker_takes_the_queue": "in a queue that no live worker takes",
    "no_worker_knows_the_workflow": "of a workflow that no live worker knows",
    "worker_is_silent": "in the hands of a silent worker",
    "suspect": "suspected to kill workers",
}
_STUCK = {
    "paused": ("warning", "Why, and what has to be done before they are resumed: perdure explain {run}"),
    "held": ("warning", "They wait for the end of the hold, see above."),
    "no_worker_takes_the_queue": ("wrong", "Start a worker: perdure worker MODULE:APP --queues {queues}"),
    "no_worker_knows_the_workflow": (
        "wrong",
        "Deploy a worker that has {workflows}, or stop the runs: perdure terminate {run}",
    ),
    "worker_is_silent": ("wrong", "The next tick takes them back; at once, in psql: select {schema}.recover();"),
    "suspect": ("warning", "They are tried one by one; look at the first: perdure show {run}"),
    "ready_for_long": (
        "wrong",
        "The workers are at their limits: start more of them, or raise --max-runs and --max-steps.",
    ),
}


def server(db: Session) -> Iterator[Finding]:
    """Version, standby, isolation, read-only sessions, pooler."""
    row = db.row(statements.SERVER)
    assert row is not None
    version, number, is_standby, backend, isolation, is_read_only = row
    if number < 150000:
        yield Finding(
            "wrong",
            "server",
            f"PostgreSQL {version} is too old",
            "Perdure needs PostgreSQL 15 or later: upgrade the server.",
        )
    elif is_standby:
        yield Finding(
            "wrong",
            "server",
            f"this PostgreSQL {version} is a standby",
            "Connect to the primary: nothing can be written here.",
        )
    else:
        yield Finding("ok", "server", f"PostgreSQL {version}, database {db.database}")
    if isolation != "read committed":
        yield Finding(
            "warning", "isolation",
            f"transactions begin as {isolation} here, a worker's functions called by hand insist on read committed",
            "Workers and ticks see to it themselves. Clients' own transactions may be told to try again (40001). In psql:"
            f" alter role {db.conn.info.user} set default_transaction_isolation = 'read committed';",
        )  # fmt: skip
    if is_read_only:
        role, database = db.conn.info.user, db.database
        yield Finding(
            "wrong", "read only", f"transactions of role {role} in database {database} begin as read-only, so nothing can be saved",
            f"In psql, one of: alter role {role} reset default_transaction_read_only; alter database {database} reset"
            " default_transaction_read_only; alter system reset default_transaction_read_only;",
        )  # fmt: skip
    if backend != db.conn.info.backend_pid:
        yield Finding(
            "warning", "pooler", "this connection goes through a pooler",
            "It works, by polling; give workers a direct connection, and a death is seen within 2 s instead of after the lease.",
        )  # fmt: skip


def installation(found: _install.Installation) -> Iterator[Finding]:
    """What is installed, against this package."""
    packaged = _install.packaged_version()
    where = f'schema "{found.schema}" of role {found.owner}'
    if found.version is None:
        yield Finding("warning", "schema", f"{where}: its version is not for this role to see", "See rights, below.")
    elif found.tables_version not in (None, found.version):
        yield Finding(
            "wrong", "schema", f"{where} has functions of {found.version} and tables of {found.tables_version}",
            "An upgrade stopped half-way: run it again.",
        )  # fmt: skip
    elif found.version != packaged:
        yield Finding(
            "wrong", "schema", f"{where} has Perdure {found.version}, this package is {packaged}",
            f"Run the upgrade to {packaged} in the database, or: pip install perdure=={found.version}",
        )  # fmt: skip
    else:
        yield Finding("ok", "schema", f"Perdure {found.version} in {where}")


def rights(db: Session) -> tuple[list[str], Finding]:
    """What the connecting role may do; the kinds, and the finding."""
    role, schema = db.conn.info.user, db.target.schema
    kinds = [kind for (kind,) in db.rows(statements.RIGHTS, schema=schema)]
    grant = f"Its owner can give more: select {schema}.grant_role('{role}', 'observer');"
    if not kinds:
        return kinds, Finding("wrong", "rights", f"role {role} may do nothing here", grant)
    if "observer" not in kinds:
        return kinds, Finding(
            "warning", "rights", f"role {role} may: {', '.join(kinds)}; not look, so the rest is not examined", grant
        )
    return kinds, Finding("ok", "rights", f"role {role} may: {', '.join(kinds)}")


def hold(db: Session) -> Iterator[Finding]:
    """Whether the installation waits to be adopted."""
    if (row := db.row(statements.HOLDS)) is None:
        yield Finding("ok", "hold", "the installation is not on hold")
        return
    reason, held_at, held_by = row
    since = "" if held_at is None else f" since {held_at:%Y-%m-%d %H:%M:%S %Z}, by {held_by}"
    yield Finding(
        "wrong", "hold", f"the installation is on hold{since}: {reason}",
        f"See what may have gone on elsewhere ({db.target.schema}.at_risk() lists it), then: perdure adopt",
    )  # fmt: skip


def failover(db: Session) -> Iterator[Finding]:
    """Whether the server has come to another timeline since the installation was made; told of as a warning for a day."""
    if (row := db.row(statements.FAILOVER)) is None:
        return
    timeline, age = row
    says = f"the server failed over or was restored {duration(age)} ago, it is on timeline {timeline} now"
    if age > timedelta(days=1):
        yield Finding("ok", "failover", says)
        return
    yield Finding(
        "warning", "failover", says,
        "What was acknowledged just before may be lost, unless the standby was synchronous: compare with what you know of"
        " effects outside.",
    )  # fmt: skip


def workers(found: list[Worker], schema: str) -> Iterator[Finding]:
    """Who is alive, who is silent, who has lost count."""
    alive = [worker for worker in found if worker.is_alive]
    if alive:
        queues = sorted({queue for worker in alive for queue in worker.queues})
        held = sum(worker.runs for worker in alive)
        yield Finding(
            "ok",
            "workers",
            f"{counted(len(alive), 'live worker')} of {counted(len(queues), 'queue')}, {counted(held, 'run')} in hand",
        )
    elif not found:
        yield Finding("warning", "workers", "no worker is registered, so runs wait", "perdure worker MODULE:APP")
    for worker in found:
        silence = f"worker {worker.name} has been silent for {duration(worker.beat_age)}"
        if not worker.is_alive:
            yield Finding(
                "wrong", "workers", f"{silence}, longer than its lease of {duration(worker.lease)}; it holds {counted(worker.runs, 'run')}",
                f"Nobody has declared it dead, so nobody ticks: start a worker, or in psql: select {schema}.tick();",
            )  # fmt: skip
        elif worker.beat_age > timedelta(seconds=5):
            yield Finding(
                "warning", "workers", f"{silence}; it beats each second as a rule",
                "Its process is frozen, or cannot reach the server; it is declared dead after "
                f"{duration(worker.lease)}.",
            )  # fmt: skip
        if worker.disagreements >= 10:
            yield Finding(
                "warning", "workers", f"worker {worker.name} has disagreed about what it holds for {worker.disagreements} beats",
                "Restart it; that burns no attempt.",
            )  # fmt: skip


def ticks(db: Session, is_worker_alive: bool) -> Iterator[Finding]:
    """Whether anybody does the housekeeping: pg_cron, or a live worker; and whether it gets done."""
    found = dict(db.rows(statements.TICKS))
    is_ticked = is_worker_alive or found.get("perdure_last_tick_age_seconds", float("inf")) < 10
    by_cron = list(cron(db, is_ticked))
    yield from by_cron
    waiting, age = int(found.get("perdure_undrained_wakes", 0)), found.get("perdure_oldest_wake_age_seconds", 0.0)
    if age > 10:
        yield Finding(
            "wrong", "ticks", f"{counted(waiting, 'message')} to runs not looked at for {duration(timedelta(seconds=age))}",
            f"Nobody ticks: start a worker or schedule pg_cron. By hand, in psql: select {db.target.schema}.tick();",
        )  # fmt: skip
    elif is_ticked or any(finding.level == "ok" and finding.about == "cron" for finding in by_cron):
        yield Finding("ok", "ticks", "what runs are told is looked at in time")


def periods(db: Session) -> Iterator[Finding]:
    """Whether partitions are made ahead and dropped in time."""
    rows = db.rows(statements.PERIODS)
    ages = {name: age for name, age, _, _ in rows}
    _, _, waits, count = rows[0]
    overdue, uncut = ages["perdure_retention_overdue_seconds"], ages["perdure_last_period_age_seconds"]
    schema = db.target.schema
    if uncut > timedelta(0):
        yield Finding(
            "warning", "retention", f"no partition was made ahead, the last one has been in use for {duration(uncut)}",
            "Somebody has to tick, and no transaction that stays open may be in the way of it (pg_stat_activity). By hand,"
            f" in psql: call {schema}.run_ticks(0);",
        )  # fmt: skip
    elif overdue > timedelta(days=1):
        yield Finding(
            "warning", "retention", f"a period that was to be dropped {duration(overdue)} ago is still there{': ' if waits else ''}{waits or ''}",
            f"See the view {schema}.periods: it goes once fewer of its runs are unfinished."
            if waits
            else "Some transaction that stays open is in the way (pg_stat_activity), or nobody ticks."
            f" By hand, in psql: call {schema}.run_ticks(0);",
        )  # fmt: skip
    else:
        yield Finding("ok", "retention", f"{counted(count, 'partition')} of each table, dropped in time")


def cron(db: Session, is_ticked: bool) -> Iterator[Finding]:
    """pg_cron: there, scheduled, running, succeeding."""
    place = db.row(statements.CRON_PLACE)
    assert place is not None
    is_here, may_use = place
    home = _cron_home(db)
    level: Literal["warning", "wrong"] = "warning" if is_ticked else "wrong"
    meanwhile = "somebody else ticks" if is_ticked else "and no worker is alive, so nobody ticks"
    schema, role = db.target.schema, db.conn.info.user
    if not is_here and home is None:
        if is_ticked:
            yield Finding("ok", "cron", f"pg_cron is not loaded; {meanwhile}")
        else:
            yield Finding(
                "wrong", "cron", f"pg_cron is not loaded {meanwhile}",
                f"Start a worker, or run each minute: psql -c 'call {schema}.run_ticks()'",
            )  # fmt: skip
    elif not is_here:
        yield Finding(
            "ok" if is_ticked else "warning", "cron", f"pg_cron lives in {home}, out of sight; {meanwhile.removeprefix('and ')}",
            None if is_ticked else f"In psql: select {schema}.enable_cron(); prints what to run there.",
        )  # fmt: skip
    elif not may_use:
        yield Finding(
            level, "cron", f"role {role} may not look at pg_cron; {meanwhile.removeprefix('and ')}",
            f"As a superuser: grant usage on schema cron to {role};",
        )  # fmt: skip
    else:
        jobs = db.records(CronJob, statements.CRON_JOB, name=f"{schema}.tick@{db.database}")
        if not jobs:
            yield Finding(
                level, "cron", f"pg_cron is here, but role {role} sees no job that ticks; {meanwhile.removeprefix('and ')}",
                f"In psql: select {schema}.enable_cron();",
            )  # fmt: skip
        for job in jobs:
            yield _job(job, schema)


def _cron_home(db: Session) -> str | None:
    """Where pg_cron lives; None where it is not loaded."""
    try:
        name = db.value(statements.CRON_HOME)
    except psycopg.errors.InsufficientPrivilege:  # it is loaded, but only a superuser may see where it lives
        return "another database"
    return None if name is None else f"database {name}"


def _job(job: CronJob, schema: str) -> Finding:
    what = f"the job of role {job.username} ({job.schedule})"
    again = f"In psql, select {schema}.enable_cron(); schedules it anew."
    if not job.active:
        return Finding("wrong", "cron", f"{what} is switched off", again)
    if job.age is None:
        return Finding(
            "warning",
            "cron",
            f"{what} has not run yet",
            "Look again in a minute; else see whether pg_cron's launcher runs.",
        )
    if job.status == "failed":
        said = " ".join((job.return_message or "no reason given").split())
        return Finding("wrong", "cron", f"{what} failed {duration(job.age)} ago: {said}", f"Cure what it says; {again}")
    if job.age > timedelta(minutes=3):
        return Finding(
            "wrong", "cron", f"{what} ran last {duration(job.age)} ago",
            "pg_cron's launcher does not run, or has no background worker free: see max_worker_processes and the server's log.",
        )  # fmt: skip
    if job.failures:
        return Finding(
            "warning",
            "cron",
            f"{what} failed {job.failures} times within the hour, not the last time",
            "See cron.job_run_details.",
        )
    return Finding("ok", "cron", f"{what} ran {duration(job.age)} ago")


def stuck(db: Session) -> Iterator[Finding]:
    """Runs that nobody will take as things are."""
    found = db.rows(statements.STUCK)
    for reason, count, age, queues, workflows, run in found:
        level, advice = _STUCK.get(reason, ("warning", "perdure explain {run}"))
        where = f"workflow {', '.join(workflows)}" if "workflow" in reason else f"queue {', '.join(queues)}"
        yield Finding(
            "wrong" if level == "wrong" else "warning",
            "runs",
            f"{counted(count, 'run')} {_SAYS.get(reason, reason.replace('_', ' '))} for {duration(age)} ({where})",
            advice.format(
                run=run, queues=shlex.quote(",".join(queues)), workflows=", ".join(workflows), schema=db.target.schema
            ),
        )
    if not found:
        yield Finding("ok", "runs", "none is stuck")


def violations(db: Session, *, is_thorough: bool) -> Iterator[Finding]:
    """Broken invariants: never there, unless somebody wrote into the tables or Perdure has a bug."""
    try:
        with db.conn.transaction():
            if not is_thorough:
                db.row(statements.LIMIT_TIME, seconds=_PATIENCE)
            found = db.rows(statements.BROKEN)
    except psycopg.errors.QueryCanceled:
        yield Finding(
            "skipped", "invariants", f"not examined: here it takes more than {_PATIENCE} s to read all tables",
            "perdure doctor --thorough",
        )  # fmt: skip
        return
    for invariant, count, run, detail in found:
        of_run = f"run {run}: " if run else ""
        yield Finding(
            "wrong", "invariants", f"{invariant.replace('_', ' ')}: broken {counted(count, 'time')} ({of_run}{detail})",
            f"A tick mends it, in psql: select {db.target.schema}.tick();"
            if "does anybody tick" in detail
            else f"Read the view {db.target.schema}.violations: somebody wrote into the tables, or it is a bug; please report it.",
        )  # fmt: skip
    if not found:
        yield Finding("ok", "invariants", "all hold")


def counted(number: int, thing: str) -> str:
    """So many things, in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
