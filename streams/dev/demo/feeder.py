"""Posts the sample of infra/sample to the gateway, many conversations at once; honours Retry-After."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from schemas.conversation import decode_conversation
from schemas.errors import Fatal, Rejected
from streams.resources import infra

MAX_AT_ONCE = 64
REQUEST_TIMEOUT_S = 30
#: With pauses of a second or more, a gateway that cannot be reached is given up after 20 s or more.
MAX_ATTEMPTS = 20
#: Used without a Retry-After header.
PAUSE_S = 1.0
_BUSY = (429, 503)
_JSON = {"Content-Type": "application/json"}
_FILE = "sample.jsonl"


@dataclass(frozen=True, slots=True)
class Request:
    """One conversation to post; `body` is JSON."""

    id: str
    body: bytes


def read_sample(limit: int | None = None) -> list[Request]:
    """Returns the first `limit` requests, or all. Raises Fatal when the sample is missing or damaged."""
    try:
        lines = (infra("sample") / _FILE).read_bytes().splitlines()
    except OSError as error:
        raise Fatal("the sample of the demo cannot be read", str(error), "install grok-insights again") from error
    return [_request(line, number) for number, line in enumerate(lines[:limit], start=1)]


def _request(line: bytes, number: int) -> Request:
    try:
        conversation_id = decode_conversation(line, require_id=True).id
    except Rejected as error:
        raise Fatal(f"line {number} of {_FILE} is not a conversation", str(error)) from error
    assert conversation_id is not None, "decode_conversation requires it"
    return Request(conversation_id, line)


class Feeder:
    """Posts each request until it is accepted, which is safe: the same id again is the same conversation.

    Calls `on_accepted` once for each 202.
    """

    def __init__(self, gateway_url: str, on_accepted: Callable[[], None]) -> None:
        self._url = f"{gateway_url}/api/v1/conversations"
        self._on_accepted = on_accepted
        self.busy_replies = 0  # 429 and 503

    async def post_all(self, requests: Iterable[Request]) -> None:
        """Returns once each is accepted. Raises Fatal when one is refused or the gateway cannot be reached."""
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
        """Returns None when it was accepted, else the seconds after which to try again."""
        async with session.post(self._url, data=request.body, headers=_JSON) as response:
            if response.status in _BUSY:
                self.busy_replies += 1
                return retry_after_s(response.headers.get("Retry-After"))
            if response.status != 202:
                why = f"{request.id}: status {response.status}, {(await response.text())[:300]}"
                raise Fatal("the gateway refused a conversation", why)
            return None


def retry_after_s(header: str | None) -> float:
    """Returns the header's seconds, or PAUSE_S without a number of seconds."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else PAUSE_S
