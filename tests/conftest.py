"""Servers, and a fresh database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from perdure._binaries import PostgresNotFound
from support import always_suspend, isolation, provision
from support.database import (
    FORGETFUL,
    OWNER,
    Database,
    PostgresServer,
    any_server,
    private_server,
    remove,
    remove_leftovers,
)
from support.engine import Connection

CRON_DATABASE = "perdure_cron"


def pytest_configure(config: pytest.Config) -> None:
    """Provide Postgres once, before any worker process starts a server."""
    if always_suspend.is_on():
        always_suspend.install()
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    remove_leftovers()
    try:
        provision.provide()
    except PostgresNotFound as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect of the tests that cannot hold in a mode, of `always_suspend` or `isolation`, that they do not."""
    for item in items:
        if (failure := isolation.excluded(item.nodeid)) is not None:
            raises, why = failure
            item.add_marker(pytest.mark.xfail(raises=raises, reason=why, strict=True))
        if not always_suspend.is_on():
            continue
        name = item.nodeid.partition("[")[0]
        reason = always_suspend.EXCLUDED.get(item.nodeid) or always_suspend.EXCLUDED.get(name)
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_report_header() -> str:
    """Say what the tests run on."""
    provided = provision.provide()
    if provided.binaries is not None:
        cron = "with" if provision.cron_binaries() else "without"
        return f"postgres: {provided.binaries.version} from {provided.binaries.bin}, {cron} pg_cron"
    return f"postgres: {'PERDURE_TEST_DSN' if provided.dsn else provided.image}"


def unavailable(reason: str) -> None:
    """Skip a test whose surroundings are missing; in CI that is a failure."""
    if provision.is_ci():
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def prefix(worker_id: str) -> str:
    """What this process calls its databases: no other process, here or on a shared server, calls them so."""
    return f"perdure_test_{os.getpid()}_{worker_id}"


@pytest.fixture(scope="session")
def server(prefix: str) -> Iterator[PostgresServer]:
    """The session's server. It keeps running: a test that stops or kills one takes `own_server`."""
    with any_server(provision.provide(), prefix) as made:
        yield made


@pytest.fixture
def database(server: PostgresServer) -> Iterator[Database]:
    """A fresh database with Perdure in it, installed by a plain owner who may not create roles."""
    made = server.installed_database()
    yield made
    made.drop()


@pytest.fixture
def conn(database: Database) -> Connection:
    """A client's connection, autocommitting; the workflow "order" is known."""
    made = database.connect()
    made.execute("select perdure.put_workflow('order')")
    return made


@pytest.fixture
def empty_database(server: PostgresServer) -> Iterator[Database]:
    """A fresh database without Perdure, that belongs to the same plain owner."""
    made = server.create_database()
    yield made
    made.drop()


@pytest.fixture
def own_server(prefix: str) -> Iterator[PostgresServer]:
    """A server of the test's own that keeps what it acknowledged (fsync on): to be stopped, killed, restarted."""
    binaries = provision.own_binaries()
    if binaries is None:
        unavailable("needs Postgres binaries on this machine, to stop and kill a server")
    made = private_server(binaries, prefix)
    yield made
    remove(made)


@pytest.fixture
def own_database(own_server: PostgresServer) -> Database:
    """A fresh database with Perdure in it, on the test's own server."""
    return own_server.installed_database()


@pytest.fixture(scope="session")
def cron_server(prefix: str) -> Iterator[PostgresServer]:
    """The session's server with pg_cron, which lives in one database of it: `cron_database`."""
    made = private_cron_server(prefix)
    yield made
    remove(made)


def private_cron_server(prefix: str, **more: str) -> PostgresServer:
    """Start a server with pg_cron."""
    binaries = provision.cron_binaries()
    if binaries is None:
        unavailable(f"no pg_cron for PostgreSQL {provision.major()} on this machine")
    settings = {
        "shared_preload_libraries": "pg_cron",
        "cron.database_name": CRON_DATABASE,
        "cron.use_background_workers": "on",
        "max_worker_processes": "30",
    }
    return private_server(binaries, prefix, {**FORGETFUL, **settings, **more})


@pytest.fixture
def zoned_cron_server(prefix: str) -> Iterator[PostgresServer]:
    """A server with pg_cron where no clock agrees with another: the server's zone, and pg_cron's from 1.5 on."""
    made = private_cron_server(prefix, **{"timezone": "America/St_Johns", "cron.timezone": "Asia/Kolkata"})
    yield made
    remove(made)


@pytest.fixture
def cron_database(cron_server: PostgresServer) -> Iterator[Database]:
    """A fresh database with Perdure and pg_cron in it; the owner may schedule."""
    yield from installed_beside_cron(cron_server)


def installed_beside_cron(cron_server: PostgresServer) -> Iterator[Database]:
    """Make the database that pg_cron lives in, with Perdure in it; the owner may schedule."""
    cron_server.drop_database(CRON_DATABASE)
    made = cron_server.installed_database(CRON_DATABASE)
    cron_server.server.restart()  # the launcher ended for good with the last database that it was in
    made.admin.execute("create extension pg_cron")
    made.admin.execute(f"grant usage on schema cron to {OWNER}")
    yield made
    made.drop()


@pytest.fixture
def zoned_cron_database(zoned_cron_server: PostgresServer) -> Iterator[Database]:
    """The same on a server in zones that differ by hours and a half."""
    yield from installed_beside_cron(zoned_cron_server)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skips the test, with the reason, where no containers can be run; mark the test `docker`."""
    if reason := provision.docker_reason():
        pytest.skip(reason)
