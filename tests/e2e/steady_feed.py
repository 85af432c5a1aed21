"""A foreign producer that keeps sending at one rate, whatever happens to its records."""

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType

from aiokafka import AIOKafkaProducer

from tests.support.processes import Service

_TICK_S = 0.1


class SteadyFeed:
    """`per_s` conversations a second, each of a text of its own; use as an async context manager."""

    def __init__(self, service: Service, per_s: int) -> None:
        self._service = service
        self._per_tick = round(per_s * _TICK_S)
        self._producer: AIOKafkaProducer | None = None
        self._stopped = asyncio.Event()
        self._feeding: asyncio.Task[None] | None = None
        self._sent = 0
        #: Conversations that the broker has confirmed.
        self.confirmed = 0

    async def __aenter__(self) -> "SteadyFeed":
        self._producer = AIOKafkaProducer(bootstrap_servers=self._service.bootstrap_servers, acks="all")
        await self._producer.start()
        self._feeding = asyncio.create_task(self._feed())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._producer is not None
        try:
            await self.stop()
        finally:
            await self._producer.stop()

    async def stop(self) -> None:
        """Returns when all sent records are confirmed. Raises the error that stopped the feed."""
        self._stopped.set()
        if self._feeding is not None:
            await self._feeding

    async def burst(self, count: int, text_chars: int) -> None:
        """Sends `count` more at once, of texts that need no call: one character over and over."""
        await self._confirmed(["x" * text_chars] * count)

    async def _feed(self) -> None:
        while not self._stopped.is_set():
            tick = asyncio.create_task(asyncio.sleep(_TICK_S))
            await self._confirmed([f"where is my parcel number {self._sent + n}" for n in range(self._per_tick)])
            await tick

    async def _confirmed(self, texts: Sequence[str]) -> None:
        assert self._producer is not None
        confirmations = []
        for text in texts:
            id, self._sent = f"feed-{self._sent}", self._sent + 1
            value = json.dumps({"id": id, "text": text}).encode()
            confirmations.append(await self._producer.send(self._service.topics.conversations, value, key=id.encode()))
        for confirmation in confirmations:
            await confirmation
            self.confirmed += 1
