"""Assertions that say all that is wrong at once."""

from __future__ import annotations

from collections.abc import Iterable


def assert_none(found: Iterable[str], rule: str) -> None:
    """Fail with the rule and every place that breaks it, one to a line."""
    places = sorted(found)
    assert not places, f"{rule}:\n  " + "\n  ".join(places)
