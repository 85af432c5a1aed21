"""Output of the commands: data on stdout, messages and errors on stderr."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
import uvloop

from schemas.errors import Fatal

T = TypeVar("T")


def print_json(value: object) -> None:
    """Prints one JSON document as one line on stdout."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")


def say(text: str) -> None:
    """Prints a message on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show_error(error: Fatal) -> None:
    """Prints what failed, why, and a hint, leaving out what is empty."""
    say(f"error: {error.what}")
    if error.why:
        say(f"  why: {error.why}")
    if error.hint:
        say(f" hint: {error.hint}")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop and returns its value."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
