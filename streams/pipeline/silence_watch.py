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
from streams.pipeline.reading import Reading

#: Longer than SEEK_AGAIN_S, so that what a seek brings is seen before the next one.
LOOK_EVERY_S = 3.0

#: Up to where Faust was given the records of each partition.
HandedOut = Callable[[Collection[TP]], Awaitable[Mapping[TP, int]]]

log = structlog.get_logger()


class _Standing(NamedTuple):
    """Equal at two looks: the same assignment, and nothing was admitted between them."""

    tracker: Tracker
    expected: int


class SilenceWatch:
    """Faust may lose the last record of a partition, or lose one again just after it was sought: nothing comes after
    it, and nobody would miss it until the next record or rebalance."""

    def __init__(
        self, reading: Reading, log_reader: LogReader, handed_out: HandedOut, is_full: Callable[[], bool]
    ) -> None:
        self._reading = reading
        self._log_reader = log_reader
        self._handed_out = handed_out
        self._is_full = is_full
        self._missed: dict[TP, _Standing] = {}

    async def run(self, partitions: Callable[[], Collection[TP]]) -> NoReturn:
        """Until cancelled. `partitions` are the assigned ones whose records flow at that moment."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look(partitions())
            except KafkaError as error:
                log.warning("silence_not_looked_into", error=type(error).__name__)

    async def look(self, partitions: Collection[TP]) -> None:
        """Seeks where Faust had more than the pump at the last look already, and nothing was admitted since.

        Not while all slots are taken: what has come waits behind the pump then. Faust hands on the partitions of a
        fetch by turns, so none waits long while others move. Raises KafkaError when the brokers do not answer.
        """
        before, self._missed = self._missed, {}
        if self._is_full():
            return
        self._missed = await self._missing(partitions)
        silent = {tp: standing for tp, standing in self._missed.items() if before.get(tp) == standing}
        at = {tp: TopicPartition(tp.topic, tp.partition) for tp in silent}
        records = await self._log_reader.first_records({at[tp]: silent[tp].expected for tp in silent})
        for tp, (tracker, expected) in silent.items():
            # A transaction's marker is handed out as an offset without a record.
            if records.get(at[tp]) is not None and tracker.expected == expected and not tracker.dead:
                await self._reading.again(tracker, tp)

    async def _missing(self, partitions: Collection[TP]) -> dict[TP, _Standing]:
        generation = self._reading.generation()
        trackers = {tp: await self._reading.tracker((tp, generation)) for tp in partitions}
        standing = {tp: _Standing(tracker, tracker.expected) for tp, tracker in trackers.items() if tracker}
        handed_out = await self._handed_out(standing.keys())
        return {tp: now for tp, now in standing.items() if handed_out.get(tp, 0) > now.expected}
