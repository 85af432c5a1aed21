"""Polls for changes that no event announces: in a log, a topic, another process. The only module that sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

EVERY_S = 0.05

T = TypeVar("T")


async def eventually(
    check: Callable[[], Awaitable[T]], *, timeout_s: float = 30.0, what: str = "the condition holds"
) -> T:
    """Returns the first true value of an asynchronous check; fails when there is none in time."""
    found: T | None = None

    async def look() -> bool:
        nonlocal found
        found = await check()
        return bool(found)

    if not await became_true(look, timeout_s):
        raise AssertionError(f"not within {timeout_s:g} s: {what} (the last look found {found!r})")
    assert found is not None
    return found


async def became_true(check: Callable[[], Awaitable[object]], timeout_s: float, every_s: float = EVERY_S) -> bool:
    """Returns as soon as the check is true, and whether that was in time. A check that hangs is cancelled."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await check():
                await asyncio.sleep(every_s)
    except TimeoutError:
        return False
    return True


def wait_until(check: Callable[[], T], *, timeout_s: float = 30.0, what: str = "the condition holds") -> T:
    """The same for a check that blocks, such as an HTTP request; in asynchronous tests, run it in a thread."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := check()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(EVERY_S)
    return found
