"""JSON that Postgres keeps and Python cannot read: nested too deeply, or a number of too many digits.

Invariant: what one run holds stops nobody else. Rows of many runs come in one answer, so a value that cannot be read
does not raise where it is loaded; something stands in its place, and whoever needs the value raises.
"""

from __future__ import annotations

from json import JSONDecoder
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format

from ._errors import DecodingFailed

_read = JSONDecoder().raw_decode

AnyConnection = TypeVar("AnyConnection", bound=psycopg.BaseConnection[Any])


class Unreadable:
    """Stands for a value that could not be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def refusal(self) -> DecodingFailed:
        """Return the error for whoever needs the value."""
        return DecodingFailed(f"what is saved cannot be read here: {type(self.error).__name__}: {self.error}")


class _TextLoader(Loader):
    def load(self, data: Buffer) -> Any:
        """Return the value, or what stands for it."""
        try:
            return _read(str(data, "utf-8"))[0]
        except (ValueError, RecursionError) as error:
            return Unreadable(error)


class _BinaryLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        """Return the value, or what stands for it."""
        try:
            return _read(str(data, "utf-8"), 1)[0]  # behind the number of the binary form
        except (ValueError, RecursionError) as error:
            return Unreadable(error)


def forgive(conn: AnyConnection) -> AnyConnection:
    """Let a connection load what it can, whatever stands beside it."""
    conn.adapters.register_loader("jsonb", _TextLoader)
    conn.adapters.register_loader("jsonb", _BinaryLoader)
    return conn


def readable(*values: Any) -> None:
    """Raise DecodingFailed for the first value that could not be read."""
    for value in values:
        if isinstance(value, Unreadable):
            raise value.refusal()
