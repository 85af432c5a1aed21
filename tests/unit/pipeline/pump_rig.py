"""A pump on fakes of Faust's stream and of the log, with the watch beside it."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from streams.pipeline.assignment import Assignment
from streams.pipeline.pump import Pump
from streams.pipeline.reading import Reading
from streams.pipeline.record import Record
from streams.pipeline.silence_watch import LOOK_EVERY_S, SilenceWatch

from tests.fakes.faust_stream import FakeStream
from tests.support.topics import TOPICS

FIRST = TP("conversations", 0)


@dataclass(frozen=True)
class LogRecord:
    offset: int


class FakeLog:
    """Every partition's reading starts at 0, and Faust was given it up to `end`, unless `ends` says otherwise."""

    def __init__(self) -> None:
        self.holds = set(range(100))
        self.end = 100
        self.ends: dict[TP, int] = {}
        self.start = asyncio.Event()
        self.start.set()
        self.is_down = False

    async def start_of_reading(self, partition: TopicPartition) -> int:
        await self.start.wait()
        return 0

    async def first_records(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, LogRecord | None]:
        return {partition: self._first(at) for partition, at in offsets.items()}

    async def handed_out(self, partitions: Collection[TP]) -> dict[TP, int]:
        if self.is_down:
            raise KafkaConnectionError
        return {tp: self.ends.get(tp, self.end) for tp in partitions}

    def _first(self, at: int) -> LogRecord | None:
        offsets = [offset for offset in self.holds if at <= offset]
        return LogRecord(min(offsets)) if offsets else None


class Rig:
    """`handle` takes records when the gate is open; the clock stands still until `look` or a test moves it."""

    def __init__(self, max_in_flight: int) -> None:
        self.stream, self.log, self.assignment = FakeStream(), FakeLog(), Assignment()
        self.generation = 1
        self.assigned = {FIRST}
        self.handled: list[Record] = []
        self.sought: list[int] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.now_s = 0.0
        reading = Reading(
            self.assignment,
            self.log,  # type: ignore[arg-type]
            generation=lambda: self.generation,
            is_assigned=lambda tp: tp in self.assigned,
            seek=self.seek,
            clock=lambda: self.now_s,
        )
        self.pump = Pump(
            self.assignment,
            reading,
            self.handle,
            TOPICS.rehomed,
            max_in_flight=max_in_flight,
            fail=self.failures.append,
        )
        self.watch = SilenceWatch(reading, self.log, self.pump, self.log.handed_out)  # type: ignore[arg-type]

    async def handle(self, record: Record, is_alive: Callable[[], bool]) -> bool:
        self.handled.append(record)
        await self.gate.wait()
        return True

    async def one_ends(self) -> None:
        """Lets go what is in work, and nothing that comes after it."""
        gate, self.gate = self.gate, asyncio.Event()
        gate.set()
        await turns()

    async def seek(self, tp: TP, offset: int) -> None:
        self.sought.append(offset)

    async def look(self) -> None:
        """The watch looks, once what is in the stream has been taken."""
        await turns()
        self.now_s += LOOK_EVERY_S
        await self.watch.look(self.assigned)

    @property
    def offsets(self) -> list[int]:
        return [record.origin.offset for record in self.handled]

    def due(self) -> dict[TP, int]:
        return {tp: offset for tp, (_, offset) in self.assignment.due(self.generation).items()}


async def settled(condition: Callable[[], Any]) -> None:
    """Returns when the condition holds; every wait of the fakes is over within a few turns of the loop."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def turns() -> None:
    """Long enough for everything that could happen to have happened."""
    for _ in range(50):
        await asyncio.sleep(0)
