"""A worker on hold begins nothing and goes on by itself; a restored copy sends nothing until it is adopted."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from typing_extensions import LiteralString

import perdure
from support.aio import until
from support.database import Database
from support.engine import dispatch

GO = perdure.Signal("go", int)
PATIENCE = timedelta(seconds=60)


@dataclass
class Shop:
    """An app on one database, with the outside world that its mails go to."""

    app: perdure.App
    sent: list[tuple[str, str]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    flows: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        async def send(kind: str, to: str) -> str:
            self.sent.append((kind, to))
            return to

        async def send_slowly(kind: str, to: str) -> str:
            self.sent.append((kind, to))
            self.begun.set()
            await self.gate.wait()
            return to

        @self.app.workflow(name="order")
        async def order(run: perdure.AsyncRun, to: str) -> str:
            await run.step(send, "welcome", to)
            await run.wait_signal(GO)
            await run.step(send, "goodbye", to)
            return to

        @self.app.workflow(name="slow")
        async def slow(run: perdure.AsyncRun, to: str) -> str:
            await run.step(send_slowly, "slow", to)
            await run.step(send, "after", to)
            return to

        self.flows = {"order": order, "slow": slow}


def beats(database: Database, count: int) -> None:
    """Wait until a live worker of the database has beaten so many times more."""
    since = database.value("select perdure._now()")
    for _ in range(count):
        database.wait_until("select max(beat_at) > %s from perdure.worker_beat", since, seconds=60)
        since = database.value("select max(beat_at) from perdure.worker_beat")


async def test_a_worker_on_hold_finishes_its_step_begins_no_other_and_goes_on_after_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="perdure")
    shop = Shop(perdure.App(database.dsn()))
    conn = database.connect()
    async with shop.app.worker():
        slow = await shop.app.start(shop.flows["slow"], "ada")
        await shop.begun.wait()
        conn.execute("select perdure.hold('restored from tape')")
        await until(lambda: "restored from tape" in caplog.text, seconds=60)
        late = await shop.app.start(shop.flows["slow"], "bob")
        shop.gate.set()
        await until(lambda: dispatch(database, slow.id)["worker_id"] is None, seconds=60)
        await asyncio.to_thread(beats, database, 2)
        assert shop.sent == [("slow", "ada")]
        assert database.value("select array_agg(key) from perdure.step") == ["send_slowly"]
        assert caplog.text.count("restored from tape") == 1, "told at each beat"
        conn.execute("select perdure.adopt()")
        assert await slow.result(timeout=PATIENCE) == "ada"
        assert await late.result(timeout=PATIENCE) == "bob"
        await until(lambda: "on hold no more" in caplog.text, seconds=60)
    assert sorted(shop.sent) == [("after", "ada"), ("after", "bob"), ("slow", "ada"), ("slow", "bob")]


@contextmanager
def restored(database: Database, *options: str) -> Iterator[Database]:
    """What pg_dump and psql make of the database, in another one of the same server."""
    local = database.server.local
    if local is None:
        pytest.skip("needs pg_dump and psql of the server's version")
    made = database.server.create_database()
    with tempfile.NamedTemporaryFile(suffix=".sql") as dump:
        source = database.dsn(database.superuser)
        subprocess.run([local.binaries.bin / "pg_dump", *options, "--file", dump.name, source], check=True)
        target = made.dsn(made.superuser)
        command = [local.binaries.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump.name, target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    try:
        yield made
    finally:
        made.drop()


async def test_the_worker_of_a_restored_copy_sends_nothing_until_it_is_adopted(database: Database) -> None:
    role = "perdure_test_worker"
    database.server.create_role(role)
    owner = database.connect()
    for kind in ("worker", "client"):
        owner.execute("select perdure.grant_role(%s, %s)", [role, kind])
    shop = Shop(perdure.App(database.dsn(role)))
    people = [f"person {n}" for n in range(5)]
    async with shop.app.worker():
        orders = {to: await shop.app.start(shop.flows["order"], to, key=to) for to in people}
        slow = await shop.app.start(shop.flows["slow"], "ada", key="ada")
        await until(
            lambda: database.value("select count(*) from perdure.dispatch where waits is not null") == 5, seconds=60
        )
        await shop.begun.wait()
        with restored(database) as copy:
            there = Shop(perdure.App(copy.dsn(role)))
            there.gate.set()
            async with there.app.worker():
                await _both_go_on(database, copy, shop, there, orders, slow.id)
                for to in people:
                    handle = await there.app.find(there.flows["order"], to)
                    assert handle is not None
                    assert await handle.result(timeout=PATIENCE) == to
                handle = await there.app.find(there.flows["slow"], "ada")
                assert handle is not None
                assert await handle.result(timeout=PATIENCE) == "ada"
            assert sorted(there.sent) == [("after", "ada"), *(("goodbye", to) for to in people), ("slow", "ada")]
            assert copy.admin.execute("select invariant, detail from perdure.violations").fetchall() == []
            assert copy.value("select detail ->> 'released' from perdure.audit where act = 'adopt'") == "1"
    assert database.admin.execute("select invariant, detail from perdure.violations").fetchall() == []
    for kind in ("worker", "client"):
        owner.execute("select perdure.revoke_role(%s, %s)", [role, kind])


async def _both_go_on(
    database: Database, copy: Database, shop: Shop, there: Shop, orders: dict[str, Any], slow: UUID
) -> None:
    """All are told to go on in both databases: the original does, the copy only when it is adopted."""
    for to in orders:
        await shop.app.signal(shop.flows["order"], to, GO, 1)
        await there.app.signal(there.flows["order"], to, GO, 1)
    shop.gate.set()
    for to, handle in orders.items():
        assert await handle.result(timeout=PATIENCE) == to
    await shop.app.handle(shop.flows["slow"], slow).result(timeout=PATIENCE)
    await asyncio.to_thread(beats, copy, 2)
    assert copy.value("select held_at is not null from perdure.holds"), "nobody noted it"
    assert there.sent == []
    assert copy.admin.execute("select invariant, detail from perdure.violations").fetchall() == []
    risks = dict(copy.admin.execute("select key, risk from perdure.at_risk()").fetchall())
    assert risks.pop("ada") == "running"
    assert set(risks) == set(orders)
    lost = database.admin.execute(
        "select run_key from perdure.recorded_since(%s) where what = 'run completed'",
        [copy.value("select max(saved_at) from perdure.step")],
    ).fetchall()
    assert {key for (key,) in lost} == {"ada", *orders}
    copy.connect().execute("select perdure.adopt('tried')")


# What would outlast the adoption of a copy.
LASTING: tuple[LiteralString, ...] = (
    "select perdure.adopt()",
    "select perdure.hold('because')",
    "select perdure.grant_role(%(role)s, 'admin')",
    "select perdure.revoke_role(%(role)s, 'worker')",
    "select perdure.put_setting('payload_hard_limit', '1000')",
)


def test_a_copy_whose_functions_are_a_superusers_is_not_adopted(database: Database) -> None:
    with restored(database, "--no-owner") as copy:
        restorer = copy.connect(copy.superuser)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="belong to the superuser"):
            restorer.execute("select perdure.adopt()")


def test_a_copy_that_was_dumped_without_privileges_leaves_nobody_anything_once_adopted(database: Database) -> None:
    role = "perdure_test_worker"
    database.server.create_role(role)
    owner = database.connect()
    owner.execute("select perdure.grant_role(%s, 'worker')", [role])

    def may(where: Database, function: str) -> bool:
        return bool(where.value("select has_function_privilege(%s, %s, 'execute')", role, f"perdure.{function}"))

    with restored(database, "--no-privileges") as copy:
        assert may(copy, "adopt(text)"), "a dump without privileges leaves functions to everybody"
        copy.server.create_role("perdure_test_stranger")
        copy.connect().execute(SQL("grant usage on schema perdure to {}").format(Identifier("perdure_test_stranger")))
        stranger = copy.connect("perdure_test_stranger")
        for call in LASTING:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="in a copy that nobody has adopted"):
                stranger.execute(call, {"role": role})
        copy.connect().execute("select perdure.adopt()")
        assert not may(copy, "adopt(text)")
        assert not may(copy, "claim_runs(uuid, integer)")
        copy.connect().execute("select perdure.grant_role(%s, 'worker')", [role])
        assert may(copy, "claim_runs(uuid, integer)")
        assert not may(copy, "adopt(text)")
        copy.connect().execute("select perdure.revoke_role(%s, 'worker')", [role])
    owner.execute("select perdure.revoke_role(%s, 'worker')", [role])
