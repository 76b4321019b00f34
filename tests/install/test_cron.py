"""enable_cron: the engine ticks although no worker is alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from psycopg import errors

from perdure import _install
from support.database import OWNER, Database, PostgresServer

JOBS = "select jobname, schedule, command, database, username, active from cron.job order by jobname"


@pytest.fixture
def elsewhere(cron_server: PostgresServer, cron_database: Database) -> Iterator[Database]:
    """A database with Perdure on the server with pg_cron, but not the one that pg_cron lives in."""
    made = cron_server.installed_database()
    yield made
    made.drop()


def test_without_pg_cron_it_says_what_to_do_instead(database: Database) -> None:
    if "pg_cron" in database.value("show shared_preload_libraries"):
        pytest.skip("this server has pg_cron")
    conn = database.connect()
    (said,) = conn.execute("select perdure.enable_cron()").fetchone() or ("",)
    assert "pg_cron is not loaded on this server, so nothing was scheduled" in said
    assert "call perdure.run_ticks()" in said
    (said,) = conn.execute("select perdure.disable_cron()").fetchone() or ("",)
    assert "pg_cron is not loaded" in said


@pytest.mark.parametrize("every", ["0", "-1 second", "99 ms", "61 minutes", "infinity"])
def test_other_intervals_are_refused(database: Database, every: str) -> None:
    if every == "infinity" and database.server.major < 17:
        pytest.skip("no infinite intervals before PostgreSQL 17")
    with pytest.raises(errors.InvalidParameterValue, match="cannot tick every"):
        database.connect().execute("select perdure.enable_cron(%s::interval)", [every])


def test_runners_of_sql_workflows_come_later(database: Database) -> None:
    with pytest.raises(errors.FeatureNotSupported, match="no SQL workflows"):
        database.connect().execute("select perdure.enable_cron(runners => 1)")


def test_a_role_without_login_would_have_jobs_that_fail_for_ever(database: Database) -> None:
    database.server.create_role("perdure_test_nologin", "nologin")
    database.connect().execute("select perdure.grant_role('perdure_test_nologin', 'admin')")
    conn = database.connect("postgres")
    conn.execute("set role perdure_test_nologin")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="may not log in"):
        conn.execute("select perdure.enable_cron()")


@pytest.mark.parametrize(
    ("every", "schedule", "slow"),
    [
        ("1 second", "1 seconds", "call perdure.run_ticks(58, '00:00:01')"),
        ("30 seconds", "30 seconds", "call perdure.run_ticks(58, '00:00:30')"),
        ("0.5 seconds", "0.5 seconds", "call perdure.run_ticks(58, '00:00:00.5')"),
        ("1 minute", "*/1 * * * *", None),
        ("10 minutes", "*/10 * * * *", None),
        ("1 hour", "0 * * * *", None),
    ],
)
def test_each_interval_has_its_schedule(database: Database, every: str, schedule: str, slow: str | None) -> None:
    row = (
        database.connect()
        .execute("select job_name, schedule, command, slow_command from perdure._cron_jobs(%s::interval)", [every])
        .fetchone()
    )
    assert row is not None
    assert row[:3] == (f"perdure.tick@{database.name}", schedule, "call perdure.run_ticks(0)")
    if slow:
        assert row[3] == slow


@pytest.mark.cron
def test_the_jobs_are_the_callers_and_a_second_call_replaces_them(cron_database: Database) -> None:
    conn = cron_database.connect()
    conn.execute("select perdure.enable_cron()")
    (said,) = conn.execute("select perdure.enable_cron('2 seconds')").fetchone() or ("",)
    assert said.startswith(f'pg_cron runs as role "{OWNER}": perdure.tick@{cron_database.name}')
    jobs = cron_database.admin.execute(JOBS).fetchall()
    name = cron_database.name
    assert [(job[0], *job[3:]) for job in jobs] == [
        (f"perdure.purge@{name}", name, OWNER, True),
        (f"perdure.tick@{name}", name, OWNER, True),
    ]
    assert (jobs[1][1], jobs[1][2]) in [
        ("2 seconds", "call perdure.run_ticks(0)"),  # pg_cron 1.5 and later
        ("* * * * *", "call perdure.run_ticks(58, '00:00:02')"),
    ]
    (said,) = conn.execute("select perdure.disable_cron()").fetchone() or ("",)
    assert said == f'removed perdure.tick@{name} of role "{OWNER}", perdure.purge@{name} of role "{OWNER}"'
    assert cron_database.admin.execute(JOBS).fetchall() == []
    (said,) = conn.execute("select perdure.disable_cron()").fetchone() or ("",)
    assert said == f'role "{OWNER}" has no jobs of this installation'


@pytest.mark.cron
def test_two_schemas_have_jobs_of_their_own(cron_database: Database) -> None:
    cron_database.install("shop")
    conn = cron_database.connect()
    conn.execute("select perdure.enable_cron(); select shop.enable_cron()")
    names = [row[0] for row in cron_database.admin.execute(JOBS)]
    assert names == [f"{s}.{job}@{cron_database.name}" for s in ("perdure", "shop") for job in ("purge", "tick")]
    conn.execute("select shop.disable_cron()")
    assert [row[0] for row in cron_database.admin.execute(JOBS)] == names[:2]


@pytest.mark.cron
def test_without_the_right_to_schedule_it_says_which_to_ask_for(cron_database: Database) -> None:
    cron_database.admin.execute(f"revoke usage on schema cron from {OWNER}")
    with pytest.raises(errors.InsufficientPrivilege) as refused:
        cron_database.connect().execute("select perdure.enable_cron()")
    assert refused.value.diag.message_hint == f"Ask a superuser for: grant usage on schema cron to {OWNER};"


@pytest.mark.cron
def test_a_superuser_removes_everyones_jobs_a_role_only_its_own(cron_database: Database) -> None:
    cron_database.connect().execute("select perdure.enable_cron()")
    cron_database.admin.execute("select perdure.enable_cron()")
    assert len(cron_database.admin.execute(JOBS).fetchall()) == 4
    cron_database.connect().execute("select perdure.disable_cron()")
    assert {row[4] for row in cron_database.admin.execute(JOBS)} == {cron_database.superuser}
    cron_database.connect().execute("select perdure.enable_cron()")
    cron_database.admin.execute("select perdure.disable_cron()")
    assert cron_database.admin.execute(JOBS).fetchall() == []


@pytest.mark.cron
def test_where_pg_cron_lives_elsewhere_the_statements_to_run_there_are_told(
    elsewhere: Database, cron_database: Database
) -> None:
    (said,) = elsewhere.admin.execute("select perdure.enable_cron()").fetchone() or ("",)
    assert said.startswith(f'pg_cron lives in database "{cron_database.name}", so nothing was scheduled.')
    (said,) = elsewhere.connect().execute("select perdure.enable_cron()").fetchone() or ("",)
    assert said.startswith("pg_cron lives in another database, so nothing was scheduled.")
    assert elsewhere.value("select count(*) from pg_namespace where nspname = 'cron'") == 0

    before = cron_database.admin.execute(JOBS).fetchall()
    cron_database.admin.execute(said.split("\n", 1)[1].encode())
    jobs = cron_database.admin.execute(JOBS).fetchall()
    assert [(job[0], job[1], job[3], job[4]) for job in jobs] == [
        (f"perdure.purge@{elsewhere.name}", "17 * * * *", cron_database.name, cron_database.superuser),
        (f"perdure.tick@{elsewhere.name}", "* * * * *", elsewhere.name, OWNER),
    ]
    cron_database.admin.execute(jobs[0][2])

    (said,) = elsewhere.connect().execute("select perdure.disable_cron()").fetchone() or ("",)
    assert said.startswith("pg_cron lives in another database")
    cron_database.admin.execute(said.split("\n", 1)[1].encode())
    assert cron_database.admin.execute(JOBS).fetchall() == before


@pytest.mark.cron
def test_where_the_extension_is_not_created_it_says_so(cron_database: Database) -> None:
    cron_database.admin.execute("drop extension pg_cron")
    (said,) = cron_database.admin.execute("select perdure.enable_cron()").fetchone() or ("",)
    assert "create extension pg_cron" in said


@pytest.mark.cron
def test_the_purge_takes_the_jobs_own_old_log_and_nothing_else(cron_database: Database) -> None:
    conn, admin = cron_database.connect(), cron_database.admin
    conn.execute("select perdure.enable_cron()")
    conn.execute("select cron.schedule('mine', '0 0 1 1 *', 'select 1')")
    admin.execute(
        "insert into cron.job_run_details (jobid, runid, database, username, command, status, start_time, end_time)"
        " select j.jobid, 1000 + row_number() over (), j.database, j.username, j.command, 'succeeded', a.at, a.at"
        " from cron.job as j cross join (values (now()), (now() - interval '25 hours')) as a (at)"
    )
    (command,) = conn.execute("select command from cron.job where jobname ~ 'purge'").fetchone() or ("",)
    conn.execute(command)
    assert admin.execute(
        "select split_part(j.jobname, '@', 1), now() - d.end_time > interval '1 day'"
        " from cron.job_run_details as d join cron.job as j using (jobid) where d.runid > 1000 order by 1, 2"
    ).fetchall() == [("mine", False), ("mine", True), ("perdure.purge", False), ("perdure.tick", False)]


@pytest.mark.cron
def test_uninstall_takes_the_jobs_and_their_log(cron_database: Database) -> None:
    conn, admin = cron_database.connect(), cron_database.admin
    conn.execute("select cron.schedule('mine', '0 0 1 1 *', 'select 1')")
    before = admin.execute(JOBS).fetchall()
    conn.execute("select perdure.enable_cron()")
    admin.execute(
        "insert into cron.job_run_details (jobid, runid, username, command)"
        " select jobid, 1000 + jobid, username, command from cron.job"
    )
    _install.uninstall(conn)
    assert admin.execute(JOBS).fetchall() == before
    assert admin.execute("select command from cron.job_run_details").fetchall() == [("select 1",)]


@pytest.mark.cron
def test_uninstall_where_pg_cron_lives_elsewhere_tells_what_to_run_there(elsewhere: Database) -> None:
    (notice,) = _install.uninstall(elsewhere.connect())
    assert "jobs of this installation stay there" in notice
    assert f"perdure.tick@{elsewhere.name}" in notice


@pytest.mark.cron
@pytest.mark.slow
def test_pg_cron_alone_takes_a_run_back_from_a_dead_worker(cron_database: Database) -> None:
    conn = cron_database.connect()
    conn.execute("select perdure.put_workflow('w')")
    (run,) = conn.execute("select perdure.start('w')").fetchone() or (None,)
    (worker,) = conn.execute("select perdure.register_worker('{default}', '{w}', lease => '1 second')").fetchone() or (
        None,
    )
    claimed = conn.execute("select run_id from perdure.claim_runs(%s)", [worker]).fetchall()
    assert claimed == [(run,)]
    conn.close()  # and never heard of again

    cron_database.connect().execute("select perdure.enable_cron()")
    cron_database.wait_until(
        "select d.worker_id is null and d.recoveries = 1 from perdure.dispatch as d where d.run_id = %s",
        run,
        seconds=75,
    )
    assert cron_database.value("select count(*) from perdure.worker") == 0
    assert cron_database.value("select count(*) from cron.job_run_details where status = 'failed'") == 0
    # The loop inside the minute goes on: a second worker's death takes seconds, not another minute.
    second = cron_database.connect()
    (worker,) = second.execute(
        "select perdure.register_worker('{default}', '{w}', lease => '1 second')"
    ).fetchone() or (None,)
    second.execute("select perdure.beat(%s, 0)", [worker])
    cron_database.wait_until(
        "select not exists (select from perdure.worker)", seconds=timedelta(seconds=15).total_seconds()
    )


@pytest.mark.cron
@pytest.mark.slow
def test_ticks_come_whatever_time_zones_the_server_and_pg_cron_are_set_to(zoned_cron_database: Database) -> None:
    assert zoned_cron_database.value("show timezone") == "America/St_Johns"
    zoned_cron_database.connect().execute("select perdure.enable_cron()")
    zoned_cron_database.wait_until("select ticked_at > now() - interval '1 minute' from perdure.timeline", seconds=90)
    assert zoned_cron_database.value("select count(*) from cron.job_run_details where status = 'failed'") == 0
