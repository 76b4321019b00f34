"""A worker process of the failover tests. It does not outlive the test run that started it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from failover.flows import app
from perdure import _app

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    if "PERDURE_LEASE" in os.environ:
        lease = timedelta(seconds=float(os.environ["PERDURE_LEASE"]))
        new_worker = _app.App._new_worker
        _app.App._new_worker = lambda self, options: new_worker(  # type: ignore[method-assign]
            self, replace(options, lease=lease)
        )
    app.run_worker(name=os.environ["PERDURE_NAME"], max_runs=int(os.environ.get("PERDURE_MAX_RUNS", "20")))
