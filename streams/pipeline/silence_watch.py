"""Reads a partition on that has fallen silent before its end: a lost record shows to the pump only by the next one."""

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple, NoReturn

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.pipeline.log_reader import LogReader
from streams.pipeline.offsets import Tracker
from streams.pipeline.reading import Reading

#: Longer than SEEK_AGAIN_S, so that what a seek brings is seen before the next one.
LOOK_EVERY_S = 3.0

log = structlog.get_logger()


class _Standing(NamedTuple):
    """Equal at two looks: the same assignment, and nothing was admitted between them."""

    tracker: Tracker
    expected: int


class SilenceWatch:
    """Faust may lose the last record of a partition, or lose one again just after it was sought: nothing comes after
    it, and nobody would miss it until the next record or rebalance."""

    def __init__(self, reading: Reading, log_reader: LogReader, is_full: Callable[[], bool]) -> None:
        self._reading = reading
        self._log_reader = log_reader
        self._is_full = is_full
        self._behind: dict[TP, _Standing] = {}

    async def run(self, partitions: Callable[[], Collection[TP]]) -> NoReturn:
        """Until cancelled. `partitions` are the assigned ones whose records flow at that moment."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look(partitions())
            except KafkaError as error:
                log.warning("silence_not_looked_into", error=type(error).__name__)

    async def look(self, partitions: Collection[TP]) -> None:
        """Seeks where the last look found records that are still to come and none has come since.

        Not while all slots are taken: whatever has come waits behind the pump then. Raises KafkaError when the brokers
        do not answer.
        """
        before, self._behind = self._behind, {}
        if self._is_full():
            return
        self._behind = await self._standing_behind(partitions)
        silent = {tp: standing for tp, standing in self._behind.items() if before.get(tp) == standing}
        at = {tp: TopicPartition(tp.topic, tp.partition) for tp in silent}
        records = await self._log_reader.first_records({at[tp]: silent[tp].expected for tp in silent})
        for tp, (tracker, expected) in silent.items():
            # No record stands up to the end where a transaction left its marker.
            if records.get(at[tp]) is not None and tracker.expected == expected and not tracker.dead:
                await self._reading.again(tracker, tp)

    async def _standing_behind(self, partitions: Collection[TP]) -> dict[TP, _Standing]:
        generation = self._reading.generation()
        trackers = {tp: await self._reading.tracker((tp, generation)) for tp in partitions}
        standing = {tp: _Standing(tracker, tracker.expected) for tp, tracker in trackers.items() if tracker}
        at = {tp: TopicPartition(tp.topic, tp.partition) for tp in standing}
        ends = await self._log_reader.ends(at.values()) if at else {}
        return {tp: now for tp, now in standing.items() if ends[at[tp]] > now.expected}
