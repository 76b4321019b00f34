"""Poolers in front of the tests' server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support import pgbouncer
from support.database import PostgresServer
from support.pgbouncer import PgBouncer
from support.provision import is_ci

Pool = Callable[..., PgBouncer]


@pytest.fixture(params=pgbouncer.VERSIONS)
def pool(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Pool]:
    """Make running poolers of one version, with these settings, in front of the session's server."""
    with ExitStack() as stack:

        def make(**settings: object) -> PgBouncer:
            if server.local is None:
                pytest.skip("the pooler stands in front of a private server")
            try:
                made = PgBouncer(request.param, server, **settings)
            except pgbouncer.Unavailable as error:
                if is_ci():
                    raise
                pytest.skip(str(error))
            stack.callback(made.close)
            made.start()
            return made

        yield make
