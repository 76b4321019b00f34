"""Files with syntax that an older Python cannot read are left out there."""

from __future__ import annotations

import sys

collect_ignore = [] if sys.version_info >= (3, 11) else ["test_task_groups.py"]
