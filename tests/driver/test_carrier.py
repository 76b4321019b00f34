"""The engine as executions see it: what is left behind when it is closed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from perdure._carrier import _THREAD_NAME, has_stuck_steps


def test_threads_that_have_done_their_steps_are_not_stuck() -> None:
    threads = ThreadPoolExecutor(50, thread_name_prefix=_THREAD_NAME)
    for step in [threads.submit(time.sleep, 0.02) for _ in range(50)]:
        step.result()
    threads.shutdown(wait=False)  # they end a little later
    assert not has_stuck_steps()


def test_a_step_that_does_not_end_is_seen() -> None:
    end = threading.Event()
    threads = ThreadPoolExecutor(1, thread_name_prefix=_THREAD_NAME)
    threads.submit(end.wait)
    threads.shutdown(wait=False)
    assert has_stuck_steps()
    end.set()
    assert not has_stuck_steps()
