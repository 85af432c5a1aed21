"""Posts the oracle's cases, as a foreign producer keyed by ID or through the gateway, and records confirmations."""

import asyncio
import time
from collections.abc import Coroutine
from types import TracebackType

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.chaos.judge import Posted
from tests.chaos.oracle import Kind, Oracle
from tests.support.topics import TOPICS

#: Every fifth case goes through the gateway, if it is valid.
_GATEWAY_EVERY = 5
_TICK_S = 0.1
_POST_TIMEOUT_S = 50.0


class Feeder:
    """Feeds one world; use as an async context manager."""

    def __init__(self, oracle: Oracle, bootstrap_servers: str, gateway_url: str) -> None:
        self._oracle = oracle
        # Not idempotent on purpose: a foreign producer may well write a record twice.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, acks="all", linger_ms=20, request_timeout_ms=60_000
        )
        self._gateway_url = f"{gateway_url}/api/v1/conversations"
        self._http: aiohttp.ClientSession | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self.posted = Posted()
        self.next_number = 0
        self.accepted_by_gateway = 0

    async def __aenter__(self) -> "Feeder":
        await self._producer.start()
        timeout = aiohttp.ClientTimeout(total=_POST_TIMEOUT_S)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64))
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        assert self._http is not None
        await self._http.close()
        await self._producer.stop()

    async def feed(self, per_s: float, until: asyncio.Event, at_least: int) -> None:
        """Posts evenly until the event is set and `at_least` were posted; delays are not caught up."""
        first, tokens, last_s = self.next_number, 0.0, time.monotonic()
        while not until.is_set() or self.next_number - first < at_least:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            tokens = min(tokens + (now_s - last_s) * per_s, per_s)
            last_s = now_s
            while tokens >= 1:
                tokens -= 1
                self.post_next()

    def post_next(self) -> int:
        """Posts the next case without waiting for earlier ones; returns its number."""
        number = self.next_number
        self.next_number += 1
        if number % _GATEWAY_EVERY == 0 and self._oracle.case(number).kind is not Kind.BROKEN:
            self._spawn(self._through_the_gateway(number))
        else:
            self._spawn(self._to_the_broker(number))
        return number

    async def settled(self) -> None:
        """Returns when everything that was posted is either confirmed or not."""
        while self._in_flight:
            await asyncio.wait(set(self._in_flight))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _to_the_broker(self, number: int) -> None:
        case = self._oracle.case(number)
        try:
            await self._producer.send_and_wait(TOPICS.conversations, case.value, key=case.id.encode())
        except KafkaError:
            self.posted.unconfirmed.add(number)
        else:
            self.posted.confirmed.add(number)

    async def _through_the_gateway(self, number: int) -> None:
        case = self._oracle.case(number)
        assert self._http is not None, "use as a context manager"
        try:
            async with self._http.post(self._gateway_url, data=case.value, headers=_JSON) as response:
                accepted = response.status == 202
        except (aiohttp.ClientError, TimeoutError):
            accepted = False
        (self.posted.confirmed if accepted else self.posted.unconfirmed).add(number)
        self.accepted_by_gateway += accepted


_JSON = {"Content-Type": "application/json"}
