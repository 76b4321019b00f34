"""Text of others, shown: what steers a terminal, breaks a line or turns its direction is written as an escape.

Names, keys, reasons and errors come from whoever may start a run. Printed as they are they could recolour or overwrite
what stands above, or add a line that nobody logged.
"""

from __future__ import annotations

import logging

_STEERING = (
    *range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A),
)  # fmt: skip
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _STEERING}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_IN_JSON = {code: f"\\u{code:04x}" for code in _STEERING if code >= 0x20}


def visible(text: str) -> str:
    """Write a text as one line that a terminal only shows."""
    return text.translate(_ESCAPES)


def visible_lines(text: str, indent: str = "  ") -> str:
    """Write a text of several lines; none but the first begins where lines begin."""
    return f"\n{indent}".join(visible(line) for line in text.split("\n"))


def visible_json(text: str) -> str:
    """Write a JSON text so that it reads as the same; JSON itself escapes only what is below the blank."""
    return text.translate(_IN_JSON)


def one_line(record: logging.LogRecord) -> bool:
    """Let a message be one line of the log, as a filter does it; a traceback below it is as Python writes it."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - such as an exception that cannot be told: logging says so itself
        return True
    if (clean := visible(message)) != message:
        record.msg, record.args = clean, ()
    return True
