"""Waits for what nobody tells of: a log, a server's figures, another process."""

import asyncio
from collections.abc import Awaitable, Callable


async def became_true(ask: Callable[[], Awaitable[object]], within_s: float, ask_every_s: float) -> bool:
    """Returns when it is true, and whether it was in time."""
    try:
        async with asyncio.timeout(within_s):
            while not await ask():
                await asyncio.sleep(ask_every_s)
    except TimeoutError:
        return False
    return True
