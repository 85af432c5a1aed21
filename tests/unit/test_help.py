"""The help of the command line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from streams.cli import COMMANDS, cli
from streams.version import __version__


def run(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "streams", *arguments], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["dlq", "replay"]])
def test_a_flag_shows_no_type(command: list[str]) -> None:
    """It takes no value."""
    shown = CliRunner().invoke(cli, [*command, "--help"]).output
    assert "--help" in shown
    assert "bool" not in shown


def test_the_version_says_of_what() -> None:
    """It is one line, with the program's name."""
    assert run("--version") == f"grok-insights {__version__}\n"
