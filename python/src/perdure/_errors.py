"""What can go wrong, as one tree.

    Error                       base of all ordinary errors
    ├── StepFailed              a step failed for good
    ├── TimedOut                a wait's time ran out (also a TimeoutError)
    ├── Misuse                  the program asked for something that cannot work
    ├── CodecError
    │   ├── EncodingFailed      a value has no JSON form
    │   └── DecodingFailed      a saved value does not fit the type that is asked for
    ├── Stuck                   a run waits for nothing that could ever come
    └── DatabaseError           one class per SQLSTATE of class PD
        ├── RunNotFound         PD001
        ├── ClaimLost           PD002
        ├── RunFinished         PD003
        ├── Held                PD004
        ├── KeyConflict         PD005
        ├── StepConflict        PD006
        ├── NotFinished         PD007
        ├── RunFailed           PD008
        ├── IllegalAct          PD009
        ├── LimitExceeded       PD010
        ├── RunCancelled        PD012
        ├── RunTimedOut         PD013
        ├── RunTerminated       PD014
        └── RunDead             PD015

Beside it: `RetryAfter` and `DoNotRetry`, which a step raises to steer its retries, and
`Cancelled`, a BaseException, which reaches a run that was cancelled or whose deadline has passed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID


class Error(Exception):
    """Base of all ordinary errors of this package."""


class StepFailed(Error):
    """A step failed for good: its tries are used up, or its error stops them."""

    def __init__(
        self,
        type: str,
        message: str,
        details: Any = None,
        attempts: int = 1,
        *,
        key: str | None = None,
    ) -> None:
        super().__init__(type, message, details, attempts)
        self.type = type
        self.message = message
        self.details = details
        self.attempts = attempts
        self.key = key

    def __str__(self) -> str:
        step = "a step" if self.key is None else f"step {self.key!r}"
        tries = "1 try" if self.attempts == 1 else f"{self.attempts} tries"
        return f"{step} failed after {tries}: {self.type}: {self.message}"


class TimedOut(Error, TimeoutError):
    """What was waited for did not come in time."""


class Misuse(Error):
    """The program asked for something that cannot work; the message says what to do instead."""


class CodecError(Error):
    """A value does not pass between Python and JSON."""


class EncodingFailed(CodecError):
    """A value has no JSON form; the message names its place and type."""


class DecodingFailed(CodecError):
    """A saved value does not fit the type that is asked for; the message names its place."""


class Stuck(Error):
    """The run waits, but for nothing that could ever come."""


class DatabaseError(Error):
    """The database refused, with a SQLSTATE of class PD.

    `run_id` and `error` (type, message, …) are set where it tells how a run ended.
    """

    sqlstate: ClassVar[str] = ""
    run_id: UUID | None = None
    error: dict[str, Any] | None = None


class RunNotFound(DatabaseError):
    """There is no such run."""

    sqlstate = "PD001"


class ClaimLost(DatabaseError):
    """This worker no longer holds the run, or is no longer registered."""

    sqlstate = "PD002"


class RunFinished(DatabaseError):
    """The run has ended, and the act cannot answer that."""

    sqlstate = "PD003"


class Held(DatabaseError):
    """The installation is on hold."""

    sqlstate = "PD004"


class KeyConflict(DatabaseError):
    """The key belongs to a run with another input."""

    sqlstate = "PD005"


class StepConflict(DatabaseError):
    """What is on record under a step's key is not what the code asks for."""

    sqlstate = "PD006"


class NotFinished(DatabaseError):
    """The run has not ended yet."""

    sqlstate = "PD007"


class RunFailed(DatabaseError):
    """The run ended with an error."""

    sqlstate = "PD008"


class IllegalAct(DatabaseError):
    """The run's state does not allow the act."""

    sqlstate = "PD009"


class LimitExceeded(DatabaseError):
    """A limit of the installation was exceeded."""

    sqlstate = "PD010"


class RunCancelled(DatabaseError):
    """The run ended cancelled."""

    sqlstate = "PD012"


class RunTimedOut(DatabaseError):
    """The run ended at its deadline."""

    sqlstate = "PD013"


class RunTerminated(DatabaseError):
    """The run was ended by force."""

    sqlstate = "PD014"


class RunDead(DatabaseError):
    """The run was given up after too many recoveries."""

    sqlstate = "PD015"


class Cancelled(BaseException):
    """The run was cancelled, or its deadline has passed; raised inside the run only.

    `status` is cancelled or timed_out; `reason` is what the caller gave.
    """

    def __init__(self, status: str = "cancelled", reason: str | None = None) -> None:
        super().__init__(status if reason is None else f"{status}: {reason}")
        self.status = status
        self.reason = reason


class RetryAfter(Exception):
    """Raised by a step: this try failed, try again after the delay."""

    def __init__(self, delay: timedelta, message: str = "") -> None:
        super().__init__(message or f"try again after {delay}")
        self.delay = delay


class DoNotRetry(Exception):
    """Raised by a step: no further try would help."""
