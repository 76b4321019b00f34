"""Values to JSON and back: the same before and after jsonb."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driver.fake_engine import jsonb
from perdure import Codec, DecodingFailed, EncodingFailed, Misuse
from perdure._hints import return_type

codec = Codec()
T = TypeVar("T")


class Color(Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Options(TypedDict, total=False):
    name: str
    at: datetime


@dataclass
class Leaf:
    n: int
    note: str | None = None


@dataclass
class Tree:
    leaf: Leaf
    children: list[Tree] = field(default_factory=list)


@dataclass
class Other:
    n: int
    extra: list[int]


@dataclass
class Box(Generic[T]):
    item: T
    more: list[T]


class Model(pydantic.BaseModel):
    at: datetime
    leaf: Leaf
    price: Decimal


UserId = NewType("UserId", int)
NOW = datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=timezone.utc)

VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (int, 10**40),
    (float, 1e16),
    (float, 1.5e300),
    (float, 5e-324),
    (bool, True),
    (str, 'é😀\n"\\u0000'),
    (bytes, b"\x00\xff"),
    (datetime, NOW),
    (datetime, NOW.replace(tzinfo=None)),
    (datetime, NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    (date, NOW.date()),
    (time, NOW.time()),
    (timedelta, timedelta(days=-3, microseconds=7)),
    (timedelta, timedelta(days=999_999, seconds=5)),
    (UUID, UUID(int=7)),
    (Decimal, Decimal("1.10")),
    (PurePosixPath, PurePosixPath("a/b")),
    (Color, Color.PAIR),
    (Level, Level.LOW),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[()], ()),
    (set[int], {3, 1}),
    (frozenset[str], frozenset("ab")),
    (deque[int], deque([1, 2])),
    (dict[int, Leaf], {1: Leaf(1), 10: Leaf(2)}),
    (dict[UUID, float], {UUID(int=1): 1.0}),
    (dict[Color, int], {Color.RED: 1}),
    (dict[date, bool], {NOW.date(): False}),
    (Sequence[Leaf], [Leaf(1)]),
    (Mapping[str, Leaf], {"a": Leaf(1)}),
    (Optional[Leaf], None),  # noqa: UP045  both ways to write it
    (Leaf | None, Leaf(1, "x")),
    (Union[Leaf, Other], Other(1, [2])),  # noqa: UP007
    (Union[Other, Leaf], Leaf(1)),  # noqa: UP007
    (int | str, "1"),
    (Literal["a", 1], 1),
    (Annotated[int, "meta"], 1),
    (UserId, UserId(5)),
    (Point, Point(1, 2.0)),
    (Options, {"name": "a", "at": NOW}),
    (Tree, Tree(Leaf(1), [Tree(Leaf(2)), Tree(Leaf(3, "z"))])),
    (Box[Leaf], Box(Leaf(1), [Leaf(2)])),
    (Model, Model(at=NOW, leaf=Leaf(1), price=Decimal("1.10"))),
    (list[Model], [Model(at=NOW, leaf=Leaf(1), price=Decimal(2))]),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(VALUES)])
def test_a_value_comes_back_equal_live_and_from_jsonb(kind: Any, value: Any) -> None:
    text = codec.encode(value)
    live, replayed = codec.decode(json.loads(text), kind), codec.decode(jsonb(text), kind)
    assert live == value and replayed == value
    assert type(live) is type(value) is type(replayed)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(anything)
def test_any_json_value_is_the_same_live_and_from_jsonb(value: Any) -> None:
    text = codec.encode(value)
    live, replayed = codec.decode(json.loads(text), Any), codec.decode(jsonb(text), Any)
    assert live == value and repr(live) == repr(replayed), "also types, the order of keys, and the sign of zero"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [object()]}, "value['a'][0]: object has no JSON form"),
        ([math.nan], "value[0]: nan is not a JSON number"),
        ({"x": math.inf}, "value['x']: inf is not a JSON number"),
        (["a\0b"], "value[0]: a string with a NUL"),
        ({"k": "\ud800"}, "value['k']: a string with a lone surrogate"),
        ({(1, 2): 3}, "a key of tuple has no JSON form"),
        ({1: "a", "1": "b"}, "two keys are '1'"),
        ({"n": "1e+5", "o": {1j}}, "complex"),
    ],
)
def test_what_has_no_json_form_is_refused_with_place_and_type(value: Any, words: str) -> None:
    with pytest.raises(EncodingFailed) as caught:
        codec.encode(value)
    assert words in str(caught.value) and str(caught.value).count("has no JSON form") <= 1


def test_a_text_that_no_limit_lets_pass_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(EncodingFailed, match=r"^result: 67,108,867 characters of JSON; no more than 67,108,864"):
        Codec().encode("a" * (64 * 1024 * 1024 + 1), "result")


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodingFailed, match="contains itself"):
        codec.encode(endless)


def test_strings_that_look_like_numbers_with_exponents_are_left_alone() -> None:
    assert json.loads(codec.encode(["1e+16", "-0.0", 1e16, -0.0])) == ["1e+16", "-0.0", 1e16, 0.0]
    assert codec.encode([1e22, 1e-7]) == "[10000000000000000000000.0,0.0000001]"


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (int, "1", '"1" is not an int'),
        (int, True, "true is not an int"),
        (Tree, {"leaf": {"n": 1}, "children": [{"leaf": {}}]}, "value.children[0].leaf: Leaf lacks n"),
        (dict[str, list[int]], {"a": [1, "x"]}, "value['a'][1]"),
        (Color, "blue", "is not a Color"),
        (Literal["a"], "b", "is not one of"),
        (Leaf | Other | int, {"m": 1}, "is not Leaf | Other | int"),
        (datetime, "yesterday", "is not a datetime"),
        (tuple[int, int], [1], "is not a tuple of 2"),
        (Model, {"at": 1}, "Field required"),
    ],
)
def test_what_does_not_fit_its_type_is_refused_with_its_place(kind: Any, data: Any, words: str) -> None:
    with pytest.raises(DecodingFailed) as caught:
        codec.decode(data, kind)
    assert words in str(caught.value)


def test_a_field_added_with_a_default_and_one_removed_do_not_disturb() -> None:
    assert codec.decode({"n": 1, "removed": 2}, Leaf) == Leaf(1, None)


@pytest.mark.parametrize(
    "text",
    ["2026-11-22T01:02:03Z", "2026-11-22 01:02:03+00", "2026-11-22T01:02:03.000+00:00", "2026-11-22T01:02:03.0+00:00"],
)
def test_times_as_postgres_and_others_write_them_are_read(text: str) -> None:
    assert codec.decode(text, datetime) == NOW.replace(microsecond=0)


def test_a_fingerprint_tells_arguments_apart_and_knows_the_same_again() -> None:
    first = codec.fingerprint((1, {"b": 2, "a": 1}), {"k": {3, 1, 2}})
    assert first == codec.fingerprint((1, {"a": 1, "b": 2}), {"k": {2, 1, 3}}) and len(first) == 32
    assert first != codec.fingerprint((2, {"a": 1, "b": 2}), {"k": {1, 2, 3}})


def test_a_codec_can_be_taught_another_type() -> None:
    class Money:
        def __init__(self, cents: int) -> None:
            self.cents = cents

    class Taught(Codec):
        def to_json(self, value: Any) -> Any:
            return value.cents if isinstance(value, Money) else super().to_json(value)

        def from_json(self, data: Any, type: Any) -> Any:
            return Money(data) if type is Money else super().from_json(data, type)

    taught = Taught()
    assert taught.encode([Money(5)]) == "[5]"
    assert taught.decode([5], list[Money])[0].cents == 5
    with pytest.raises(DecodingFailed, match="has no JSON form"):
        codec.decode([5], list[Money])


def test_a_type_of_a_function_is_found_and_a_missing_one_named() -> None:
    @dataclass
    class Local:
        n: int

    def good() -> list[Local]:
        return [Local(1)]

    def bad() -> Missing:  # type: ignore[name-defined]  # noqa: F821
        ...

    assert return_type(good) == list[Local]
    with pytest.raises(Exception, match="Missing"):
        return_type(bad)


def test_a_dataclass_with_an_annotation_nobody_can_read_is_refused_early() -> None:
    @dataclass
    class Bad:
        n: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(Misuse, match="Nowhere"):
        codec.decoder(Bad)
