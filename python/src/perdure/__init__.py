"""Perdure: durable workflow execution inside your own Postgres."""

from __future__ import annotations

from typing import Any

from ._app import App
from ._client import AsyncClient, AsyncHandle, OnDuplicate
from ._codec import Codec
from ._errors import (
    Cancelled,
    ClaimLost,
    CodecError,
    DatabaseError,
    DecodingFailed,
    DoNotRetry,
    EncodingFailed,
    Error,
    Held,
    IllegalAct,
    KeyConflict,
    LimitExceeded,
    Misuse,
    NotFinished,
    RetryAfter,
    RunCancelled,
    RunDead,
    RunFailed,
    RunFinished,
    RunNotFound,
    RunTerminated,
    RunTimedOut,
    StepConflict,
    StepFailed,
    Stuck,
    TimedOut,
)
from ._options import Retry, Signal, StepInfo, Value, current_step, step
from ._pending import Pending
from ._registry import Workflow
from ._run import AsyncRun

Conn = Any
"""What a transaction step receives: psycopg's AsyncConnection, in its transaction."""

__all__ = [
    "App",
    "AsyncClient",
    "AsyncHandle",
    "AsyncRun",
    "Cancelled",
    "ClaimLost",
    "Codec",
    "CodecError",
    "Conn",
    "DatabaseError",
    "DecodingFailed",
    "DoNotRetry",
    "EncodingFailed",
    "Error",
    "Held",
    "IllegalAct",
    "KeyConflict",
    "LimitExceeded",
    "Misuse",
    "NotFinished",
    "OnDuplicate",
    "Pending",
    "Retry",
    "RetryAfter",
    "RunCancelled",
    "RunDead",
    "RunFailed",
    "RunFinished",
    "RunNotFound",
    "RunTerminated",
    "RunTimedOut",
    "Signal",
    "StepConflict",
    "StepFailed",
    "StepInfo",
    "Stuck",
    "TimedOut",
    "Value",
    "Workflow",
    "current_step",
    "step",
]

for _name in __all__:
    _public = globals()[_name]
    if hasattr(_public, "__module__") and getattr(_public, "__module__", "").startswith("perdure."):
        _public.__module__ = "perdure"
del _name, _public
