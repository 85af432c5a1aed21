"""The help of the command line."""

import fnmatch
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from schemas.dead_letter import DeadLetterReason
from schemas.settings import KNOWN_NAMES
from streams.cli import COMMANDS, cli
from streams.version import __version__
from tests.support.settings_read import settings_read_by


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


def test_the_reasons_are_whole_words_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason that is broken in two cannot be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli, ["dlq", "replay", "--help"]).output
    assert [reason for reason in DeadLetterReason if not re.search(rf"\b{reason}\b", shown)] == []


def test_the_version_says_of_what() -> None:
    """It is one line, with the program's name."""
    assert run("--version") == f"grok-insights {__version__}\n"


@pytest.mark.parametrize("command", ["audit", "gateway", "worker"])
def test_a_command_names_every_setting_that_it_reads_and_no_other(command: str) -> None:
    """KAFKA_SASL_* names all settings that begin so."""
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    [listed] = re.findall(r"Settings: (.*?)\.\s*\n\s*\n", shown, re.DOTALL)
    patterns = re.findall(r"[A-Z][A-Z0-9_]+\*?", listed)
    named = {pattern: fnmatch.filter(KNOWN_NAMES, pattern) for pattern in patterns}
    assert [pattern for pattern, names in named.items() if not names] == []
    assert {name for names in named.values() for name in names} == settings_read_by(f"streams.commands.{command}")
