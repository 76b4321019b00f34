"""What is typed: JSON, pairs."""

from __future__ import annotations

import json
import sys
from typing import NoReturn

import click


def json_text(value: str) -> str:
    """Check a JSON text and give it back as it is; `-` reads it from stdin."""
    text = sys.stdin.read() if value == "-" else value
    try:
        json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise click.BadParameter(
            f"this is no JSON: {error}. A text has quotes of its own, '\"text\"'; an object looks like '{{\"id\": 42}}'."
        ) from None
    return text


def pair(value: str) -> tuple[str, str]:
    """Split k=v."""
    word, equals, rest = value.partition("=")
    if not (word and equals):
        raise click.BadParameter(f"{value!r} is not of the form k=v.")
    return word, rest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
