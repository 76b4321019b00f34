"""Workers in containers of their own: runs started by psql, and what becomes of them when a worker is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from testcontainers.community.postgres import PostgresContainer

from support.containers import PATIENCE, Container, connect, psql
from support.database import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow]

StartWorker = Callable[..., Container]


@pytest.fixture
def ask(postgres: PostgresContainer) -> Iterator[Callable[[str], str]]:
    """Ask the database; the answer is the first row's first column, as text."""
    with connect(postgres.get_connection_url) as conn:

        def asked(query: str) -> str:
            row = conn.execute(query.encode()).fetchone()
            return str(row[0]) if row else ""

        yield asked


@pytest.fixture
def start_run(postgres: PostgresContainer) -> Callable[[], str]:
    """Start a run by the psql in the database's container; return its id."""
    container = postgres.get_wrapped_container()
    return lambda: psql(container, postgres.username, postgres.dbname, "select perdure.start('holding')")


def test_a_worker_finishes_a_run_that_psql_started(
    ask: Callable[[str], str], start_run: Callable[[], str], start_worker: StartWorker
) -> None:
    worker = start_worker("holding:app")
    run_id = start_run()
    state = f"select r.state from perdure.runs as r where r.run_id = '{run_id}'"
    eventually(lambda: ask(state) == "completed", seconds=PATIENCE, what="the run is completed")
    host = worker.wrapped.attrs["Config"]["Hostname"]
    assert ask(f"select perdure.result('{run_id}')::text") == f'["{host}", "{host}"]'
    # The image's health check is one of databases.
    assert worker.wrapped.attrs["State"]["Health"]["Status"] != "unhealthy"


def test_a_worker_that_is_told_to_stop_gives_its_run_back(ask: Callable[[str], str], start_worker: StartWorker) -> None:
    worker = start_worker("holding:app")
    worker.wrapped.stop(timeout=60)
    assert worker.wait() == 0
    assert "the worker has stopped" in worker.output
    assert ask("select count(*) from perdure.workers") == "0"


def test_pg_cron_alone_takes_back_the_run_of_a_killed_worker(
    ask: Callable[[str], str], start_run: Callable[[], str], start_worker: StartWorker
) -> None:
    doomed = start_worker("holding:app", HANG="1")
    run_id = start_run()
    saved = f"select count(*) from perdure.steps as s where s.run_id = '{run_id}' and s.saved_at is not null"
    eventually(lambda: ask(saved) == "1", seconds=PATIENCE, what="the first step is saved")
    doomed.wrapped.kill()

    state = f"select r.state from perdure.runs as r where r.run_id = '{run_id}'"
    eventually(lambda: ask(state) == "ready", seconds=PATIENCE, what="the run is taken back")
    assert ask("select count(*) from perdure.workers") == "0"
    others = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    assert ask(others) == "0"  # nobody else was there to do it

    heir = start_worker("holding:app")
    eventually(lambda: ask(state) == "completed", seconds=PATIENCE, what="the run is completed")
    hosts = [each.wrapped.attrs["Config"]["Hostname"] for each in (doomed, heir)]
    assert ask(f"select perdure.result('{run_id}')::text") == f'["{hosts[0]}", "{hosts[1]}"]'
