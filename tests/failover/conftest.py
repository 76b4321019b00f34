"""Pairs of servers on two hosts. These tests run where they are asked for: by path, by their marker, by make test-failover."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.hosts import Hosts, new_home, reason_against
from failover.pair import Pair, make_template
from perdure._postgres import Server
from support import provision


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and leave it out unless it was asked for."""
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.failover)
    if "failover" in config.option.markexpr or any("failover" in argument for argument in config.args):
        return
    config.hook.pytest_deselected(items=ours)
    items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """Both hosts; a failure with a sentence where they cannot be made."""
    if reason := reason_against():
        pytest.fail(reason, pytrace=False)
    made = Hosts()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def template(hosts: Hosts) -> Iterator[Server]:
    """The cluster that all servers are copies of."""
    binaries = provision.own_binaries()
    if binaries is None:
        pytest.fail("needs Postgres binaries on this machine", pytrace=False)
    home = new_home()
    yield make_template(home, binaries)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def pair(hosts: Hosts, template: Server) -> Iterator[Pair]:
    """Two hosts without servers; what is started on them is stopped."""
    home = new_home()
    made = Pair(hosts, home, template)
    yield made
    made.close()
    for host in hosts.all:
        host.join()
    shutil.rmtree(home, ignore_errors=True)
