"""Rows and JSON objects of the worker's functions, to and from the types of the seam.

Invariant: results and errors pass as the JSON texts that they are; nothing here parses what it sends.
Times come back in UTC, so that what a run reads live and on replay is one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from json.encoder import encode_basestring as quote
from typing import Any

from ._codec import parse
from ._engine import Checkpoint, Claimed, FailedTry, Save, Wait
from ._scalars import read_timestamp
from ._sql import to_json
from ._unreadable import readable


def parse_time(text: str) -> datetime:
    """Return a timestamp of jsonb, in UTC."""
    return read_timestamp(text).astimezone(timezone.utc)


def checkpoint_of(found: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint from the object that read_steps, claim_runs and suspend_runs answer."""
    readable(found)
    return Checkpoint(
        found["ordinal"],
        found["key"],
        found["kind"],
        found.get("name"),
        found.get("fingerprint"),
        "result" in found,
        found.get("result"),
        found.get("error"),
        parse_time(found["saved_at"]),
    )


def recorded_of(row: Mapping[str, Any], save: Save) -> Checkpoint:
    """Return the checkpoint that save_steps answers; of a new one it repeats nothing, and its result is with who sent it."""
    saved_at = row["saved_at"].astimezone(timezone.utc)
    if row["answer"] == "saved":
        error = None if save.error_text is None else parse(save.error_text)
        return Checkpoint(
            row["ordinal"], save.key, save.kind, save.name, save.fingerprint, error is None, None, error, saved_at
        )
    result, error = row["result"], row["error"]
    readable(result, error)
    return Checkpoint(
        row["ordinal"], save.key, row["kind"], save.name, row["fingerprint"], error is None, result, error, saved_at
    )


def claimed_of(row: Mapping[str, Any], later_steps: Sequence[Mapping[str, Any]] = ()) -> Claimed:
    """Return a claimed run from its row and the steps that did not fit into it."""
    readable(row["input"], row["tags"], row["headers"], row["steps"], later_steps)
    steps = [*row["steps"], *later_steps] if later_steps else row["steps"]
    return Claimed(
        row["run_id"],
        row["claim"],
        row["workflow"],
        row["input"],
        row["key"],
        row["tags"],
        row["headers"],
        row["begun_at"].astimezone(timezone.utc),
        row["scheduled_at"] and row["scheduled_at"].astimezone(timezone.utc),
        row["deadline"] and row["deadline"].astimezone(timezone.utc),
        row["cancel"],
        row["recoveries"],
        [checkpoint_of(step) for step in steps if step["kind"] != "attempt"],
        {
            step["key"]: (step["attempt"], step["retry_at"] and parse_time(step["retry_at"]))
            for step in steps
            if step["kind"] == "attempt"
        },
    )


def save_text(run: Claimed, save: Save) -> str:
    """Return the object that save_steps takes."""
    name = "" if save.name is None else f',"name":{quote(save.name)}'
    attempt = "" if save.attempt is None else f',"attempt":{save.attempt}'
    started = "" if save.started_at is None else f',"started_at":"{save.started_at.isoformat()}"'
    saved = "" if save.saved_at is None else f',"saved_at":"{save.saved_at.isoformat()}"'
    outcome = f'"error":{save.error_text}' if save.error_text is not None else f'"result":{save.result_text}'
    return f"{_head(run, save)}{name}{attempt}{started}{saved},{outcome}}}"


def try_text(run: Claimed, failed: FailedTry) -> str:
    """Return the object that fail_steps takes."""
    return (
        f"{_head(run, failed)}{_optional('name', failed.name)}{_optional('started_at', failed.started_at)}"
        f',"attempt":{failed.attempt},"error":{failed.error_text},"policy":{to_json(failed.policy)}}}'
    )


def suspension_text(run: Claimed, waits: Sequence[Wait], known: int) -> str:
    """Return the object that suspend_runs takes; `known` is the highest ordinal that has come here."""
    listed = ",".join(
        f'{{"key":{quote(wait.key)},"kind":"{wait.kind}"{_optional("name", wait.name)}{_optional("until", wait.until)}}}'
        for wait in waits
    )
    return f'{_run(run)},"after":{known},"waits":[{listed}]}}'


def end_text(run: Claimed, field: str = "", text: str | None = None, last: Save | None = None) -> str:
    """Return the object that complete_runs, fail_runs and release_runs take, with one more field and the last save."""
    saves = "" if last is None else f',"saves":[{save_text(run, last)}]'
    return f"{_run(run)}{saves}}}" if text is None else f'{_run(run)}{saves},"{field}":{text}}}'


def _run(run: Claimed) -> str:
    if not run.head:
        run.head = f'{{"run_id":"{run.run_id}","claim":"{run.claim}"'
    return run.head


def _head(run: Claimed, step: Save | FailedTry) -> str:
    fingerprint = "" if step.fingerprint is None else f',"fingerprint":"{step.fingerprint}"'
    return f'{run.head or _run(run)},"key":{quote(step.key)},"kind":"{step.kind}","ordinal":{step.ordinal}{fingerprint}'


def _optional(name: str, value: str | int | datetime | None) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        value = value.isoformat()
    return f',"{name}":{value if isinstance(value, int) else quote(value)}'
