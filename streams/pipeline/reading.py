"""Where reading stands in each partition: its tracker, a look into the log for holes, and the way back to a record."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faust.types import TP

from streams.pipeline.assignment import Assignment, Key
from streams.pipeline.log_reader import LogReader
from streams.pipeline.offsets import Tracker

#: How long a seek is given to bring the expected record before it is made again.
SEEK_AGAIN_S = 2.0
ASK_AGAIN_S = 0.5

Seek = Callable[[TP, int], Awaitable[None]]

log = structlog.get_logger()


class Reading:
    """Serves the pump and the silence watch; what Faust says of positions is asked of the log instead."""

    def __init__(
        self,
        assignment: Assignment,
        log_reader: LogReader,
        *,
        generation: Callable[[], int],
        is_assigned: Callable[[TP], bool],
        seek: Seek,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._assignment = assignment
        self._log_reader = log_reader
        self.generation = generation
        self._is_assigned = is_assigned
        self._seek = seek
        self._clock = clock

    async def tracker(self, key: Key) -> Tracker | None:
        """The tracker of a partition in a generation, opened if there is none yet; None when that assignment is over
        or the partition is not ours."""
        # A late fetch of the old assignment carries the new generation's number: hence the question whose it is.
        if self._assignment.tracker(key) is None and self._is_current(key) and self._is_assigned(key[0]):
            start = await self._start_of_reading(key)
            # Pump and watch may both have asked.
            if start is not None and self._assignment.tracker(key) is None:
                self._assignment.open(key, start)
        return self._assignment.tracker(key) if self._is_current(key) else None

    async def look_for_a_hole(self, tracker: Tracker, tp: TP) -> None:
        """Tells the tracker where the log really goes on; it keeps that until the next record is admitted.

        Looked up once a jump, for thousands of records may be queued behind it; again only after SEEK_AGAIN_S.
        """
        if tracker.is_hole_known or not self._is_due(tracker.looked_at_s):
            return
        tracker.looked_at_s = self._clock()
        at = TopicPartition(tp.topic, tp.partition)
        try:
            record = (await self._log_reader.first_records({at: tracker.expected})).get(at)
        except KafkaError as error:
            log.warning("log_not_read", partition=tp.partition, error=type(error).__name__)
            record = None
        if record is not None:
            tracker.confirm_hole(record.offset)

    async def again(self, tracker: Tracker, tp: TP) -> None:
        """Seeks the expected record, unless that was done less than SEEK_AGAIN_S ago."""
        if not self._is_due(tracker.sought_at_s):
            return
        tracker.sought_at_s = self._clock()
        log.info("reading_again", topic=tp.topic, partition=tp.partition, offset=tracker.expected)
        try:
            await self._seek(tp, tracker.expected)
        except IllegalStateError:
            log.info("not_assigned_any_more", topic=tp.topic, partition=tp.partition)

    async def _start_of_reading(self, key: Key) -> int | None:
        """Asked of the log until it answers: a record must not be judged by anything else."""
        tp = TopicPartition(key[0].topic, key[0].partition)
        while self._is_current(key):
            try:
                start = await self._log_reader.start_of_reading(tp)
            except KafkaError as error:
                log.warning("start_of_reading_unknown", partition=tp.partition, error=type(error).__name__)
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return start if self._is_current(key) else None
        return None

    def _is_current(self, key: Key) -> bool:
        return self._assignment.is_open and key[1] == self.generation()

    def _is_due(self, last_s: float | None) -> bool:
        return last_s is None or self._clock() - last_s >= SEEK_AGAIN_S
