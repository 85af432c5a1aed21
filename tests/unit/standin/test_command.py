"""The command's options: mistakes end with exit code 2 before anything listens."""

import pytest
import typer
from typer.testing import CliRunner

from streams.commands.standin import standin


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "earthquake=0.1"],
        ["--fault", "http_429=often"],
        ["--fault", "http_429=2"],
        ["--fault", "http_429=0.7", "--fault", "reset=0.7"],
        ["--latency-min-s", "2", "--latency-max-s", "1"],
    ],
)
def test_options_that_make_no_sense_are_misuse(arguments: list[str]) -> None:
    """The message names the option's problem."""
    application = typer.Typer()
    application.command()(standin)
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code == 2
    assert "Invalid value" in result.output
