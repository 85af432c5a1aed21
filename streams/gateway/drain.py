"""Lets requests under way finish before the server goes.

aiohttp's own shutdown comes after this: from its first moment it drops whatever still arrives on open connections, so a
request whose body is half sent could never be finished by it.
"""

import asyncio
import contextlib

from aiohttp import web
from aiohttp.typedefs import Handler


class Drain:
    """Counts requests under way; once draining, every answer closes its connection."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_draining = False
        self._is_idle = asyncio.Event()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._under_way += 1
        try:
            response = await handler(request)
        finally:
            self._under_way -= 1
            if self._is_draining and self._under_way == 0:
                self._is_idle.set()
        if self._is_draining:
            response.force_close()
        return response

    async def finish(self, timeout_s: float) -> None:
        """Returns when no request is under way, or after `timeout_s` seconds. New connections are refused before."""
        self._is_draining = True
        if self._under_way == 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()


DRAIN = web.AppKey("DRAIN", Drain)
