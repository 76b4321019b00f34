"""Fixtures of the tests in which several sessions meet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.database import Database
from support.engine import Connection

Session = Callable[[], Connection]


@pytest.fixture
def session(database: Database) -> Session:
    """Make sessions whose transactions stay open until they are committed, and which never wait: a wait is an error."""

    def make() -> Connection:
        made = database.connect(autocommit=False)
        made.execute("set lock_timeout = '50ms'")
        made.commit()
        return made

    return make
