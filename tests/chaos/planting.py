"""Plants a bug: replaces a part of the worker by a faulty one, and fails when that part no longer exists."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

_in_flight: set[asyncio.Task[None]] = set()


def replace(owner: Any, name: str, replacement: Any) -> None:
    """Replaces `owner`.`name`, which must exist and have the same signature.

    Raises LookupError, TypeError or ValueError when the source has changed: a patch that changes nothing proves
    nothing.
    """
    if name not in vars(owner):
        raise LookupError(f"{owner.__name__} has no {name} to plant a bug into")
    original = vars(owner)[name]
    if callable(original) and _way_to_call(original) != _way_to_call(replacement):
        raise TypeError(f"{owner.__name__}.{name} is not called like its planted bug")
    if original == replacement:
        raise ValueError(f"the bug changes nothing of {owner.__name__}.{name}")
    setattr(owner, name, replacement)


def in_background(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Runs the work without waiting for it, and ignores its errors."""

    async def later() -> None:
        with suppress(Exception):
            await work()

    task = asyncio.create_task(later())
    _in_flight.add(task)
    task.add_done_callback(_in_flight.discard)


def _way_to_call(function: Callable[..., object]) -> tuple[bool, list[object]]:
    kinds: list[object] = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    return inspect.iscoroutinefunction(function), kinds
