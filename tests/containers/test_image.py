"""The image as a database: what the first start makes, what later ones keep, what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection
from testcontainers.community.postgres import PostgresContainer

from support.containers import DATA, PATIENCE, Container, connect, psql
from support.database import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow]

PASSWORD = {"POSTGRES_PASSWORD": "x"}
TICKED = "select exists (select from cron.job_run_details as d where d.status = 'succeeded')"


@pytest.fixture
def volume(image: str) -> Iterator[str]:
    """The name of a volume; Docker makes it, the test removes it."""
    import docker  # type: ignore[import-untyped]

    name = f"perdure-test-{uuid.uuid4().hex[:12]}"
    yield name
    client = docker.from_env()
    client.volumes.get(name).remove()
    client.close()


def value(conn: Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    return row[0] if row else None


def test_the_first_start_installs_perdure_for_a_plain_owner_and_pg_cron_ticks(postgres: PostgresContainer) -> None:
    with connect(postgres.get_connection_url) as conn:
        assert conn.info.server_version // 10000 == 17
        assert value(conn, "select perdure.version()")
        assert value(conn, "select r.rolsuper from pg_roles as r where r.rolname = current_user") is False
        owner = value(conn, "select n.nspowner::regrole::text from pg_namespace as n where n.nspname = 'perdure'")
        assert owner == postgres.username
        eventually(lambda: value(conn, TICKED), seconds=PATIENCE, what="pg_cron ticks")

        conn.execute("select perdure.put_workflow('later')")
        conn.execute("select perdure.start('later', delay => '2 seconds')")
        look = "select r.state = 'ready' from perdure.runs as r"
        eventually(lambda: value(conn, look), seconds=PATIENCE, what="a run becomes ready though no worker lives")
        assert value(conn, "select count(*) from cron.job_run_details as d where d.status = 'failed'") == 0


def test_the_superuser_is_reached_in_the_container_alone(postgres: PostgresContainer) -> None:
    inside = postgres.get_wrapped_container()
    asked = "select r.rolsuper from pg_roles as r where r.rolname = current_user"
    assert psql(inside, "postgres", postgres.dbname, asked) == "t"
    assert (
        psql(inside, "postgres", postgres.dbname, "select a.rolpassword is null from pg_authid as a where oid = 10")
        == "t"
    )


def test_names_of_any_kind_are_taken_as_they_are(image: str) -> None:
    user, database, schema = 'O\'Hara "x"', "the shop's $1", "durable_2"
    names = {
        "POSTGRES_USER": user,
        "POSTGRES_PASSWORD": "p'w\\$ {1}:/@",
        "POSTGRES_DB": database,
        "PERDURE_SCHEMA": schema,
        # Where the container's other programs find a server is not where the first start looks.
        "PGHOST": "nowhere.invalid",
        "PERDURE_DSN": "postgresql://nowhere.invalid/",
    }
    with Container("-c", "work_mem=9MB", environment=names) as made:
        made.wait_for("perdure: ready")
        made.wait_for("[1] LOG:  database system is ready to accept connections")

        def asked(query: str) -> str:
            return psql(made.wrapped, user, database, query)

        assert asked(f"select {schema}.version() <> ''") == "t"
        assert asked("show work_mem") == "9MB"
        made.wait_for("pg_cron scheduler started")
        eventually(lambda: asked(TICKED) == "t", seconds=PATIENCE, what="pg_cron ticks")
        code, _ = made.wrapped.exec_run(
            ["sh", "-c", 'PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U "$POSTGRES_USER" "$POSTGRES_DB" -c ""']
        )
        assert code == 0


@pytest.mark.parametrize("end", ["restart", "kill"])
def test_a_container_that_comes_back_has_its_runs(postgres: PostgresContainer, end: str) -> None:
    with connect(postgres.get_connection_url) as conn:
        conn.execute("select perdure.put_workflow('kept')")
        run_id = value(conn, "select perdure.start('kept', '{\"a\": 1}', key => 'a')")
    container = postgres.get_wrapped_container()
    if end == "kill":
        container.kill()
        container.start()
    else:
        container.restart()
    with connect(postgres.get_connection_url) as conn:
        assert value(conn, "select r.run_id from perdure.runs as r where r.key = 'a' and r.state = 'ready'") == run_id
        before = value(conn, "select coalesce(max(d.runid), 0) from cron.job_run_details as d")
        again = (
            f"select exists (select from cron.job_run_details as d where d.runid > {before} and status = 'succeeded')"
        )
        eventually(lambda: value(conn, again), seconds=PATIENCE, what="pg_cron ticks again")


def test_a_first_start_that_is_killed_is_begun_anew(image: str, volume: str) -> None:
    with Container(environment=PASSWORD).mount(volume, DATA, "rw") as first:
        first.wait_for("perdure: making role")
        first.wrapped.kill()
        assert "perdure: ready" not in first.output
        with Container(environment=PASSWORD).mount(volume, DATA, "rw") as second:
            second.wait_for("perdure: ready")
            second.wait_for("[1] LOG:  database system is ready to accept connections")
            assert psql(second.wrapped, "perdure", "perdure", "select perdure.version() <> ''") == "t"


def test_a_volume_in_use_is_refused_to_a_second_container(image: str, volume: str) -> None:
    with Container(environment=PASSWORD).mount(volume, DATA, "rw") as first:
        first.wait_for("[1] LOG:  database system is ready to accept connections")
        with Container(environment=PASSWORD).mount(volume, DATA, "rw") as second:
            assert second.wait() == 1
            assert "another container uses" in second.output


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "no password for perdure\n  Choose one: docker run --env POSTGRES_PASSWORD=..."),
        ({"POSTGRES_PASSWORD": "x", "PERDURE_SCHEMA": "Shop"}, "Choose another PERDURE_SCHEMA"),
        ({"POSTGRES_PASSWORD": "x", "POSTGRES_USER": "pg_x"}, 'role name "pg_x" is reserved'),
    ],
    ids=["password", "schema", "role"],
)
def test_what_cannot_be_is_refused_with_what_to_do(image: str, environment: dict[str, str], said: str) -> None:
    with Container(environment=environment) as made:
        assert made.wait() == 1
        assert said in made.output


def test_its_health_is_told(postgres: PostgresContainer) -> None:
    def health() -> bool:
        container = postgres.get_wrapped_container()
        container.reload()
        return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

    eventually(health, seconds=PATIENCE, what="the container is healthy")
