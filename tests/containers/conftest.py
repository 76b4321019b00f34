"""The image, and a database and workers made from it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.network import Network

from support.containers import IMAGE, Container, build_image

APPS = Path(__file__).parent / "app"

StartWorker = Callable[..., Container]


@pytest.fixture(scope="session")
def image(docker_engine: None, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> str:
    """The image, built once for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    common = base if worker_id == "master" else base.parent
    with (common / "image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := common / "image.done").exists():
            build_image()
            done.touch()
    return IMAGE


@pytest.fixture
def network(docker_engine: None) -> Iterator[Network]:
    """A network for the containers of one test."""
    with Network() as made:
        yield made


@pytest.fixture
def postgres(image: str, network: Network) -> Iterator[PostgresContainer]:
    """A database, started as testcontainers starts any Postgres; in the network it is called `database`."""
    container = PostgresContainer(image, driver=None)
    with container.with_network(network).with_network_aliases("database") as made:
        yield made


@pytest.fixture
def start_worker(postgres: PostgresContainer, network: Network) -> Iterator[StartWorker]:
    """Start containers with a worker for a module of app/."""
    names = {
        "PGHOST": "database",
        "PGUSER": postgres.username,
        "PGPASSWORD": postgres.password,
        "PGDATABASE": postgres.dbname,
    }
    with ExitStack() as stack:

        def start(app: str, **environment: str) -> Container:
            made = Container("perdure", "worker", app, environment={**names, **environment}, network=network)
            stack.enter_context(made.mount(APPS, "/app"))
            made.wait_for("is ready")
            return made

        yield start
