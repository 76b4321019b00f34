"""Fixtures of the tests that call one SQL function after the other."""

from __future__ import annotations

import pytest

from support.database import Database
from support.engine import Connection


@pytest.fixture
def conn(database: Database) -> Connection:
    """A client's connection, autocommitting; the workflow "order" is known."""
    made = database.connect()
    made.execute("select perdure.put_workflow('order')")
    return made
