"""What is known of a function that runs as a step, read once per function, and how a run asks for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType
from typing import Any, NamedTuple
from weakref import ref

from ._hints import return_type
from ._options import Retry, StepOptions, step_name, step_options


@dataclass(frozen=True, slots=True)
class StepTraits:
    """Options, name in keys, return annotation, and whether to await it."""

    options: StepOptions
    name: str
    result_type: Any
    is_async: bool


class StepPlan(NamedTuple):
    """How to run a step; a transaction's function gets the connection first."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    traits: StepTraits
    retry: Retry
    timeout: timedelta | None
    at_most_once: bool
    is_transaction: bool = False


_known: dict[int, tuple[ref[FunctionType], StepTraits]] = {}


def traits_of(fn: Callable[..., Any]) -> StepTraits:
    """Return a function's traits; raise Misuse without a name, Unresolved for an annotation that cannot be read."""
    known = _known.get(id(fn))
    if known is not None and known[0]() is fn:
        return known[1]
    options = step_options(fn)
    traits = StepTraits(options, step_name(fn, options), return_type(fn), _is_async(fn))
    if isinstance(fn, FunctionType):
        number = id(fn)
        _known[number] = ref(fn, lambda _: _known.pop(number, None)), traits
    return traits


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
