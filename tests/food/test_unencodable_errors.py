"""Whatever a step or a workflow raises: a record that says what it was, and a worker that goes on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import perdure
from support.database import Database, eventually
from support.engine import call


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class EndlessStr(Exception):
    def __str__(self) -> str:
        return str(self)


class FatalStr(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class BrokenAttributes(Exception):
    @property
    def details(self) -> Any:
        raise RuntimeError("no details")

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no arguments")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no state")


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of it is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class HostileMeta(type):
    @property
    def __name__(cls) -> Any:
        raise RuntimeError("no name")

    @property
    def __mro__(cls) -> Any:
        raise RuntimeError("no order")


class Hostile(Exception, metaclass=HostileMeta):
    pass


class OddMeta(type):
    @property
    def __name__(cls) -> Any:
        return "a\0\ud800"


class Odd(Exception, metaclass=OddMeta):
    pass


class Fatal(BaseException):
    """No Exception."""


def circular_cause() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    return first


def circular_arguments() -> BaseException:
    error = ValueError("round")
    error.args = (error, [error])
    return error


def long_chain() -> BaseException:
    error: BaseException = ValueError(0)
    for n in range(500):
        outer = ValueError(n)
        outer.__cause__ = error
        error = outer
    return error


def deep_group() -> BaseException:
    error: Any = ValueError("innermost")
    for _ in range(1_000):
        error = ExceptionGroup("group", [error])  # noqa: F821
    return error


def noted() -> BaseException:
    error = ValueError("noted")
    error.__notes__ = ["a\0note", "\ud800", 17, BrokenStr()]  # type: ignore[list-item]
    return error


def with_details(details: Any) -> BaseException:
    error = ValueError("see the details")
    error.details = details  # type: ignore[attr-defined]
    return error


def deep_list() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


ERRORS: dict[str, Callable[[], BaseException]] = {
    "str raises": BrokenStr,
    "str calls itself": EndlessStr,
    "str exits": FatalStr,
    "attributes raise": BrokenAttributes,
    "metaclass raises": Hostile,
    "name with NUL and surrogate": Odd,
    "name of a million letters": type("E" * 1_000_000, (Exception,), {}),
    "cause is a circle": circular_cause,
    "arguments are a circle": circular_arguments,
    "cause after cause": long_chain,
    "17 MB of message": lambda: ValueError("m" * 17_000_000),
    "17 MB of attributes": lambda: with_details(["m" * 1000] * 17_000),
    "NUL and surrogates": lambda: ValueError("a\0b\ud800c\udfff"),
    "bytes": lambda: ValueError(b"\xff\0"),
    "notes": noted,
    "incomparable details": lambda: with_details(Incomparable()),
    "details within details": lambda: with_details(deep_list()),
    "infinite": lambda: ValueError(float("inf"), float("nan"), 10**5000),
    "no Exception": Fatal,
    "generator exit": GeneratorExit,
    "stop iteration": lambda: StopIteration(1),
    "stop async iteration": StopAsyncIteration,
    "an attempt to exit": lambda: SystemExit(7),
    "a cancellation": asyncio.CancelledError,
}
if sys.version_info >= (3, 11):
    ERRORS["groups in groups"] = deep_group

PLACES = ("async step", "plain step", "transaction step", "workflow")


@pytest.mark.parametrize("place", PLACES)
async def test_a_worker_records_whatever_is_raised_and_lives(
    database: Database, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level(logging.INFO, "perdure")
    app = perdure.App(database.dsn())

    async def async_step(name: str) -> None:
        raise ERRORS[name]()  # noqa: RSE102  it is made here

    def plain_step(name: str) -> None:
        raise ERRORS[name]()  # noqa: RSE102

    async def transaction(conn: Any, name: str) -> None:
        raise ERRORS[name]()  # noqa: RSE102

    @app.workflow()
    async def bad(run: perdure.AsyncRun, name: str) -> str:
        twice = run.options(retry=perdure.Retry(max_attempts=2, delay=timedelta(milliseconds=1)))
        if place == "async step":
            await twice.step(async_step, name)
        elif place == "plain step":
            await twice.step(plain_step, name)
        elif place == "transaction step":
            await twice.transaction(transaction, name)
        else:
            raise ERRORS[name]()  # noqa: RSE102
        return "impossible"

    @app.workflow()
    async def good(run: perdure.AsyncRun, n: int) -> int:
        return n

    ended: dict[str, Any] = {}
    async with app.worker():
        started = {name: (await app.start(bad, name)).id for name in ERRORS}

        def look() -> bool:
            rows = call(database.admin, "run_results", run_ids=list(started.values()))
            found = {row["run_id"]: row for row in rows if row["status"] is not None}
            ended.update({name: found[run_id] for name, run_id in started.items() if run_id in found})
            return len(ended) == len(ERRORS)

        try:
            await asyncio.to_thread(eventually, look, seconds=90)
        except AssertionError:
            missing = sorted(ERRORS.keys() - ended.keys())
            raise AssertionError(f"no end was recorded of: {missing}") from None
        assert await (await app.start(good, 7)).result(timeout=timedelta(seconds=60)) == 7
    for name, row in ended.items():
        assert row["status"] == "failed", name
        error = row["error"]
        assert error["type"], name
        assert isinstance(error["message"], str), name
        assert "traceback" in error, name
        assert len(str(error)) < 1_000_000, name
    assert database.value("select count(*) from perdure.violations") == 0
    assert max(len(record.getMessage()) for record in caplog.records) < 30_000
