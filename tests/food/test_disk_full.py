"""A full disk: an error for whoever writes, a pause for everybody, and nothing lost, halved or done twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors

from food.disk import Disk, server_on_a_small_disk
from support import provision
from support.database import PostgresServer, eventually
from support.scene import Scene

pytestmark = pytest.mark.slow

SMALL = {"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_recycle": "off", "autovacuum": "off"}


@contextmanager
def small_server(prefix: str, directory: str, megabytes: int) -> Iterator[tuple[PostgresServer, Disk]]:
    binaries = provision.own_binaries()
    if binaries is None:
        unavailable("needs Postgres binaries on this machine, for a server with a small disk")
    context = server_on_a_small_disk(binaries, f"{prefix}_{directory}", directory, megabytes, **SMALL)
    try:
        made = context.__enter__()
    except PermissionError as error:
        unavailable(str(error))
    try:
        yield made
    finally:
        context.__exit__(None, None, None)


def unavailable(reason: str) -> None:
    if provision.is_ci():
        pytest.fail(reason)
    pytest.skip(reason)


def noise(size: int) -> bytes:
    """Bytes that nobody can compress."""
    return os.urandom(size)


def write_much(conn: psycopg.Connection[object]) -> None:
    for _ in range(200):
        conn.execute("insert into public.noise values (%s)", [noise(1_000_000)])


def booked_once(scene: Scene, runs: int) -> None:
    """Each transaction step of each ledger is in the books once."""
    rows, distinct = scene.row("select count(*), count(distinct key) from public.trace where step = 'book'")
    assert (rows, distinct) == (3 * runs, 3 * runs)


def test_a_full_data_disk_is_an_error_and_a_pause_and_nothing_is_half_done(prefix: str) -> None:
    with small_server(prefix, "base", 140) as (server, disk):
        scene = Scene(server.installed_database())
        try:
            scene.prepare(without_grace=False)
            conn = scene.database.connect()
            conn.execute("create table public.noise (bytes bytea)")
            conn.execute("alter table public.noise alter bytes set storage external")
            scene.start_many("ledger", 300)
            workers = [scene.worker(), scene.worker()]
            eventually(lambda: scene.row("select count(*) > 20 from perdure.outcome")[0], seconds=60)

            refused = 0
            for n in range(40):  # each time the last byte is taken, by a file and by what clients store
                disk.fill(leave=(40 - n) * 4096)
                try:
                    with conn.transaction():
                        conn.execute("select perdure.start('ledger', to_jsonb(%s::text), %s)", [f"k{n}", f"k{n}"])
                        conn.execute("insert into public.noise values (%s)", [noise(100_000)])
                except errors.DiskFull:
                    refused += 1
                    assert scene.row("select perdure.find_run('ledger', %s)", f"k{n}")[0] is None
            assert refused > 20
            ended = scene.row("select count(*) from perdure.outcome")[0]
            assert ended < 300, "the workers were done before the disk was full"
            before = scene.row("select xact_rollback from pg_stat_database where datname = current_database()")[0]
            scene.database.wait_until(
                "select xact_rollback > %s from pg_stat_database where datname = current_database()",
                before + 5,
                seconds=60,
            )
            assert all(worker.poll() is None for worker in workers), "they go on trying"

            disk.relieve()
            scene.wait_completed(300 + 40 - refused, seconds=180)
            booked_once(scene, 300 + 40 - refused)
        finally:
            scene.close()
            scene.database.close()


def test_a_full_disk_of_the_log_takes_the_server_and_nothing_that_was_acknowledged(prefix: str) -> None:
    with small_server(prefix, "pg_wal", 96) as (server, disk):
        scene = Scene(server.installed_database())
        acknowledged: list[str] = []

        def be_a_client() -> None:
            try:
                with psycopg.connect(scene.database.dsn(), autocommit=True) as conn:
                    for n in range(100_000):
                        conn.execute("select perdure.start('ledger', to_jsonb(%s::text), %s)", [f"k{n}", f"k{n}"])
                        acknowledged.append(f"k{n}")
            except psycopg.OperationalError:
                pass

        try:
            scene.prepare(without_grace=False)
            conn = scene.database.connect()
            conn.execute("create table public.noise (bytes bytea)")
            workers = [scene.worker(), scene.worker()]
            scene.wait_registered(2)
            client = threading.Thread(target=be_a_client)
            client.start()
            eventually(lambda: len(acknowledged) > 20, seconds=60)
            disk.fill()
            with pytest.raises(psycopg.OperationalError):
                write_much(conn)
            client.join(120)
            assert not client.is_alive()
            log = server.server.log.read_text(errors="replace")
            assert "PANIC" in log
            assert "No space left on device" in log
            scene.database.close()
            eventually(lambda: not server.server.is_running, seconds=120, what="the server's end")

            disk.relieve()
            server.server.start()
            missing = [
                key for key in acknowledged if scene.row("select perdure.find_run('ledger', %s)", key)[0] is None
            ]
            assert missing == []
            runs = scene.row("select count(*) from perdure.run")[0]
            assert runs - len(acknowledged) in (0, 1), "the last one's answer may have been lost"
            scene.wait_completed(runs, seconds=180)
            booked_once(scene, runs)
            assert all(worker.poll() is None for worker in workers)
        finally:
            scene.close()
            scene.database.close()
