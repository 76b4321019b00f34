"""Values to JSON texts.

Invariant: `decode(json.loads(encode(v)))` equals `decode(...)` of the same text after it went
through jsonb. jsonb forgets the order of keys, exponents, the sign of zero, and refuses NUL and
lone surrogates; so texts have sorted keys and plain decimals, and what jsonb refuses is refused
here, with the place and the type.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from json import encoder as _json
from pathlib import PurePath
from typing import Any
from uuid import UUID

from ._decode import build_decoder
from ._errors import DecodingFailed, EncodingFailed, Misuse
from ._hints import Unresolved
from ._scalars import Decoder, Mismatch

# What jsonb would change or refuse; seen in a text, the slow and careful way is taken.
_SUSPECT = re.compile(r"\d[eE][-+]\d|-0\.0|\\u0000")
_PLACEHOLDER = re.compile(r'"\\u0000(-?[0-9.]+)"')


_parser = json.JSONDecoder()


def parse(text: str) -> Any:
    """Return what JSON text without space around it stands for."""
    return _parser.raw_decode(text)[0]


# No limit of the database lets more pass; to look at it and to send it would hold up the runs beside it.
_LONGEST = 64 * 1024 * 1024


class Codec:
    """Turn values into JSON and back, by their type annotations.

    Plain JSON values, dataclasses, pydantic models, named tuples, typed dicts, enums, datetime's and
    decimal's types, UUIDs, bytes, paths, lists, tuples, sets and dicts are known. For other types
    override `to_json` and `from_json`.
    """

    def __init__(self) -> None:
        self._json = _encoder(self._plain)
        self._decoders: dict[Any, Decoder] = {}

    def to_json(self, value: Any) -> Any:
        """Return a JSON form of a value whose type is not known; raise TypeError for none."""
        raise TypeError(f"{_type_name(value)} has no JSON form")

    def from_json(self, data: Any, type: Any) -> Any:
        """Return a value of a type that is not known from its JSON form; raise TypeError for none."""
        raise TypeError(f"{type!r} has no JSON form")

    def encode(self, value: Any, what: str = "value", of: str | None = None) -> str:
        """Return the value's JSON text; raise EncodingFailed, naming place (`what` of the key `of`) and type."""
        try:
            text = self._json(value)
            if len(text) > _LONGEST:
                what = _named(what, of)
                raise EncodingFailed(f"{what}: {len(text):,} characters of JSON; no more than {_LONGEST:,} are kept")
            if not _SUSPECT.search(text):
                if not text.isascii():
                    text.encode()
                return text
        except (TypeError, ValueError, RecursionError, AttributeError):
            pass  # the careful way finds the place, or a way
        return self._encode_carefully(value, _named(what, of))

    def decode(self, data: Any, type: Any, what: str = "value", of: str | None = None) -> Any:
        """Return the value that parsed JSON stands for; raise DecodingFailed, naming place and type."""
        try:
            return self.decoder(type, what, of)(data)
        except Mismatch as mismatch:
            raise DecodingFailed(f"{_named(what, of)}{mismatch.place()}: {mismatch.problem}") from None
        except RecursionError:
            raise DecodingFailed(f"{_named(what, of)}: nested too deeply") from None

    def decoder(self, type: Any, what: str = "value", of: str | None = None) -> Decoder:
        """Return the decoder of a type, made once; raise Misuse when its annotations cannot be read."""
        try:
            found = self._decoders.get(type)
        except TypeError:  # an annotation with unhashable metadata
            found, type_key = None, None
        else:
            type_key = type
        if found is None:
            try:
                found = build_decoder(type, self.from_json, self._text_of)
            except Unresolved as unresolved:
                raise Misuse(f"{_named(what, of)}: {unresolved}") from None
            if type_key is not None:
                self._decoders[type_key] = found
        return found

    def fingerprint(self, args: Any, kwargs: Any, what: str = "arguments", of: str | None = None) -> str:
        """Return the first 16 bytes of the SHA-256 of the arguments' canonical JSON text, in hex."""
        return hashlib.sha256(self.encode([args, kwargs], what, of).encode()).hexdigest()[:32]

    def _text_of(self, value: Any) -> str:
        return self.encode(value, "enum value")

    # What follows is called by the encoder for a value that is not JSON by itself.

    def _plain(self, value: Any) -> Any:
        known = _PLAIN.get(type(value))
        if known is not None:
            return known(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        if hasattr(type(value), "model_dump"):
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        if isinstance(value, (set, frozenset)):
            return sorted(value, key=self.encode)
        for kind, form in _PLAIN.items():
            if isinstance(value, kind):
                return form(value)
        if isinstance(value, Mapping):
            return dict(value)
        return self.to_json(value)

    def _encode_carefully(self, value: Any, what: str) -> str:
        try:
            text = self._json(self._walk(value, what, 0))
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodingFailed(f"{what}: {error}") from error
        return _PLACEHOLDER.sub(r"\1", text)

    def _walk(self, value: Any, place: str, depth: int) -> Any:
        if depth > 200:
            raise EncodingFailed(f"{place[:200]}…: nested too deeply, or it contains itself")
        if isinstance(value, Enum):
            return self._walk(value.value, place, depth + 1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return _plain_float(value, place)
        if isinstance(value, str):
            return _plain_string(value, place)
        if isinstance(value, (list, tuple)):
            return [self._walk(item, f"{place}[{n}]", depth + 1) for n, item in enumerate(value)]
        if isinstance(value, Mapping):
            walked: dict[str, Any] = {}
            for key, item in value.items():
                name = self._key_text(key, place)
                if name in walked:
                    raise EncodingFailed(f"{place}: two keys are {name!r} in JSON")
                walked[name] = self._walk(item, f"{place}[{key!r}]", depth + 1)
            return walked
        try:
            plain = self._plain(value)
        except EncodingFailed:
            raise
        except Exception as error:
            says = f"{_type_name(value)} has no JSON form"
            because = "" if str(error) == says else f" ({error})"
            raise EncodingFailed(f"{place}: {says}{because}") from error
        return self._walk(plain, place, depth + 1)

    def _key_text(self, key: Any, place: str) -> str:
        if isinstance(key, Enum):
            key = key.value
        if isinstance(key, str):
            return _plain_string(key, f"{place}[{key!r}]")
        if key is None or isinstance(key, (bool, int, float)):
            return json.dumps(key)
        known = _PLAIN.get(type(key))
        text = known(key) if known is not None else None
        if not isinstance(text, str):
            raise EncodingFailed(f"{place}: a key of {_type_name(key)} has no JSON form")
        return text


def _encoder(default: Callable[[Any], Any]) -> Callable[[Any], str]:
    """Return what makes canonical JSON text; where the interpreter has it in C it is made once, not at each call."""
    make = getattr(_json, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=default
        ).encode
    # what contains itself ends in a RecursionError, without a note of all that is open
    pieces = make(None, default, _json.encode_basestring, None, ":", ",", True, False, False)
    return lambda value: "".join(pieces(value, 0))


def _named(what: str, of: str | None) -> str:
    return what if of is None else f"{what} {of!r}"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _plain_string(value: str, place: str) -> str:
    if "\0" in value:
        raise EncodingFailed(f"{place}: a string with a NUL character cannot be kept in Postgres")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EncodingFailed(f"{place}: a string with a lone surrogate cannot be kept in Postgres") from None
    return str(value)


def _plain_float(value: float, place: str) -> Any:
    if value != value or value in (float("inf"), float("-inf")):
        raise EncodingFailed(f"{place}: {value!r} is not a JSON number")
    if value == 0:
        return 0.0
    text = float.__repr__(value)
    if "e" not in text:
        return float(value)
    digits = format(Decimal(text), "f")
    return "\0" + (digits if "." in digits else digits + ".0")


def _duration(value: timedelta) -> str:
    """Return ISO 8601, whole microseconds kept; Postgres reads it as an interval."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    return f"P{sign}{value.days}DT{sign}{value.seconds}{fraction}S"


_PLAIN: dict[type, Callable[[Any], Any]] = {
    datetime: lambda v: v.isoformat(),
    date: lambda v: v.isoformat(),
    time: lambda v: v.isoformat(),
    timedelta: _duration,
    UUID: str,
    Decimal: str,
    bytes: lambda v: base64.b64encode(v).decode(),
    bytearray: lambda v: base64.b64encode(v).decode(),
    deque: list,
    Enum: lambda v: v.value,
    PurePath: str,
}
