"""The command `grok-insights`: registers the commands; turns errors into three lines and an honest exit code."""

import sys

import typer

from schemas.errors import Fatal
from streams.commands.audit import audit
from streams.commands.demo import demo
from streams.commands.dlq import dlq
from streams.commands.gateway import gateway
from streams.commands.migrate import migrate
from streams.commands.output import show_error
from streams.commands.schemas import schemas
from streams.commands.standin import standin
from streams.commands.topics import topics
from streams.commands.up import up
from streams.commands.worker import worker
from streams.version import __version__

cli = typer.Typer(
    name="grok-insights",
    help="Turns a Kafka stream of conversations into insights with Grok: nothing lost, no text paid for twice.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

for command in (demo, up, gateway, worker, migrate, topics, audit, standin, schemas):
    cli.command()(command)
cli.add_typer(dlq)


@cli.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Exit code 0 done, 1 failed, 2 misused, 130 stopped by Ctrl-C."""
    try:
        cli()
    except Fatal as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
