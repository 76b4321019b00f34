"""Parsed JSON to values, by type annotations.

Invariant: the outcome depends on the data and the annotation alone, never on the order of an
object's keys; objects without a declared shape come back with their keys sorted.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import types
import typing
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from ._hints import Unresolved, filled, hints_of
from ._scalars import DECIMAL, SIMPLE, Decoder, Mismatch, expect, parsed, plain

Hook = Callable[[Any, Any], Any]
Text = Callable[[Any], str]


def build_decoder(annotation: Any, hook: Hook, text_of: Text) -> Decoder:
    """Return the decoder of an annotation; raise Unresolved for names that cannot be found."""
    return _Builder(hook, text_of).build(annotation)


_ABSTRACT: dict[Any, type] = {
    collections.abc.Sequence: list, collections.abc.MutableSequence: list, collections.abc.Iterable: list,
    collections.abc.Collection: list, collections.abc.Set: frozenset, collections.abc.MutableSet: set,
    collections.abc.Mapping: dict, collections.abc.MutableMapping: dict,
}  # fmt: skip


class _Builder:
    def __init__(self, hook: Hook, text_of: Text) -> None:
        self.hook = hook
        self.text_of = text_of
        self.known: dict[Any, Decoder] = {}

    def build(self, annotation: Any) -> Decoder:
        simple = SIMPLE.get(annotation) if isinstance(annotation, collections.abc.Hashable) else None
        return simple if simple is not None else self._build(annotation)

    def _build(self, annotation: Any) -> Decoder:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is Annotated or getattr(origin, "_name", None) in ("Required", "NotRequired", "ReadOnly"):
            return self.build(args[0])
        if origin is Union or origin is types.UnionType:
            return self._union(args)
        if origin is Literal:
            return self._literal(args)
        if isinstance(annotation, TypeVar):
            return self.build(annotation.__bound__ if annotation.__bound__ is not None else Any)
        if hasattr(annotation, "__supertype__"):  # NewType
            return self.build(annotation.__supertype__)
        if hasattr(annotation, "__value__"):  # type X = …
            return self.build(annotation.__value__)
        if isinstance(annotation, (str, typing.ForwardRef)):
            raise Unresolved(f"the annotation {annotation!r} cannot be read; define the type at module level")
        kind = origin or annotation
        if not isinstance(kind, type):
            return self._hooked(annotation)
        return self._class(annotation, _ABSTRACT.get(kind, kind), args)

    def _class(self, annotation: Any, kind: type, args: tuple[Any, ...]) -> Decoder:
        if hasattr(kind, "model_validate_json"):
            return _pydantic(kind)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(annotation, kind, args)
        if issubclass(kind, Enum):
            return self._enum(kind)
        if issubclass(kind, tuple):
            return self._named_tuple(kind) if hasattr(kind, "_fields") else self._tuple(args)
        if typing.is_typeddict(kind):
            return self._typed_dict(kind)
        if kind in (list, set, frozenset, deque):
            return self._items(kind, args[0] if args else Any)
        if kind is dict:
            return self._dict(*(args or (Any, Any)))
        if kind is Decimal:
            return lambda data: DECIMAL(str(data) if type(data) is int else data)
        if issubclass(kind, PurePath):
            return parsed("a path", kind)
        return self._hooked(annotation)

    def _hooked(self, annotation: Any) -> Decoder:
        def decode(data: Any) -> Any:
            try:
                return self.hook(data, annotation)
            except (TypeError, ValueError) as error:
                raise Mismatch(str(error)) from error

        return decode

    def _union(self, args: tuple[Any, ...]) -> Decoder:
        members = [self.build(arg) for arg in args]
        # Shapes whose fields fit exactly come first, so that a union of dataclasses picks the right one.
        exact = [member.exact for member in members if isinstance(member, _Fields)]
        if len(members) == 2 and type(None) in args:
            inner = members[1 - args.index(type(None))]
            return lambda data: None if data is None else inner(data)

        def decode(data: Any) -> Any:
            for member in (*exact, *members):
                try:
                    return member(data)
                except Mismatch:  # noqa: PERF203  the next member may fit
                    continue
            raise expect(" | ".join(getattr(arg, "__name__", str(arg)) for arg in args), data)

        return decode

    def _literal(self, args: tuple[Any, ...]) -> Decoder:
        by_text = {self.text_of(arg): arg for arg in args}

        def decode(data: Any) -> Any:
            try:
                return by_text[self.text_of(data)]
            except KeyError:
                raise expect(f"one of {list(args)}", data) from None

        return decode

    def _enum(self, kind: type[Enum]) -> Decoder:
        by_text = {self.text_of(member.value): member for member in kind}

        def decode(data: Any) -> Any:
            try:
                return by_text[self.text_of(plain(data))]
            except KeyError:
                raise expect(f"a {kind.__name__}", data) from None

        return decode

    def _items(self, kind: type, item_type: Any) -> Decoder:
        item = self.build(item_type)
        is_list = kind is list

        def decode(data: Any) -> Any:
            if type(data) is not list:
                raise expect(f"a {kind.__name__}", data)
            n = 0
            values = []
            try:
                for n, element in enumerate(data):  # noqa: B007  read by the except clause
                    values.append(item(element))
            except Mismatch as mismatch:
                mismatch.path.append(f"[{n}]")
                raise
            return values if is_list else kind(values)

        return decode

    def _tuple(self, args: tuple[Any, ...]) -> Decoder:
        if not args or (len(args) == 2 and args[1] is Ellipsis):
            items = self._items(list, args[0] if args else Any)
            return lambda data: tuple(items(data))
        members = [self.build(arg) for arg in args if arg != ()]

        def decode(data: Any) -> Any:
            if type(data) is not list or len(data) != len(members):
                raise expect(f"a tuple of {len(members)}", data)
            return tuple(
                _at(f"[{n}]", member, part) for n, (member, part) in enumerate(zip(members, data, strict=True))
            )

        return decode

    def _dict(self, key_type: Any, value_type: Any) -> Decoder:
        value = self.build(value_type)
        key = self._key(key_type)

        def decode(data: Any) -> Any:
            if type(data) is not dict:
                raise expect("a dict", data)
            return {
                (name if key is None else _at(f"[{name!r}]", key, name)): _at(f"[{name!r}]", value, data[name])
                for name in sorted(data)
            }

        return decode

    def _key(self, key_type: Any) -> Decoder | None:
        if key_type in (str, Any, object):
            return None
        decoder = self.build(key_type)
        if key_type in (int, float, bool) or (isinstance(key_type, type) and issubclass(key_type, (int, float))):
            return lambda name: decoder(json.loads(name))
        if isinstance(key_type, type) and issubclass(key_type, Enum):
            return _first(decoder, lambda name: decoder(json.loads(name)))
        return decoder

    def _dataclass(self, annotation: Any, kind: type, args: tuple[Any, ...]) -> Decoder:
        if annotation in self.known:
            return self.known[annotation]
        fields = _Fields(kind)
        self.known[annotation] = fields  # before its fields: a type may contain itself
        hints = hints_of(kind)
        given = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
        for field in dataclasses.fields(kind):
            if field.init:
                is_optional = not (
                    field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
                )
                fields.add(field.name, self.build(filled(hints.get(field.name, Any), given)), is_optional)
        return fields

    def _named_tuple(self, kind: Any) -> Decoder:
        hints = hints_of(kind)
        fields = _Fields(kind)
        for name in kind._fields:
            fields.add(name, self.build(hints.get(name, Any)), name in kind._field_defaults)

        def decode(data: Any) -> Any:
            if type(data) is list:
                data = dict(zip(kind._fields, data, strict=False))
            return fields(data)

        return decode

    def _typed_dict(self, kind: Any) -> Decoder:
        fields = _Fields(dict, kind.__name__)
        for name, hint in hints_of(kind).items():
            fields.add(name, self.build(hint), name in kind.__optional_keys__)
        return fields


class _Fields:
    """The decoder of an object with named fields; unknown ones are passed over, `exact` refuses them."""

    def __init__(self, kind: Callable[..., Any], name: str | None = None) -> None:
        self.kind = kind
        self.name = name or getattr(kind, "__name__", repr(kind))
        self.fields: dict[str, Decoder] = {}
        self.required: set[str] = set()

    def add(self, name: str, decoder: Decoder, is_optional: bool) -> None:
        self.fields[name] = decoder
        if not is_optional:
            self.required.add(name)

    def __call__(self, data: Any) -> Any:
        if type(data) is not dict:
            raise expect(f"a {self.name}", data)
        if not self.required <= data.keys():
            missing = ", ".join(sorted(self.required - data.keys()))
            raise Mismatch(f"{self.name} lacks {missing}")
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, decoder in self.fields.items():
                if name in data:
                    values[name] = decoder(data[name])
        except Mismatch as mismatch:
            mismatch.path.append(f".{name}")
            raise
        try:
            return self.kind(**values)
        except (TypeError, ValueError) as error:  # what __post_init__ refuses
            raise Mismatch(f"{self.name} refuses: {error}") from error

    def exact(self, data: Any) -> Any:
        if type(data) is not dict or not data.keys() <= self.fields.keys():
            raise expect(f"exactly a {self.name}", data)
        return self(data)


def _at(place: str, decoder: Decoder, data: Any) -> Any:
    try:
        return decoder(data)
    except Mismatch as mismatch:
        mismatch.path.append(place)
        raise
    except ValueError:
        raise expect("such a key", data) from None


def _first(*decoders: Decoder) -> Decoder:
    def decode(data: Any) -> Any:
        for decoder in decoders:
            try:
                return decoder(data)
            except (Mismatch, ValueError):  # noqa: PERF203  the next may fit
                continue
        raise expect("such a key", data)

    return decode


def _pydantic(kind: Any) -> Decoder:
    def decode(data: Any) -> Any:
        try:
            return kind.model_validate_json(json.dumps(data))
        except ValueError as error:
            raise Mismatch(str(error)) from error

    return decode
