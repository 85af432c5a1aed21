"""The text that `up` prints once the local stack is ready: addresses, commands to try, and what its broker keeps."""

import contextlib
import os
import shlex
import shutil
import sys
from pathlib import Path

from schemas.kafka import Topics
from streams.dev.local.brokers import Tansu
from streams.dev.local.postgres import Postgres, psql_program
from streams.dev.local.wiring import LocalStack

EXAMPLE = '{"id": "conv-1", "text": "I was charged twice and want my money back"}'


def describe_stack(stack: LocalStack, topics: Topics, analyser: str) -> str:
    """Returns lines of at most two columns. The database's URL is shown, with its password, only if it is our own."""
    addresses, gateway = stack.addresses, stack.addresses.gateway_url
    lines = [
        ("analyser", analyser),
        ("gateway", gateway),
        ("metrics", f"{gateway}/metrics"),
        *(("", url) for url in addresses.worker_metrics_urls),
        *([("stand-in", f"{addresses.standin_url}/control/stats")] if addresses.standin_url else []),
        ("topics", f"{topics.conversations} -> {topics.insights}; dead letters in {topics.dead_letters}"),
        *_broker_lines(stack),
        ("database", _describe_database(addresses.database)),
        ("logs", str(stack.log.path)),
        ("", ""),
        ("try it", f"curl {gateway}/api/v1/conversations -H 'content-type: application/json' -d '{EXAMPLE}'"),
        ("", f"curl {gateway}/api/v1/conversations/conv-1"),
        ("", f"curl '{gateway}/api/v1/insights?since=1h'"),
        *_command_lines(stack),
    ]
    shown = "\n".join(f"  {label:<10}{value}".rstrip() for label, value in lines)
    return f"\ngrok-insights is ready\n{shown}\n\n  Ctrl-C stops everything.\n"


def program_as_typed() -> str:
    """Returns how the user can type this program: its name if the PATH leads to it, else its path.

    `make up` runs a program that is not on the PATH.
    """
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{_as_typed(Path(sys.executable))} -m streams"
    return _as_typed(program)


def _as_typed(program: Path) -> str:
    found = shutil.which(program.name)
    # The folders are compared: a virtual environment's Python links to the system's and is another one.
    if found and Path(found).parent.samefile(program.parent):
        return program.name
    path = str(program.absolute())
    with contextlib.suppress(ValueError):
        path = str(program.absolute().relative_to(Path.cwd()))
    return shlex.quote(path if os.sep in path else f".{os.sep}{path}")


def _broker_lines(stack: LocalStack) -> list[tuple[str, str]]:
    servers = stack.addresses.bootstrap_servers
    lines = [("broker", servers if stack.addresses.kafka_settings else f"{servers}, as set in KAFKA_BOOTSTRAP_SERVERS")]
    if any(isinstance(service, Tansu) for service in stack.services):
        lines.append(("", "Tansu keeps its topics in memory: the next start is empty. --broker kafka keeps them."))
        if isinstance(stack.addresses.database, str):
            lines.append(("", "Rows of earlier starts stay in your database; `audit` calls them orphaned."))
    return lines


def _describe_database(database: Postgres | str) -> str:
    return "as set in DATABASE_URL" if isinstance(database, str) else f"{psql_program()} {shlex.quote(database.url)}"


def _command_lines(stack: LocalStack) -> list[tuple[str, str]]:
    """Returns commands for another terminal, which needs the settings that the stack chose itself.

    A user's key for Grok is not printed.
    """
    chosen, program = stack.addresses.chosen_settings, program_as_typed()
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in chosen.items())
    needs_key = chosen.get("ANALYSER") == "grok" and "XAI_API_KEY" not in chosen
    and_key = "; set XAI_API_KEY there, too" if needs_key else ""
    commands = [
        (f"{program} audit", "checks that each record has one outcome"),
        (f"{program} dlq list", "lists the records that could not be processed"),
        (f"DATA_DIR=.grok-insights-2 {program} worker", f"adds a worker{and_key}"),
    ]
    width = max(len(command) for command, _ in commands)
    values = [f"export {settings}"] if chosen else []
    values += [f"{command:<{width}}  {meaning}" for command, meaning in commands]
    return list(zip(["then", *[""] * (len(values) - 1)], values, strict=True))
