"""Scenes: databases with workers that are processes of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.database import Database
from support.scene import Scene


@pytest.fixture
def scene(database: Database) -> Iterator[Scene]:
    """A scene on the session's server."""
    made = Scene(database)
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def own_scene(own_database: Database) -> Iterator[Scene]:
    """A scene on a server of the test's own, whose restart nobody is to die of."""
    made = Scene(own_database)
    made.prepare(without_grace=False)
    yield made
    made.close()
