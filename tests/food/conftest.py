"""Scenes and connections for what is fed to the engine and to the driver."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from support.database import Database
from support.engine import Connection
from support.scene import Scene

# The same examples each time, and few of them: PERDURE_FOOD=1000 tries so many, each time others.
settings.register_profile(
    "food",
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to make an example smaller takes minutes with a database
    derandomize="PERDURE_FOOD" not in os.environ,
    max_examples=int(os.environ.get("PERDURE_FOOD", "40")),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def conn(database: Database) -> Connection:
    """A client's connection, autocommitting; the workflow "order" is known."""
    made = database.connect()
    made.execute("select perdure.put_workflow('order')")
    return made


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """A scene on the session's server, where deaths are declared as everywhere."""
    made = Scene(database)
    made.prepare(without_grace=False)
    yield made
    made.close()
