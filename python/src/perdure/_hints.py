"""Annotations of functions and classes, resolved.

Invariant: what cannot be resolved is said at once, with the name that is missing; nothing falls
back to "anything" because of a forward reference.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, TypeVar, get_origin


class Unresolved(Exception):
    """An annotation names something that cannot be found."""


def hints_of(owner: Any, local_names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the resolved annotations of a class or function; raise Unresolved naming what is missing."""
    try:
        return typing.get_type_hints(owner, localns=local_names, include_extras=True)
    except NameError as error:
        name = getattr(owner, "__qualname__", repr(owner))
        raise Unresolved(f"annotations of {name} cannot be read ({error}); define the type at module level") from None


def return_type(fn: Callable[..., Any]) -> Any:
    """Return the resolved return annotation of a function, or Any."""
    return annotation_of(fn, "return")


def annotation_of(fn: Callable[..., Any], name: str) -> Any:
    """Return one resolved annotation of a function, or Any; the others need not be readable."""
    fn = getattr(fn, "func", fn)
    fn = getattr(fn, "__func__", fn)
    if not hasattr(fn, "__annotations__") and not isinstance(fn, type):
        fn = type(fn).__call__
    try:
        raw = getattr(fn, "__annotations__", {})
    except NameError as error:  # evaluated late, since 3.14
        raise Unresolved(f"annotations of {fn!r} cannot be read ({error}); define the type at module level") from None
    if name not in raw:
        return Any

    def only_this() -> None: ...

    only_this.__annotations__ = {name: raw[name]}
    only_this.__qualname__ = getattr(fn, "__qualname__", repr(fn))
    names = {**getattr(fn, "__globals__", {}), **_closure(fn)}
    return hints_of(only_this, names)[name]


def _closure(fn: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    code = getattr(fn, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(fn, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # noqa: PERF203  not filled yet
            continue
    return names


def filled(annotation: Any, given: dict[Any, Any]) -> Any:
    if isinstance(annotation, TypeVar):
        return given.get(annotation, annotation)
    parameters = getattr(annotation, "__parameters__", ())
    if given and parameters and get_origin(annotation) is not None:
        return annotation[tuple(given.get(p, p) for p in parameters)]
    return annotation
