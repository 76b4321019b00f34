"""The group of all commands."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper

import click

from perdure._binaries import PostgresNotFound, ServerError
from perdure._build import BuildError
from perdure._errors import Error, Misuse
from perdure.cli.trouble import FAILED, INTERRUPTED, MISUSED, UNREACHABLE, Trouble

# Where each command lives; a module is loaded when its command is asked for, so that none pays for the others.
_MODULES = {
    "install": "install uninstall sql",
    "dev": "dev",
    "work": "worker register",
    "talk": "start signal",
    "acts": "cancel terminate pause resume retry",
    "hold": "hold adopt",
    "look": "runs explain",
    "show": "show",
    "doctor": "doctor",
}
_COMMANDS = {name: module for module, names in _MODULES.items() for name in names.split()}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order in which they are met."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, loaded now."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"perdure.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what it meets that is no bug becomes a sentence."""
        try:
            return super().invoke(ctx)
        except BuildError as error:
            raise Trouble(str(error), code=MISUSED) from None
        except Error as error:  # the driver's
            raise Trouble(str(error), code=MISUSED if isinstance(error, Misuse) else FAILED) from None
        except PostgresNotFound as error:
            raise Trouble(str(error), code=UNREACHABLE) from None
        except ServerError as error:
            raise Trouble(str(error), code=UNREACHABLE) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 refused, or the run ended badly, or doctor found something; "
    "2 wrong options, JSON or module; 3 no server, no installation or no Postgres binaries; 130 interrupted.",
)
@click.version_option(package_name="perdure", prog_name="perdure")
def cli() -> None:
    """Durable workflow execution inside your own Postgres.

    Where it is: --dsn, else PERDURE_DSN, else PGHOST, PGDATABASE ... as psql reads them; --schema, else
    PERDURE_SCHEMA, else perdure. Without any Postgres: perdure dev.
    """


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a sign that cannot be printed is no reason to stop
    try:
        answer = cli.main(prog_name="perdure", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # a reader such as head has enough
        sys.stderr.close()
        sys.exit(0)
    sys.exit(answer if isinstance(answer, int) else 0)
