"""Workflows, known by their names.

Invariant: a name stands for one workflow; input and output types come from the function's own
annotations, read when they are first needed, so that a module's order does not matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._errors import Misuse
from ._hints import Unresolved, annotation_of
from ._options import check_name

if TYPE_CHECKING:
    from ._run import AsyncRun

I = TypeVar("I")  # noqa: E741  the input
O = TypeVar("O")  # noqa: E741  the output


class Workflow(Generic[I, O]):
    """A registered workflow; call it like the function to run its code without any engine, in a test."""

    def __init__(
        self,
        fn: Callable[[AsyncRun, I], Coroutine[Any, Any, O]],
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: timedelta | None = None,
        max_recoveries: int = 10,
    ) -> None:
        if not inspect.iscoroutinefunction(fn):
            raise Misuse(f"a workflow is an async function: {fn!r}")
        if (count := len(inspect.signature(fn).parameters)) != 2:
            raise Misuse(f"a workflow takes the run and one input, which may be None, not {count} parameters: {fn!r}")
        self.fn = fn
        self.name = check_name(name if name is not None else fn.__name__, "a workflow's name")
        self.queue = queue
        self.timeout = timeout
        self.max_recoveries = max_recoveries
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn

    async def __call__(self, run: AsyncRun, input: I) -> O:
        return await self.fn(run, input)

    @cached_property
    def input_type(self) -> Any:
        """The annotation of the function's second parameter, resolved; Any without one."""
        _, parameter = inspect.signature(self.fn).parameters
        return self._resolved(self.fn, parameter)

    @cached_property
    def output_type(self) -> Any:
        """The function's return annotation, resolved; Any without one."""
        return self._resolved(self.fn, "return")

    def _resolved(self, fn: Callable[..., Any], name: str) -> Any:
        try:
            return annotation_of(fn, name)
        except Unresolved as unresolved:
            raise Misuse(f"workflow {self.name!r}: {unresolved}") from None

    def parameters(self) -> dict[str, Any]:
        """Return what put_workflow takes."""
        return {
            "name": self.name, "queue": self.queue, "timeout": self.timeout, "max_recoveries": self.max_recoveries
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}>"


class WorkflowRegistry:
    """The workflows of an app, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Workflow[Any, Any]] = {}

    def add(self, workflow: Workflow[I, O]) -> Workflow[I, O]:
        """Add a workflow; raise Misuse when its name is taken by another one."""
        known = self._by_name.setdefault(workflow.name, workflow)
        if known is not workflow:
            raise Misuse(f"two workflows are named {workflow.name!r}; give one of them another name=")
        return workflow

    def include(self, other: WorkflowRegistry) -> None:
        """Add all workflows of another registry."""
        for workflow in other:
            self.add(workflow)

    def get(self, name: str) -> Workflow[Any, Any] | None:
        """Return the workflow of this name, or None."""
        return self._by_name.get(name)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._by_name)

    @property
    def queues(self) -> list[str]:
        """The queues that they name, sorted."""
        return sorted({workflow.queue for workflow in self})

    def __iter__(self) -> Iterator[Workflow[Any, Any]]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)
