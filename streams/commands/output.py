"""How commands speak: data on stdout, talk on stderr, errors as what, why and hint."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import orjson
import uvloop

from schemas.errors import Fatal


def print_json(value: object) -> None:
    """One JSON document on one line of stdout."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")


def say(text: str) -> None:
    """One line for a person, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show_error(error: Fatal) -> None:
    """Three short lines: what, why, hint; those that are empty are left out."""
    say(f"error: {error.what}")
    if error.why:
        say(f"  why: {error.why}")
    if error.hint:
        say(f" hint: {error.hint}")


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine on uvloop and returns its value."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
