"""Posts conversations to the gateway over HTTP: many at once, and obedient when it asks to come back later."""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import aiohttp

from schemas.errors import Fatal
from streams.demo.sample import Request

MAX_AT_ONCE = 64
REQUEST_TIMEOUT_S = 30
#: With pauses of a second or more: half a minute of a gateway that cannot be reached.
MAX_ATTEMPTS = 20
#: Where there is no Retry-After to obey.
PAUSE_S = 1.0
_BUSY = (429, 503)
_JSON = {"Content-Type": "application/json"}


class Feeder:
    """Every request is posted until it is accepted; the same id again is the same conversation, so that is safe.

    `on_accepted` is called once for each 202.
    """

    def __init__(self, gateway_url: str, on_accepted: Callable[[], None]) -> None:
        self._url = f"{gateway_url}/api/v1/conversations"
        self._on_accepted = on_accepted
        self.put_off = 0  # answers 429 and 503

    async def post_all(self, requests: Iterable[Request]) -> None:
        """Returns when each was answered 202. Raises Fatal when one is refused or the gateway cannot be reached."""
        waiting = iter(requests)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=MAX_AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(MAX_AT_ONCE):
                        group.create_task(self._post_each(session, waiting))
            except* Fatal as errors:
                raise errors.exceptions[0] from None

    async def _post_each(self, session: aiohttp.ClientSession, waiting: Iterable[Request]) -> None:
        for request in waiting:
            await self._post(session, request)
            self._on_accepted()

    async def _post(self, session: aiohttp.ClientSession, request: Request) -> None:
        for attempt in itertools.count(1):
            try:
                pause_s = await self._try(session, request)
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == MAX_ATTEMPTS:
                    raise Fatal("the gateway does not answer", str(error) or type(error).__name__) from error
                pause_s = PAUSE_S
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)

    async def _try(self, session: aiohttp.ClientSession, request: Request) -> float | None:
        """None when it was accepted, else the seconds after which to try again."""
        async with session.post(self._url, data=request.body, headers=_JSON) as response:
            if response.status in _BUSY:
                self.put_off += 1
                return retry_after_s(response.headers.get("Retry-After"))
            if response.status != 202:
                why = f"{request.id}: status {response.status}, {(await response.text())[:300]}"
                raise Fatal("the gateway refused a conversation", why)
            return None


def retry_after_s(header: str | None) -> float:
    """Seconds to wait: the header's, or PAUSE_S where it names none."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else PAUSE_S
