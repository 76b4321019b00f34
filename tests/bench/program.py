"""What runs in a contestant's process, in its own environment: `python -m bench.program SIDE ROLE ARGUMENTS`.

It answers on its standard output in lines of JSON, and ends when its standard input does: no worker outlives the bench.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from typing import Any

from bench.side import WorkOptions, side


def end_with_input() -> None:
    """End the process when whoever started it has gone."""
    while sys.stdin.readline():
        pass
    os._exit(0)


def main() -> None:
    """Do what is asked."""
    name, role, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a package prints is no answer

    def answer(told: Any) -> None:
        answers.write(json.dumps(told) + "\n")

    asked: Any = side(name)
    dsn = arguments.pop("dsn")
    import_module(asked.package)
    if role == "install":
        asked.install(dsn)
        answer("installed")
    elif role == "work":
        answer("ready")
        if sys.stdin.readline():
            threading.Thread(target=end_with_input, daemon=True).start()
            asked.work(dsn, WorkOptions(**arguments))
    elif role == "wait_for_many":
        answer("ready")
        asked.wait_for_many(dsn, arguments["count"], lambda: answer("told" if sys.stdin.readline() else "left"))
    else:
        measure = getattr(asked, role)
        measure(dsn, arguments["warm_up"], 0)
        answer(measure(dsn, arguments["count"], arguments["pause"]))
    os._exit(0)


if __name__ == "__main__":
    main()
