"""The command `grok-insights`: turns errors into three lines and an exit code; loads only the command that is run."""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command, get_group

from schemas.errors import Fatal
from streams.commands.help import Command, Group
from streams.commands.output import show_error
from streams.version import __version__

#: In the order of --help. Each is an object of that name in a module of streams.commands: the one of that name, or else
#: the one in _MODULES.
COMMANDS = ("demo", "up", "gateway", "worker", "migrate", "topics", "check", "audit", "standin", "schemas", "dlq")
_MODULES = {"migrate": "setup", "topics": "setup", "schemas": "setup"}


class _LazyCommands(Group):
    """Imports a command's module when it is run or described: Faust alone would delay every command by 0.5 s."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Loads all commands for an unknown name, so that the error can suggest one."""
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(_load(name), name)
        return super().get_command(ctx, cmd_name)


def _load(name: str) -> Any:
    command = getattr(import_module(f"streams.commands.{_MODULES.get(name, name)}"), name)
    if isinstance(command, typer.Typer):
        return get_group(command)
    single = typer.Typer(add_completion=False)
    single.command(name, cls=Command)(command)
    return get_command(single)


cli = typer.Typer(
    name="grok-insights",
    cls=_LazyCommands,
    help="Turns a Kafka stream of conversations into insights with Grok: nothing lost, no text paid for twice.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@cli.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"grok-insights {__version__}")
        raise typer.Exit


def main() -> None:
    """Exits with 0 when done, 1 when failed, 2 when misused, 130 when stopped by Ctrl-C."""
    try:
        cli()
    except Fatal as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
