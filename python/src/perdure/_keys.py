"""The keys of a run.

Invariant: a key is reserved in program order, at the call, and belongs to one request only.
"""

from __future__ import annotations

from ._errors import Misuse


class Keys:
    """The keys that a run has reserved so far."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._uses: dict[str, int] = {}

    def number(self, name: str) -> tuple[str, int]:
        """Reserve the name for its next use: name, name#2, name#3; return the key and the number."""
        uses = self._uses.get(name, 0)
        while True:
            uses += 1
            key = name if uses == 1 else f"{name}#{uses}"
            if key not in self._used:
                break
        self._uses[name] = uses
        self._used.add(key)
        return key, uses

    def exact(self, key: str) -> str:
        """Reserve exactly this key; raise Misuse when it was used."""
        if key in self._used:
            raise Misuse(f"the key {key!r} is used twice in this run; keys given by options(key=) must differ")
        self._used.add(key)
        return key
