"""Exceptions to JSON and back.

Invariant: what a workflow sees of a failed step is made from the recorded JSON alone, so it is the
same before and after a crash.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ._codec import Codec
from ._errors import Cancelled, CodecError, RetryAfter, StepFailed
from ._hints import Unresolved, hints_of

_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")
_MAX_NAME = 200
_MAX_MESSAGE = 10_000
_MAX_TRACEBACK = 20_000
_MAX_FIELD = 100_000  # bytes of the details, of the arguments and of the state; what is larger is left out

# A metaclass may answer for its classes, and raise.
_NAME = type.__dict__["__name__"]
_ORDER = type.__dict__["__mro__"]


def error_text(error: BaseException, codec: Codec, *, attempts: int | None = None, step: str | None = None) -> str:
    """Return the JSON text that records an exception.

    Fields: type, message, types (along the MRO), traceback; attempts, details, retry_after, and args
    and state (to rebuild declared errors) where there are any and they are not too large; step in a run's error.
    Never fails, whatever the exception's own code does.
    """
    record: dict[str, Any] = {
        "type": type_name(error),
        "message": message_of(error),
        "types": _families_of(type(error)),
        "traceback": clean(_traceback(error)[-_MAX_TRACEBACK:]),
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
        _add(record, "details", lambda: getattr(error, "details", None), codec)
        _add(record, "args", lambda: list(error.args), codec)
        _add(record, "state", lambda: {k: v for k, v in vars(error).items() if not k.startswith("__")}, codec)
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


def type_name(error: BaseException) -> str:
    """Return the name of an exception's type, whatever its metaclass says."""
    return _name(type(error))


def message_of(error: BaseException) -> str:
    """Return what an exception says, as far as it can be kept."""
    try:
        return clean(str(error)[:_MAX_MESSAGE])
    except BaseException:  # noqa: BLE001  a broken __str__ must not hide the failure
        return f"<{type_name(error)} whose str() fails>"


def described(error: BaseException) -> str:
    """Return an exception's type and message, for a log or a reason."""
    return f"{type_name(error)}: {message_of(error)}"


def _name(kind: type) -> str:
    name: str = _NAME.__get__(kind)
    return name[:_MAX_NAME]


def _families_of(kind: type) -> list[str]:
    return [_name(base) for base in _ORDER.__get__(kind) if base is not object]


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:  # noqa: BLE001  groups too deep, or a part of it that cannot be shown
        return "".join(traceback.format_tb(error.__traceback__)) + described(error)


def _add(record: dict[str, Any], name: str, read: Callable[[], Any], codec: Codec) -> None:
    try:
        value = read()
        if value is None or (isinstance(value, (dict, list)) and not value):
            return
        if len(codec.encode(value).encode()) > _MAX_FIELD:
            return
    except BaseException:  # noqa: BLE001  what cannot be read or encoded is left out, the failure is not
        return
    record[name] = value


def _rebuild(error: dict[str, Any], raises: Sequence[type[Exception]], codec: Codec) -> Exception | None:
    kind = next((kind for kind in _families(raises) if _name(kind) == error.get("type")), None)
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
