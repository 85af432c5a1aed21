"""An analyser and a table of answers in memory; tests/contracts runs both against the real ones."""

import asyncio
from collections.abc import Iterable, Sequence

from agents.analyse import Flight
from agents.analyser import OnUnanswered, ignore_call
from schemas.call import UnansweredCall
from schemas.insight import Answer
from tests.support.factories import MODEL, NOON, PARTITIONS, an_answer


async def at_once() -> None:
    """Acts as an open fence."""


class FakeAnalyser:
    """Answers as soon as the gate is open; `held` has gates of single texts.

    Raises the given failures first, one a call, and for each text of `errors` always the same.
    """

    version = "v1"
    is_paid = True

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.failures = list(failures)
        self.errors: dict[str, Exception] = {}
        #: Calls about a text that it reports before it answers or fails.
        self.unanswered: dict[str, Sequence[UnansweredCall]] = {}
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.held: dict[str, asyncio.Event] = {}

    async def analyse(self, text: str, on_unanswered: OnUnanswered = ignore_call) -> Answer:
        """See agents.analyser.Analyser."""
        self.asked.append(text)
        try:
            await self.held.get(text, self.gate).wait()
        except asyncio.CancelledError:
            on_unanswered(UnansweredCall("ambiguous", MODEL, NOON))
            raise
        for call in self.unanswered.pop(text, ()):
            on_unanswered(call)
        if self.failures:
            raise self.failures.pop(0)
        if text in self.errors:
            raise self.errors[text]
        self.answered.append(text)
        return an_answer()


class MemoryAnswers:
    """The table `answers` for the given partitions; puts wait for the gate, and are refused while `is_refusing`."""

    def __init__(self, partitions: Iterable[int] = range(PARTITIONS)) -> None:
        self.shards: dict[int, dict[bytes, bytes]] = {partition: {} for partition in partitions}
        self.puts: list[list[bytes]] = []
        self.is_refusing = False
        self.gate = asyncio.Event()
        self.gate.set()

    def get(self, partition: int, key: bytes) -> bytes | None:
        """See agents.analyse.Answers."""
        return self.shards[partition].get(key)

    async def put(self, flights: list[Flight]) -> list[Flight]:
        """See agents.analyse.Answers."""
        self.puts.append([flight.key for flight in flights])
        await self.gate.wait()
        if self.is_refusing:
            return flights
        for flight in flights:
            self.shards.get(flight.partition, {})[flight.key] = flight.value
        return []
