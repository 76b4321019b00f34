"""In each locale and encoding that a database can have, the same is answered, kept and told in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors
from typing_extensions import LiteralString

import perdure
from support.build import install_sql
from support.database import Database, PostgresServer
from support.scenario import AWKWARD, PLAIN, play

PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True)
class Place:
    """How a database is made, what name it can keep that is not of ASCII, and a letter that it has no bytes for."""

    options: LiteralString
    name: str = "Straße İı"
    stranger: str | None = None
    since: int = 15


PLACES = {
    "icu-de": Place("locale_provider icu icu_locale 'de' locale 'C' encoding 'UTF8'"),
    "icu-tr": Place("locale_provider icu icu_locale 'tr' locale 'C' encoding 'UTF8'"),
    "icu-level1": Place("locale_provider icu icu_locale 'und-u-ks-level1-kn-ka-shifted' locale 'C' encoding 'UTF8'"),
    "libc-c": Place("locale_provider libc locale 'C' encoding 'UTF8'"),
    "libc-c-utf8": Place("locale_provider libc locale 'C.UTF-8' encoding 'UTF8'"),
    "builtin-c": Place("locale_provider builtin builtin_locale 'C' locale 'C' encoding 'UTF8'", since=17),
    "builtin-c-utf8": Place("locale_provider builtin builtin_locale 'C.UTF-8' locale 'C' encoding 'UTF8'", since=17),
    "builtin-unicode": Place(
        "locale_provider builtin builtin_locale 'PG_UNICODE_FAST' locale 'C' encoding 'UTF8'", since=18
    ),
    "latin1": Place("locale 'C' encoding 'LATIN1'", "Straße", "日"),
    "icu-latin1": Place("locale_provider icu icu_locale 'de' locale 'C' encoding 'LATIN1'", "Straße", "日"),
    "win1254": Place("locale 'C' encoding 'WIN1254'", "Straße İı", "日"),
    "koi8r": Place("locale 'C' encoding 'KOI8R'", "Улица", "ß"),
    "icu-euc-jp": Place("locale_provider icu icu_locale 'ja' locale 'C' encoding 'EUC_JP'", "日本", "€"),
}


# What the oldest version does not have is run with the core on each of the others.
PARAMETERS = [pytest.param(name, marks=[pytest.mark.slow] if PLACES[name].since == 15 else []) for name in PLACES]


@pytest.fixture(scope="module", params=PARAMETERS)
def place(request: pytest.FixtureRequest, server: PostgresServer) -> Place:
    """One of the places that this server has."""
    found = PLACES[request.param]
    if server.major < found.since:
        pytest.skip(f"PostgreSQL {server.major} has no such locale")
    if "provider icu" in found.options and not server.has_icu:
        pytest.skip("this build of Postgres knows no ICU")
    return found


@pytest.fixture(scope="module")
def there(place: Place, server: PostgresServer) -> Iterator[Database]:
    """An installation in that place."""
    made = server.create_database(options=place.options)
    made.install()
    yield made
    assert made.value("select count(*) from perdure.violations") == 0
    made.drop()


@pytest.fixture(scope="module")
def usual(server: PostgresServer) -> Iterator[dict[str, Any]]:
    """What a play answers in the tests' own database."""
    database = server.installed_database()
    yield play(database.connect(), "play", PLAIN)
    database.drop()


def test_the_answers_are_the_same(place: Place, there: Database, usual: dict[str, Any]) -> None:
    assert play(there.connect(client_encoding="UTF8"), place.name, PLAIN) == usual
    if place.stranger is None:
        play(there.connect(), "awkward", AWKWARD)
    else:
        assert play(there.connect(), "play", PLAIN) == usual, "a client that speaks the database's own encoding"
    there.close()


ERROR = "select o.error from perdure.outcome as o where o.run_id = %s"


class Sorry(Exception):
    """What a step says that fails."""


async def test_a_worker_does_its_work(place: Place, there: Database) -> None:
    app = perdure.App(there.dsn())
    name, strange = place.name, place.stranger or "\U0001f600"
    paid = perdure.Signal(f"paid {name}", str)

    async def echo(text: str) -> str:
        return text

    async def refuse(text: str) -> str:
        raise Sorry(text)

    @app.workflow(name=f"order {name}")
    async def order(run: perdure.AsyncRun, text: str) -> list[str]:
        told = [await run.options(key=name).step(echo, text)]
        await run.sleep(timedelta(milliseconds=5))
        told.append(await run.wait_signal(paid))
        try:
            await run.options(key="own", retry=perdure.Retry(max_attempts=1)).step(refuse, text)
        except perdure.StepFailed as failure:
            told.append(failure.message)
        return told

    @app.workflow(name="stranger")
    async def stranger(run: perdure.AsyncRun, what: str) -> str:
        """Meets a letter that the database may have no bytes for."""
        if what == "result":
            return await run.step(echo, strange)
        if what == "end":
            return strange
        if what == "raise":
            raise Sorry(strange)
        return await run.options(retry=perdure.Retry(max_attempts=1)).step(refuse, strange)

    async with app.worker():
        odd = [await app.start(stranger, what) for what in ("result", "end", "raise", "step")]
        key = f"key {name}"
        handle = await app.start(order, name, key=key)
        assert (await app.start(order, name, key=key)).id == handle.id
        assert (await app.start(order, name, key="K" + key[1:])).id != handle.id, "keys are compared byte by byte"
        assert await handle.signal(paid, name) == "accepted"
        assert await handle.result(timeout=PATIENCE) == [name] * 3
        for n, each in enumerate(odd):
            if place.stranger is None and n < 2:
                assert await each.result(timeout=PATIENCE) == strange
                continue
            with pytest.raises(perdure.RunFailed):
                await each.result(timeout=PATIENCE)
            if n >= 2:
                assert "Sorry" in str(there.value(ERROR, each.id)), "what was raised is on record"
        if place.stranger is not None:
            with pytest.raises(errors.UntranslatableCharacter):
                await app.start(order, place.stranger)
            with pytest.raises(errors.UntranslatableCharacter):
                await handle.signal(paid, place.stranger)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "MULE_INTERNAL"])
def test_an_encoding_that_keeps_no_letters_is_refused(server: PostgresServer, encoding: str) -> None:
    option: LiteralString = (
        "locale 'C' encoding 'SQL_ASCII'" if encoding == "SQL_ASCII" else "locale 'C' encoding 'MULE_INTERNAL'"
    )
    database = server.create_database(options=option)
    with psycopg.connect(database.dsn(), client_encoding="SQL_ASCII", autocommit=True) as conn:
        with pytest.raises(errors.FeatureNotSupported, match=f"encoding {encoding}") as refused:
            conn.execute(b"begin;" + install_sql("perdure").encode())
        assert "template template0" in (refused.value.diag.message_hint or "")
    database.drop()
