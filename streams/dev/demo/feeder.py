"""Posts the sample of infra/sample to the gateway, many conversations at once."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from schemas.conversation import decode_conversation
from schemas.errors import Fatal, Rejected
from streams.resources import infra

SAMPLE = "sample.jsonl"
MAX_AT_ONCE = 64
REQUEST_TIMEOUT_S = 30
#: With pauses of a second or more, the feeder gives up after 20 s or more without an answer.
MAX_ATTEMPTS = 20
#: Used without a Retry-After header.
PAUSE_S = 1.0
_BUSY = (429, 503)


def read_sample(limit: int | None = None) -> dict[str, bytes]:
    """Returns the JSON of the first `limit` conversations, or of all, by id.

    Raises Fatal when the sample is missing or damaged.
    """
    try:
        lines = (infra("sample") / SAMPLE).read_bytes().splitlines()[:limit]
    except OSError as error:
        raise Fatal("the sample of the demo cannot be read", str(error), "reinstall grok-insights") from error
    bodies = {}
    for number, line in enumerate(lines, start=1):
        try:
            bodies[str(decode_conversation(line, from_topic=True)[0].id)] = line
        except Rejected as error:
            raise Fatal(f"line {number} of {SAMPLE} is not a conversation", str(error)) from error
    return bodies


class Feeder:
    """Posts each conversation until it is accepted, which is safe: the same id again is the same conversation.

    Honours Retry-After. Calls `on_accepted` with their number after each 202.
    """

    def __init__(self, gateway_url: str, on_accepted: Callable[[int], None]) -> None:
        self._url = f"{gateway_url}/api/v1/conversations"
        self._on_accepted = on_accepted
        self._accepted = 0
        self.busy_replies = 0  # 429 and 503

    async def post_all(self, bodies: Mapping[str, bytes]) -> None:
        """Returns once each is accepted. Raises Fatal when one is refused or the gateway cannot be reached."""
        waiting = iter(bodies.items())
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=MAX_AT_ONCE)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(MAX_AT_ONCE):
                        group.create_task(self._post_each(session, waiting))
            except* Fatal as errors:
                raise errors.exceptions[0] from None

    async def _post_each(self, session: aiohttp.ClientSession, waiting: Iterable[tuple[str, bytes]]) -> None:
        for conversation_id, body in waiting:
            await self._post(session, conversation_id, body)
            self._accepted += 1
            self._on_accepted(self._accepted)

    async def _post(self, session: aiohttp.ClientSession, conversation_id: str, body: bytes) -> None:
        for attempt in itertools.count(1):
            pause_s = PAUSE_S
            try:
                async with session.post(self._url, data=body) as response:
                    if response.status == 202:
                        return
                    if response.status not in _BUSY:
                        why = f"{conversation_id}: status {response.status}, {(await response.text())[:300]}"
                        raise Fatal("the gateway refused a conversation", why)
                    self.busy_replies += 1
                    pause_s = retry_after_s(response.headers.get("Retry-After"))
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == MAX_ATTEMPTS:
                    raise Fatal("the gateway does not answer", str(error) or type(error).__name__) from error
            await asyncio.sleep(pause_s)


def retry_after_s(header: str | None) -> float:
    """Returns the header's seconds, or PAUSE_S without a number of seconds."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else PAUSE_S
