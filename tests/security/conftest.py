"""A database whose owner gave one role each kind, and roles without any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.database import Database, PostgresServer
from support.hostile import KINDS, Traps, grant_kinds, role_of


@pytest.fixture
def granted(server: PostgresServer, database: Database) -> Iterator[Database]:
    """A database whose plain owner gave one role each kind, one role two, and one none."""
    roles = {role_of(kind): kind for kind in KINDS}
    grant_kinds(server, database, **roles, **{role_of("both"): "client worker", role_of("stranger"): ""})
    return database


@pytest.fixture
def traps(database: Database) -> Traps:
    """Traps of a role that may create wherever a plain role ever may."""
    return Traps(database)
