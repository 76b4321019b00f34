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
        value = json.dumps(json.loads(text, parse_constant=_no_constant), ensure_ascii=False)
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(
            "this text has half of a surrogate pair, which Postgres cannot keep: leave it out."
        ) from None
    except ValueError as error:
        raise click.BadParameter(
            f"this is no JSON: {error}. A text has quotes of its own, '\"text\"'; an object looks like '{{\"id\": 42}}'."
        ) from None
    if "\\u0000" in value.replace("\\\\", ""):
        raise click.BadParameter("this text has the character \\u0000, which Postgres cannot keep: leave it out.")
    return text


def pair(value: str) -> tuple[str, str]:
    """Split k=v."""
    word, equals, rest = value.partition("=")
    if not (word and equals):
        raise click.BadParameter(f"{value!r} is not of the form k=v.")
    return word, rest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
