"""Intake: reads the assigned input partitions in order, feeds the analyst's channel, and commits what is finished."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord

from agents.analyst import Analyst
from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.engine.app import InputChannel
from streams.kafka.clients import READ_COMMITTED, stop_consumer
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.unreadable_batch import UNREADABLE_HINT, UnreadableBatchError
from streams.worker.lifecycle import Lifecycle
from streams.worker.offsets import Tracker

MAX_FETCH_RECORDS = 1_000
MAX_PARTITION_FETCH_BYTES = 256 * 1024
MAX_FETCH_BYTES = 16 * 1024 * 1024
FETCH_MAX_WAIT_MS = 200
POLL_TIMEOUT_MS = 500
RETRY_S = 0.5
#: How long a partition rests whose next batch cannot be read: an intact replica may lead it meanwhile.
RETRY_UNREADABLE_S = 30.0

#: Commits offsets as a member of that generation; False when the broker did not take them.
Commit = Callable[[int, Mapping[TopicPartition, int]], Awaitable[bool]]

log = structlog.get_logger()


class Assignment:
    """The input partitions of one generation, from the end of their recovery to their revocation.

    A fetch carries its assignment, so that one of an earlier assignment can be recognised and dropped.
    """

    def __init__(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        self.partitions = frozenset(partitions)
        self.generation = generation
        self.is_open = True
        #: Whether the group can see at its committed offsets that this worker has halted.
        self.is_noted = False
        #: Known once the positions have been read.
        self.trackers: dict[TopicPartition, Tracker] = {}
        #: Where partitions stopped because the next batch cannot be read; logged once for each offset.
        self.unreadable: dict[TopicPartition, int] = {}
        self.reader: asyncio.Task[None] | None = None

    def revoke(self) -> None:
        """Late work reaches nothing any more."""
        self.is_open = False
        for tracker in self.trackers.values():
            tracker.revoke()


class Fetch:
    """What one poll brought, on its way through the channel."""

    __slots__ = ("assignment", "is_taken", "records")

    def __init__(self, assignment: Assignment, records: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        self.assignment = assignment
        self.records = records
        self.is_taken = asyncio.Event()


class Intake:
    """One assignment at a time; `process` is what the agent does with each value of the channel."""

    def __init__(
        self,
        channel: InputChannel,
        analyst: Analyst,
        offset_reader: OffsetReader,
        client_options: Mapping[str, Any],
        topics: Topics,
        commit: Commit,
        life: Lifecycle,
    ) -> None:
        self._channel = channel
        self._analyst = analyst
        self._offset_reader = offset_reader
        self._client_options = client_options
        self._rehomed_topic = topics.rehomed
        self._commit = commit
        self._life = life
        self.current: Assignment | None = None

    def begin(self, partitions: Iterable[TopicPartition], generation: int) -> None:
        """Reads from the committed offsets on. A reader that fails ends the process: it would seem idle."""
        assignment = self.current = Assignment(partitions, generation)
        assignment.reader = asyncio.create_task(self._read(assignment), name="input-reader")
        assignment.reader.add_done_callback(self._reader_ended)

    def end(self) -> Assignment | None:
        """Reads nothing more. Returns the assignment that ends, whose offsets may still be committed."""
        assignment, self.current = self.current, None
        if assignment is not None:
            assignment.is_open = False
            if assignment.reader is not None:
                assignment.reader.cancel()
        return assignment

    def process(self, fetch: Fetch) -> None:
        """Hands a fetch to the analyst; one whose assignment has ended is read again by the next owner."""
        try:
            if fetch.assignment.is_open and self._life.halted is None:
                for tp, records in fetch.records.items():
                    self._take(fetch.assignment.trackers[tp], records)
        except Exception as error:  # Faust would restart the agent, with these records lost from view
            log.exception("fetch_not_taken")
            self._life.fail(error)
        finally:
            fetch.is_taken.set()

    async def commit(self, assignment: Assignment) -> None:
        """Commits what is due, if anything is; what the broker does not take is due again.

        A worker that has halted commits all of its positions once more, since the note that says so goes with them.
        """
        due = {tracker: at for tracker in assignment.trackers.values() if (at := tracker.due()) is not None}
        has_halted = self._life.halted is not None
        if has_halted and not assignment.is_noted:
            due = {tracker: tracker.resume_at for tracker in assignment.trackers.values() if not tracker.is_revoked}
        offsets = {tracker.tp: at for tracker, at in due.items()}
        if due and await self._commit(assignment.generation, offsets):
            assignment.is_noted = has_halted
            for tracker, at in due.items():
                tracker.committed = at

    async def keep_committing(self, interval_s: float) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            if self.current is not None:
                await self.commit(self.current)

    def _take(self, tracker: Tracker, records: list[ConsumerRecord]) -> None:
        if records[0].offset < tracker.next:  # a restarted reader delivers again what was in the channel
            records = [record for record in records if record.offset >= tracker.next]
        self._analyst.take(tracker, records, rehomed=tracker.tp.topic == self._rehomed_topic)

    async def _read(self, assignment: Assignment) -> None:
        """A consumer of its own for each assignment: nothing of an earlier one can come out of it."""
        is_out_of_range = False
        while assignment.is_open:
            try:
                if is_out_of_range:
                    await self._skip_removed(assignment)
                    is_out_of_range = False
                if not assignment.trackers:
                    positions = await self._offset_reader.positions(assignment.partitions)
                    assignment.trackers = {tp: Tracker(tp, at.start) for tp, at in positions.items()}
                await self._feed(assignment)
            except (KafkaError, OSError) as error:
                log.warning("reading_interrupted", error=type(error).__name__)
                is_out_of_range = isinstance(error, OffsetOutOfRangeError)
                await asyncio.sleep(RETRY_S)

    async def _feed(self, assignment: Assignment) -> None:
        consumer = AIOKafkaConsumer(
            **self._client_options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=READ_COMMITTED,
            max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
            fetch_max_bytes=MAX_FETCH_BYTES,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        )
        try:
            await consumer.start()
            consumer.assign(list(assignment.trackers))
            _seek(consumer, assignment)
            retry_at_s = math.inf
            while assignment.is_open and self._life.halted is None:
                if time.monotonic() >= retry_at_s:
                    consumer.resume(*assignment.unreadable)
                    retry_at_s = math.inf
                room = min(await self._analyst.room(), MAX_FETCH_RECORDS)
                try:
                    records = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=room)
                except UnreadableBatchError as error:
                    _report_once(assignment, error)
                    consumer.pause(error.tp)
                    _seek(consumer, assignment)
                    retry_at_s = time.monotonic() + RETRY_UNREADABLE_S
                    continue
                if records:
                    # A whole fetch is one value: one a record would double what a record costs.
                    fetch = Fetch(assignment, records)
                    await self._channel.put(fetch)
                    await fetch.is_taken.wait()
            await asyncio.Event().wait()  # halted: until the assignment ends
        finally:
            await stop_consumer(consumer)

    async def _skip_removed(self, assignment: Assignment) -> None:
        """Continues at the log's new beginning, after retention removed the records to be read next.

        Raises Fatal where the log ends before what was read, as after an unclean election: the offsets are given to
        other records now, and only a new start can tell which.
        """
        begins = await self._offset_reader.beginning_offsets(assignment.partitions)
        ends = await self._offset_reader.end_offsets(assignment.partitions)
        for tp, tracker in assignment.trackers.items():
            if tracker.next > ends[tp]:
                why = f"{tp.topic} partition {tp.partition} ends at {ends[tp]}, read up to {tracker.next}"
                raise Fatal("the log ends before what was read", why, "start the worker again")
            if tracker.next < begins[tp]:
                log.error("records_removed_unread", topic=tp.topic, partition=tp.partition, until=begins[tp])
                tracker.next = begins[tp]

    def _reader_ended(self, reader: "asyncio.Task[None]") -> None:
        if not reader.cancelled() and (error := reader.exception()) is not None:
            self._life.fail(error)


def _seek(consumer: AIOKafkaConsumer, assignment: Assignment) -> None:
    for tp, tracker in assignment.trackers.items():
        consumer.seek(tp, tracker.next)


def _report_once(assignment: Assignment, error: UnreadableBatchError) -> None:
    if assignment.unreadable.get(error.tp) != error.offset:
        assignment.unreadable[error.tp] = error.offset
        at = {"topic": error.tp.topic, "partition": error.tp.partition, "offset": error.offset}
        log.error("batch_unreadable", **at, error=type(error.__cause__).__name__, hint=UNREADABLE_HINT)
