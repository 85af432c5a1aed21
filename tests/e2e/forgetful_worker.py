"""`python -m tests.e2e.forgetful_worker`: a worker whose Faust loses every record when it hands it out first."""

import sys
from collections.abc import AsyncIterator
from typing import cast

from faust.streams import Stream
from faust.types import TP, EventT

from streams import cli
from streams.pipeline.pump import Pump


class ForgetfulStream:
    """A stream of Faust's that yields a record from the second time on."""

    def __init__(self, stream: Stream[bytes], handed_out: set[tuple[TP, int]]) -> None:
        self._stream = stream
        self._handed_out = handed_out

    def noack(self) -> "ForgetfulStream":
        """As the stream's own."""
        return ForgetfulStream(cast(Stream[bytes], self._stream.noack()), self._handed_out)

    async def events(self) -> AsyncIterator[EventT[bytes]]:
        """Those that had come before."""
        async for event in self._stream.events():
            place = event.message.tp, event.message.offset
            if place in self._handed_out:
                yield event
            self._handed_out.add(place)


def main() -> None:
    """As `grok-insights worker`."""
    run = Pump.run

    async def run_on_a_forgetful_stream(pump: Pump, stream: Stream[bytes]) -> None:
        await run(pump, ForgetfulStream(stream, set()))  # type: ignore[arg-type]

    setattr(Pump, "run", run_on_a_forgetful_stream)  # noqa: B010  mypy refuses to assign to a method
    sys.argv = ["grok-insights", "worker"]
    cli.main()


if __name__ == "__main__":
    main()
