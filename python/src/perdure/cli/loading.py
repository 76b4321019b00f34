"""Find the application that MODULE:APP names."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from perdure.cli.session import Target
from perdure.cli.trouble import MISUSED, Trouble

if TYPE_CHECKING:
    from perdure import App

_ADVICE = "Name an application as MODULE:APP, such as shop.flows:app for app = perdure.App() in shop/flows.py."


@dataclass(frozen=True, slots=True)
class Application:
    """An App, with what the commands want to know of it."""

    app: App

    @property
    def target(self) -> Target:
        """Where it will work: what it was told, or what it took from the environment."""
        database = self.app._database  # noqa: SLF001 - one package
        return Target(database.dsn, database.schema.name)

    @property
    def workflows(self) -> list[tuple[str, str]]:
        """Names and queues of its workflows."""
        return [(workflow.name, workflow.queue) for workflow in self.app._workflows]  # noqa: SLF001 - one package

    @property
    def queues(self) -> list[str]:
        """The queues of its workflows."""
        return self.app._workflows.queues  # noqa: SLF001 - one package


def load(named: str) -> Application:
    """Import the module, the current directory being searched first, and find its App."""
    module_name, _, attribute = named.partition(":")
    attribute = attribute or "app"
    if not all(word.isidentifier() for word in (*module_name.split("."), *attribute.split("."))):
        raise Trouble(f"{named!r} names no application", _ADVICE, code=MISUSED)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _imported(module_name)

    from perdure import App

    found: object = module
    for word in attribute.split("."):
        found = getattr(found, word, None)
    if isinstance(found, App):
        return Application(found)
    others = [name for name, value in vars(module).items() if isinstance(value, App)]
    hint = f"It has: {', '.join(f'{module_name}:{name}' for name in others)}." if others else _ADVICE
    if found is None:
        raise Trouble(f"module {module_name!r} has no {attribute!r}", hint, code=MISUSED)
    raise Trouble(f"{named} is no perdure.App but {type(found).__name__!r}", hint, code=MISUSED)


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise Trouble(
                f"there is no module {missing!r}",
                f"Looked in {Path.cwd()} and in this environment ({sys.prefix}). {_ADVICE}",
                code=MISUSED,
            ) from None
        raise Trouble(
            f"module {name!r} imports {missing!r}, which is not there{_where(error)}",
            f"Install it into this environment ({sys.prefix}).",
            code=MISUSED,
        ) from None
    except SyntaxError as error:
        raise Trouble(
            f"module {name!r} cannot be read: {error.msg} ({error.filename}, line {error.lineno})", code=MISUSED
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises
        raise Trouble(
            f"importing module {name!r} failed with {type(error).__name__}: {error}{_where(error)}",
            f'For the whole traceback: python -c "import {name}"',
            code=MISUSED,
        ) from None


def _where(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if Path(frame.filename) != Path(__file__)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
