"""Tasks: workflows of a single step.

Invariant: types come from the step's own annotations; the workflow around it adds nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from ._errors import Misuse
from ._options import Retry, step_name, step_options
from ._registry import Workflow
from ._run import AsyncRun

I = TypeVar("I")  # noqa: E741  the input
O = TypeVar("O")  # noqa: E741  the output


class Task(Workflow[I, O]):
    """A workflow that runs one function as its only step."""

    def __init__(
        self,
        fn: Callable[[I], Coroutine[Any, Any, O]],
        *,
        queue: str,
        retry: Retry | None,
        timeout: timedelta | None,
    ) -> None:
        async def run_step(run: AsyncRun, input: I) -> O:
            return await run.options(retry=retry, timeout=timeout).step(fn, input)

        if len(inspect.signature(fn).parameters) != 1:
            raise Misuse(f"a task takes one input: {fn!r}")
        super().__init__(run_step, name=step_name(fn, step_options(fn)), queue=queue)
        self.step = fn
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__

    @cached_property
    def input_type(self) -> Any:
        """The annotation of the function's parameter, resolved; Any without one."""
        (parameter,) = inspect.signature(self.step).parameters
        return self._resolved(self.step, parameter)

    @cached_property
    def output_type(self) -> Any:
        """The function's return annotation, resolved; Any without one."""
        return self._resolved(self.step, "return")
