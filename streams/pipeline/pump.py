"""Takes records from Faust in order, each once per assignment, and keeps a bounded number of them in work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faust.events import Event
from faust.streams import Stream
from faust.types import TP

from schemas.topics import Origin
from streams.pipeline.assignment import Assignment, Key
from streams.pipeline.log_reader import LogReader
from streams.pipeline.offsets import Slot, Tracker, Verdict
from streams.pipeline.record import Record, read_record

#: How long a seek is given to bring the expected record before it is made again.
SEEK_AGAIN_S = 2.0
ASK_AGAIN_S = 0.5

log = structlog.get_logger()

Handle = Callable[[Record, Callable[[], bool]], Awaitable[bool]]
Seek = Callable[[TP, int], Awaitable[None]]


class Pump:
    """`handle(record, is_alive)` retries by itself while alive; True means that the record's work is durable."""

    def __init__(
        self,
        assignment: Assignment,
        log_reader: LogReader,
        handle: Handle,
        *,
        max_in_flight: int,
        generation: Callable[[], int],
        is_assigned: Callable[[TP], bool],
        seek: Seek,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._assignment = assignment
        self._log_reader = log_reader
        self._handle = handle
        self._free = asyncio.Semaphore(max_in_flight)
        self._generation = generation
        self._is_assigned = is_assigned
        self._seek = seek
        self._fail = fail

    async def run(self, stream: Stream[bytes]) -> None:
        """Reads the stream until it ends. Nothing is acked to Faust: its commits would pass unfinished records.

        An error of the reading itself ends the worker: Faust would start the agent anew and tell nobody.
        """
        try:
            async for event in stream.noack().events():
                await self._take(event)
                if self._assignment.is_halted:
                    await _until_cancelled()
        except Exception as error:
            self._fail(error)
            raise

    async def _take(self, event: Event) -> None:
        tracker = await self._tracker_of(event)
        if tracker is None or not await self._is_next(tracker, event):
            return
        slot = tracker.admit(event.message.offset, event.message.timestamp or 0.0)
        await self._free.acquire()
        if tracker.dead or not self._assignment.is_open:
            self._free.release()
            return
        task = self._assignment.spawn(self._work(event, tracker, slot))
        task.add_done_callback(lambda task: self._ended(task, tracker))

    async def _work(self, event: Event, tracker: Tracker, slot: Slot) -> None:
        if await self._handle(_record_of(event), lambda: not tracker.dead):
            tracker.finish(slot)

    def _ended(self, task: "asyncio.Task[None]", tracker: Tracker) -> None:
        """A slot whose work broke off would hold its partition for ever, unseen: the worker ends and reads it again.

        Only the end of an assignment may cancel it."""
        self._free.release()
        if task.cancelled():
            if not (tracker.dead or self._assignment.is_ending):
                self._fail(RuntimeError("a record's work was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(error)

    async def _tracker_of(self, event: Event) -> Tracker | None:
        """The tracker of the event's assignment, or None when that assignment is over."""
        key = (event.message.tp, event.message.generation_id or 0)
        tracker = self._assignment.tracker(key)
        # Also that the partition is ours: a late fetch of the old assignment carries the new generation's number.
        if tracker is None and self._is_current(key) and self._is_assigned(key[0]):
            start = await self._start_of_reading(key)
            tracker = self._assignment.open(key, start) if start is not None else None
        return tracker if self._is_current(key) else None

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

    async def _is_next(self, tracker: Tracker, event: Event) -> bool:
        """True for the record to admit. A jump is believed only if the log has the same hole; else it is read again."""
        offset = event.message.offset
        verdict = tracker.judge(offset)
        if verdict is Verdict.JUMP and await self._hole_is_real(tracker, event):
            return not tracker.dead
        if verdict is Verdict.JUMP and not tracker.dead:
            await self._read_again(tracker, event)
        return verdict is Verdict.NEXT

    async def _hole_is_real(self, tracker: Tracker, event: Event) -> bool:
        """Looked up once a jump, for thousands of records may be queued behind it; again only after SEEK_AGAIN_S."""
        if not tracker.is_hole_known and self._is_due(tracker.looked_at_s):
            tracker.looked_at_s = time.monotonic()
            tp = TopicPartition(event.message.topic, event.message.partition)
            try:
                record = (await self._log_reader.first_records({tp: tracker.expected})).get(tp)
            except KafkaError as error:
                log.warning("log_not_read", partition=tp.partition, error=type(error).__name__)
                record = None
            if record is not None:
                tracker.confirm_hole(record.offset)
        return tracker.judge(event.message.offset) is Verdict.NEXT

    async def _read_again(self, tracker: Tracker, event: Event) -> None:
        tp = event.message.tp
        if self._is_due(tracker.sought_at_s):
            tracker.sought_at_s = time.monotonic()
            log.info("reading_again", topic=tp.topic, partition=tp.partition, offset=tracker.expected)
            try:
                await self._seek(tp, tracker.expected)
            except IllegalStateError:
                log.info("not_assigned_any_more", topic=tp.topic, partition=tp.partition)

    def _is_due(self, last_s: float | None) -> bool:
        return last_s is None or time.monotonic() - last_s >= SEEK_AGAIN_S

    def _is_current(self, key: Key) -> bool:
        return self._assignment.is_open and key[1] == self._generation()


async def _until_cancelled() -> None:
    """A stream that nobody reads fills its buffer, and then Faust fetches nothing more."""
    await asyncio.Event().wait()


def _record_of(event: Event) -> Record:
    message = event.message
    return read_record(
        Origin(message.topic, message.partition, message.offset),
        key=message.key,
        value=message.value,
        headers=cast(list[tuple[str, bytes]], message.headers),  # a mapping only where the sender is Faust
        timestamp_s=message.timestamp,
    )
