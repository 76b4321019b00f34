"""What one run costs, in what does not depend on the machine: bytes of log, commits, bytes at rest."""

from __future__ import annotations

from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

import perdure
from support.database import Database
from support.engine import Connection, Worker, a_run, start, wait

RUNS = 1_000


@pytest.mark.slow
def test_a_queued_run_of_one_step_writes_about_two_kilobytes_of_log(database: Database, conn: Connection) -> None:
    """From its start, one by one, to its outcome, claimed by a hundred; with the images of pages after a checkpoint."""
    worker = Worker(database)
    begun_at = database.value("select pg_current_wal_insert_lsn()")
    for n in range(RUNS):
        start(conn, input=Jsonb({"n": n}))
    for _ in range(RUNS // 100):
        runs = worker.claim(100)
        worker.call("save_steps", saves=Jsonb([held.named(**held.save("a", {"n": 1})) for held in runs]))
        worker.call("complete_runs", ends=Jsonb([held.named(result=1) for held in runs]))
    written = database.value("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", begun_at)
    assert database.value("select count(*) from perdure.outcome") == RUNS
    assert written / RUNS < 2_500


def test_a_start_as_it_comes_enters_two_functions(database: Database) -> None:
    """What else it needs is inlined; each function that is entered costs more than most of them do."""
    admin = database.admin
    admin.execute("select perdure.put_workflow('order')")
    admin.execute("select perdure.start('order')")  # makes the plans, which enters what is a constant
    admin.execute("set track_functions = 'all'")
    for options in ("", ", '{\"n\": 7}'", ", to_jsonb(repeat('x', 900))"):
        admin.execute(f"select perdure.start('order'{options})".encode())
    admin.execute("select pg_stat_force_next_flush()")
    entered = admin.execute(
        "select s.funcname, s.calls from pg_stat_user_functions as s"
        " where s.schemaname = 'perdure' and s.funcname <> '_now' order by 1"  # which the test's clock replaced
    ).fetchall()
    assert entered == [("_start", 3), ("start", 3)]


def test_no_statement_plans_a_check_of_run_and_dispatch(database: Database) -> None:
    """Each run of the executor would read and plan them anew; what holds there is in violations."""
    checks = database.value(
        "select count(*) from pg_constraint where contype = 'c'"
        " and conrelid in ('perdure.run'::regclass, 'perdure.dispatch'::regclass)"
    )
    assert checks == 0


def test_a_waiting_run_is_one_narrow_row(database: Database) -> None:
    worker, held = a_run(database)
    worker.suspend(held, wait("paid"))
    [size] = database.admin.execute("select pg_column_size(d.*) from perdure.dispatch as d").fetchall()
    assert size[0] < 250
    assert database.value("select count(*) from perdure.wake") == 0


@pytest.mark.slow
async def test_a_worker_that_has_much_to_do_commits_once_for_many_runs(database: Database) -> None:
    app = perdure.App(database.dsn())

    async def one(n: int) -> int:
        return n

    @app.workflow()
    async def flow(run: perdure.AsyncRun, n: int) -> int:
        return await run.step(one, n)

    database.connect().execute("select perdure.put_workflow('flow')")
    run_ids = await app.start_many(flow, list(range(RUNS)))
    async with app.worker():
        for run_id in run_ids:
            await app.handle(flow, run_id).result(timeout=timedelta(seconds=60))
    commits = database.value("select count(distinct xmin::text) from perdure.outcome")
    assert commits <= RUNS / 20
    assert commits == database.value(
        "select count(distinct xmin::text) from (select xmin from perdure.outcome union all select xmin from perdure.step) as w"
    ), "the last step of a run is saved in the commit that ends it"
