"""What a Python process that a test starts does first in the mode of `support/always_suspend.py`.

Invariant: it is on the path in that mode alone, and where the driver is not installed it does nothing.
"""

from __future__ import annotations

import runpy
from contextlib import suppress
from pathlib import Path

with suppress(ModuleNotFoundError):
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "always_suspend.py"))["install"]()
