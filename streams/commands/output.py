"""What all commands share: data on stdout, messages on stderr, and errors in three lines."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson
import uvloop

from schemas.errors import Fatal

T = TypeVar("T")


def print_json(value: object) -> None:
    """Prints one JSON document on one line of stdout."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")


def say(text: str) -> None:
    """Prints one line for a person on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show_error(error: Fatal) -> None:
    """Prints what failed, why, and what to do; lines without text are left out."""
    say(f"error: {error.what}")
    if error.why:
        say(f"  why: {error.why}")
    if error.hint:
        say(f" hint: {error.hint}")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop and returns its value."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
