"""What the pump sees of Faust: a stream of events that a test feeds, and an assignment that it changes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from faust.types import TP


@dataclass(frozen=True)
class FakeMessage:
    topic: str
    partition: int
    offset: int
    generation_id: int
    timestamp: float | None = 1_770_000_000.0
    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def tp(self) -> TP:
        return TP(self.topic, self.partition)


@dataclass(frozen=True)
class FakeEvent:
    message: FakeMessage


class FakeStream:
    """Ends when `None` is put."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[FakeEvent | None] = asyncio.Queue()

    def put(self, *offsets: int, partition: int = 0, generation: int = 1, **fields: object) -> None:
        for offset in offsets:
            message = FakeMessage("conversations", partition, offset, generation, **fields)  # type: ignore[arg-type]
            self._events.put_nowait(FakeEvent(message))

    def end(self) -> None:
        self._events.put_nowait(None)

    def noack(self) -> "FakeStream":
        return self

    async def events(self) -> AsyncIterator[FakeEvent]:
        while (event := await self._events.get()) is not None:
            yield event
