"""Seeks what Faust was given and the pump never saw: a lost record shows to the pump only by a later one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple, NoReturn

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.pipeline.log_reader import LogReader
from streams.pipeline.offsets import Tracker
from streams.pipeline.pump import Pump
from streams.pipeline.reading import Reading

#: Longer than SEEK_AGAIN_S, so that what a seek brings is seen before the next one.
LOOK_EVERY_S = 3.0

#: Up to where Faust was given the records of each partition.
HandedOut = Callable[[Collection[TP]], Awaitable[Mapping[TP, int]]]

log = structlog.get_logger()


class _Miss(NamedTuple):
    """A partition of which Faust had more than the pump: a lost record, or one that waits in Faust's queues."""

    tracker: Tracker
    expected: int
    handed_out: int
    #: Once the pump has taken so many records in all, nothing is left of what waited in the queues.
    queues_end_at: int

    def is_still(self, earlier: "_Miss") -> bool:
        """Whether it is the same assignment, and nothing was admitted in between."""
        return (self.tracker, self.expected) == (earlier.tracker, earlier.expected)


class SilenceWatch:
    """Faust may lose the last record of a partition, or lose one again just after it was sought: nothing comes after
    it, and nobody would miss it until the next record or rebalance."""

    def __init__(self, reading: Reading, log_reader: LogReader, pump: Pump, handed_out: HandedOut) -> None:
        self._reading = reading
        self._log_reader = log_reader
        self._pump = pump
        self._handed_out = handed_out
        self._misses: dict[TP, _Miss] = {}
        self._was_full = False

    async def run(self, partitions: Callable[[], Collection[TP]]) -> NoReturn:
        """Until cancelled. `partitions` are the assigned ones whose records flow at that moment."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look(partitions())
            except KafkaError as error:
                log.warning("silence_not_looked_into", error=type(error).__name__)

    async def look(self, partitions: Collection[TP]) -> None:
        """Seeks where the last look missed a record that has not come since.

        Faust hands on the partitions of a fetch by turns, so a partition moves between two looks unless all slots are
        taken; then a miss lasts until all that waited in the queues has come. Raises KafkaError when the brokers do not
        answer.
        """
        before, self._misses = self._misses, {}
        was_full, self._was_full = self._was_full, self._pump.is_full
        now = await self._missing(partitions)
        lasting = {
            tp: before[tp].queues_end_at for tp, miss in now.items() if tp in before and miss.is_still(before[tp])
        }
        self._misses = now | {tp: now[tp]._replace(queues_end_at=at) for tp, at in lasting.items()}
        is_waiting = was_full or self._was_full
        await self._seek([tp for tp, at in lasting.items() if not is_waiting or self._pump.taken >= at])

    async def _missing(self, partitions: Collection[TP]) -> dict[TP, _Miss]:
        generation = self._reading.generation()
        found = {tp: await self._reading.tracker((tp, generation)) for tp in partitions}
        trackers = {tp: tracker for tp, tracker in found.items() if tracker is not None}
        if not trackers:
            return {}
        expected = {tp: tracker.expected for tp, tracker in trackers.items()}
        taken = self._pump.taken
        ahead = {tp: end for tp, end in (await self._handed_out(trackers)).items() if end > expected[tp]}
        queues_end_at = taken + sum(end - expected[tp] for tp, end in ahead.items())
        return {tp: _Miss(trackers[tp], expected[tp], end, queues_end_at) for tp, end in ahead.items()}

    async def _seek(self, silent: Collection[TP]) -> None:
        at = {tp: TopicPartition(tp.topic, tp.partition) for tp in silent}
        records = await self._log_reader.first_records({at[tp]: self._misses[tp].expected for tp in silent})
        for tp in silent:
            tracker, expected, handed_out, _ = self._misses[tp]
            record = records.get(at[tp])
            # A transaction's marker is handed out as an offset without a record.
            is_lost = record is not None and record.offset < handed_out
            if is_lost and tracker.expected == expected and not tracker.dead:
                await self._reading.again(tracker, tp)
                # What the seek brings gets as long to come.
                del self._misses[tp]
