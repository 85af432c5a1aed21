"""Faust loses records that it has fetched, as it does when a stream is resumed twice around a rebalance."""

from collections.abc import AsyncIterator, Callable
from typing import cast

from faust.streams import Stream
from faust.types import EventT
from streams.pipeline.pump import Pump

from tests.chaos.planting import replace

IsLost = Callable[[EventT[bytes]], bool]


class LossyStream:
    """A stream of Faust's without the events that are lost."""

    def __init__(self, stream: Stream[bytes], is_lost: IsLost) -> None:
        self._stream = stream
        self._is_lost = is_lost

    def noack(self) -> "LossyStream":
        """As the stream's own."""
        return LossyStream(cast(Stream[bytes], self._stream.noack()), self._is_lost)

    async def events(self) -> AsyncIterator[EventT[bytes]]:
        """Those that are not lost."""
        async for event in self._stream.events():
            if not self._is_lost(event):
                yield event


def lose_records(is_lost: IsLost) -> None:
    """From here on this process' pump reads from a stream that loses what `is_lost` says."""
    run = Pump.run

    async def run_on_a_lossy_stream(pump: Pump, stream: Stream[bytes]) -> None:
        await run(pump, LossyStream(stream, is_lost))  # type: ignore[arg-type]

    replace(Pump, "run", run_on_a_lossy_stream)
