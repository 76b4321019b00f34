"""Exceptions to JSON and back.

Invariant: what a workflow sees of a failed step is made from the recorded JSON alone, so it is the
same before and after a crash.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from ._codec import Codec
from ._errors import Cancelled, CodecError, RetryAfter, StepFailed
from ._hints import Unresolved, hints_of

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_MAX_MESSAGE = 10_000
_MAX_TRACEBACK = 20_000


def error_text(error: BaseException, codec: Codec, *, attempts: int | None = None, step: str | None = None) -> str:
    """Return the JSON text that records an exception.

    Fields: type, message, types (along the MRO), traceback; attempts, details, retry_after, and args
    and state (to rebuild declared errors) where there are any; step in a run's error.
    """
    kind = type(error)
    record: dict[str, Any] = {
        "type": kind.__name__,
        "message": clean(_message(error))[:_MAX_MESSAGE],
        "types": [base.__name__ for base in kind.__mro__ if base is not object],
        "traceback": clean("".join(traceback.format_exception(kind, error, error.__traceback__)))[-_MAX_TRACEBACK:],
    }
    if attempts is not None:
        record["attempts"] = attempts
    if isinstance(error, RetryAfter):
        record["retry_after"] = max(0.0, error.delay.total_seconds())
    if isinstance(error, StepFailed):
        record["details"] = {"type": error.type, "attempts": error.attempts, "details": error.details}
        step = step or error.key
    elif isinstance(error, Cancelled):
        record["details"] = {"status": error.status, "reason": error.reason}
    else:
        _add(record, "details", getattr(error, "details", None), codec)
        _add(record, "args", list(error.args), codec)
        _add(record, "state", {k: v for k, v in vars(error).items() if not k.startswith("__")}, codec)
    if step is not None:
        record["step"] = step
    return codec.encode(record, "error")


def interrupted_text(codec: Codec) -> str:
    """Return the record of an at-most-once step that was under way when its worker died."""
    message = "it was started at most once, and nobody knows how far it came"
    return codec.encode({"type": "Interrupted", "message": message, "types": ["Interrupted"], "attempts": 1})


def raised_by(error: dict[str, Any], key: str, raises: Sequence[type[Exception]], codec: Codec) -> Exception:
    """Return what a failed step raises in the workflow: a declared error as itself, else StepFailed."""
    rebuilt = _rebuild(error, raises, codec) if raises else None
    if rebuilt is not None:
        return rebuilt
    return StepFailed(
        str(error.get("type", "Exception")),
        str(error.get("message", "")),
        codec.decode(error.get("details"), Any),
        int(error.get("attempts", 1)),
        key=key,
    )


def clean(text: str) -> str:
    """Return the text without characters that Postgres cannot keep."""
    return _UNKEEPABLE.sub("\ufffd", text)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide the failure
        return f"<{type(error).__name__} whose str() fails>"


def _add(record: dict[str, Any], name: str, value: Any, codec: Codec) -> None:
    if value in (None, {}, []):
        return
    try:
        codec.encode(value)
    except CodecError:
        return
    record[name] = value


def _rebuild(error: dict[str, Any], raises: Sequence[type[Exception]], codec: Codec) -> Exception | None:
    kind = next((kind for kind in _families(raises) if kind.__name__ == error.get("type")), None)
    if kind is None:
        return None
    # Not by calling it: __init__ may take other arguments than those it leaves in args.
    try:
        args = tuple(codec.decode(error.get("args", []), list[Any]))
        rebuilt = kind.__new__(kind, *args)
        rebuilt.args = args
        hints = hints_of(kind)
        for name, value in (error.get("state") or {}).items():
            setattr(rebuilt, name, codec.decode(value, hints.get(name, Any)))
    except (TypeError, ValueError, AttributeError, CodecError, Unresolved):
        return None
    return rebuilt


def _families(kinds: Iterable[type[Exception]]) -> Iterable[type[Exception]]:
    for kind in kinds:
        yield kind
        yield from _families(kind.__subclasses__())
