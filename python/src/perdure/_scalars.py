"""JSON scalars to values of the types that have no parts.

Invariant: a decoder takes only what its type's encoder writes, and the forms that Postgres writes
for the same type; it never guesses (no int from a string, no string from an int).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

Decoder = Callable[[Any], Any]


class Mismatch(Exception):
    """Data does not fit a type; the place is put together on the way up."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: list[str] = []

    def place(self) -> str:
        return "".join(reversed(self.path))


def plain(data: Any) -> Any:
    """Return JSON data with the keys of all objects sorted."""
    if type(data) is dict:
        return {key: plain(data[key]) for key in sorted(data)}
    if type(data) is list:
        return [plain(item) for item in data]
    return data


def expect(kind: str, data: Any) -> Mismatch:
    shown = json.dumps(data, ensure_ascii=False)
    return Mismatch(f"{shown if len(shown) <= 60 else shown[:57] + '…'} is not {kind}")


def _int(data: Any) -> int:
    if type(data) is int:
        return data
    if type(data) is float and data.is_integer():
        return int(data)
    raise expect("an int", data)


def _float(data: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int:
        return float(data)
    raise expect("a float", data)


def _bool(data: Any) -> bool:
    if type(data) is bool:
        return data
    raise expect("a bool", data)


def _str(data: Any) -> str:
    if type(data) is str:
        return data
    raise expect("a str", data)


def _none(data: Any) -> None:
    if data is not None:
        raise expect("None", data)


def parsed(kind: str, parse: Callable[[str], Any]) -> Decoder:
    def decode(data: Any) -> Any:
        if type(data) is str:
            try:
                return parse(data)
            except (ValueError, InvalidOperation):
                pass
        raise expect(kind, data)

    return decode


def _zulu(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    # 3.10 reads neither Z nor fractions other than of 3 or 6 digits; Postgres writes both.
    def read(text: str) -> Any:
        text = re.sub(r"[zZ]$", "+00:00", text)
        text = re.sub(r"\.(\d{1,6})\d*", lambda m: "." + m[1].ljust(6, "0"), text)
        return parse(re.sub(r"([+-]\d\d)$", r"\1:00", text) if ":" in text else text)

    return read


read_timestamp: Callable[[str], datetime] = _zulu(datetime.fromisoformat)

_DURATION = re.compile(r"P(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?")


def _timedelta(data: Any) -> timedelta:
    if type(data) in (int, float):
        return timedelta(seconds=data)
    found = _DURATION.fullmatch(data) if type(data) is str else None
    if not found:
        raise expect("a timedelta (ISO 8601)", data)
    days, hours, minutes, sign, seconds, fraction = found.groups()
    rest = timedelta(seconds=int(seconds or 0), microseconds=int((fraction or "").ljust(6, "0")))
    return timedelta(days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0)) + (-rest if sign else rest)


SIMPLE: dict[Any, Decoder] = {
    Any: plain, object: plain, int: _int, float: _float, bool: _bool, str: _str, None: _none, type(None): _none,
    datetime: parsed("a datetime", read_timestamp), date: parsed("a date", date.fromisoformat),
    time: parsed("a time", _zulu(time.fromisoformat)), timedelta: _timedelta, UUID: parsed("a UUID", UUID),
    bytes: parsed("bytes (base64)", lambda t: base64.b64decode(t, validate=True)),
    bytearray: parsed("bytes (base64)", lambda t: bytearray(base64.b64decode(t, validate=True))),
}  # fmt: skip
DECIMAL = parsed("a Decimal", Decimal)
