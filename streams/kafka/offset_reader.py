"""Reads offsets, records and partition counts from the broker without joining the group."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorForGroupError,
    RequestTimedOutError,
)
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata

from schemas.errors import Retryable
from schemas.kafka import Topics
from streams.kafka.clients import READ_COMMITTED, describe_broker_error, stop_consumer
from streams.kafka.unreadable_batch import UnreadableBatchError

#: How long one lookup of records may take; partitions that have not answered by then are left out.
LOOKUP_TIMEOUT_S = 5.0
POLL_TIMEOUT_MS = 100
#: Upper limit of one fetch: small batches of many partitions fit. A larger batch is still sent whole.
LOOKUP_BYTES = 2**16
COORDINATOR_ATTEMPTS = 50
COORDINATOR_PAUSE_S = 0.2

_HALTED = "halted "

T = TypeVar("T")
log = structlog.get_logger()


class Position(NamedTuple):
    """The group's position in one partition: the offset to read next, and the end offset."""

    start: int
    end: int


class _Lookup(NamedTuple):
    """The result of a fetch: the first record, if any, and the partition's end offset."""

    record: ConsumerRecord | None
    end: int
    is_readable: bool = True


class OffsetReader:
    """One admin client and one consumer.

    Methods other than `check` raise KafkaError when the broker fails.
    """

    def __init__(self, client_options: Mapping[str, Any], topics: Topics) -> None:
        self._client_options = client_options
        self._topics = topics
        self._connected_admin: AIOKafkaAdminClient | None = None
        self._connected_consumer: AIOKafkaConsumer | None = None
        #: A lookup assigns, seeks and polls the one consumer: two of them must not interleave.
        self._lookup_lock = asyncio.Lock()

    async def start(self) -> None:
        """Connects. Leaves nothing open when the broker does not answer."""
        admin = AIOKafkaAdminClient(**self._client_options)
        consumer = AIOKafkaConsumer(
            **self._client_options,
            group_id=None,
            auto_offset_reset="earliest",
            isolation_level=READ_COMMITTED,
            # A lookup needs one record; a broker sends at least one batch whatever the limit, and here not more.
            max_partition_fetch_bytes=1,
            # Tansu 0.6 ignores the limit by partition and would send 5 MB for each lookup.
            fetch_max_bytes=LOOKUP_BYTES,
        )
        try:
            await admin.start()
            await consumer.start()
        except BaseException:
            await admin.close()
            await stop_consumer(consumer)
            raise
        self._connected_admin, self._connected_consumer = admin, consumer

    async def stop(self) -> None:
        """Disconnects. Does nothing before `start`."""
        if self._connected_consumer is not None:
            await stop_consumer(self._connected_consumer)
        if self._connected_admin is not None:
            await self._connected_admin.close()

    async def check(self) -> None:
        """Checks that the broker answers and has the topic. Raises Retryable otherwise."""
        topic = self._topics.conversations
        if self._connected_admin is None:
            raise Retryable("not connected yet")
        try:
            counts = await self.partition_counts([topic])
        except KafkaError as error:
            raise Retryable(describe_broker_error(error)) from error
        if not counts.get(topic):
            raise Retryable(f"the topic {topic} is missing: run `grok-insights topics`")

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Returns the number of partitions of each topic, 0 for a topic that does not exist."""
        found = await self._admin.describe_topics(list(topics))
        return {topic["topic"]: len(topic["partitions"]) if not topic["error_code"] else 0 for topic in found}

    async def members(self) -> frozenset[str]:
        """Returns the IDs of the workers that are in the group."""
        admin, group_id = self._admin, self._topics.consumer_group
        [response] = await _retry_coordinator(lambda: admin.describe_consumer_groups([group_id]))
        return frozenset(member[0] for group in response.groups for member in group[-1])

    async def halted_members(self, partitions: Iterable[TopicPartition]) -> frozenset[str]:
        """Returns the IDs in the notes at the committed offsets: of workers that have halted, and may have left."""
        wanted = list(partitions)
        committed = await _retry_coordinator(lambda: self._fetch_committed(wanted))
        notes = [at.metadata or "" for at in committed.values()]
        return frozenset(note.removeprefix(_HALTED) for note in notes if note.startswith(_HALTED))

    async def committed_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Returns the group's committed offset of each partition, None where nothing was committed."""
        wanted = list(partitions)
        offsets = await _retry_coordinator(lambda: self._fetch_committed(wanted))
        return {tp: at.offset if at.offset >= 0 else None for tp, at in offsets.items()}

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns the offset of the first record that each partition still holds."""
        offsets: dict[TopicPartition, int] = await self._consumer.beginning_offsets(list(partitions))
        return offsets

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns the offset after the last record of each partition; records of an open transaction are not there yet.

        Asks twice: Tansu 0.6 answers ListOffsets with the offset after the last batch's first record, and reports the
        correct end offset only in a fetch response (tests/contracts/test_offset_reader.py shows it).
        """
        listed, fetched = await self._end_offsets(partitions)
        return listed | fetched

    async def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """Returns where the group has to continue reading in each partition, and the end offset.

        That is the committed offset, or the beginning offset where it is higher. It is also the beginning offset when
        the log ends before the committed offset, as after an unclean leader election: the records there are other ones,
        and those below the committed offset would never be read. An end offset that is too low would look the same and
        have the whole partition read again, so every end offset must be confirmed by a fetch.
        """
        wanted = list(partitions)
        committed, beginning = await self.committed_offsets(wanted), await self.beginning_offsets(wanted)
        listed, fetched = await self._end_offsets(wanted)
        if unconfirmed := [tp for tp in wanted if listed[tp] and tp not in fetched]:
            raise RequestTimedOutError(f"no end offset for {len(unconfirmed)} partitions")
        return {tp: _position(tp, committed[tp] or 0, beginning[tp], fetched.get(tp, 0)) for tp in wanted}

    async def first_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, ConsumerRecord | None]:
        """Returns the first record at or after each offset, None if there is none.

        Transaction markers and compacted records leave offsets without a record. Partitions that did not answer in
        time, or whose next batch cannot be read, are left out.
        """
        return {tp: lookup.record for tp, lookup in (await self._look_up(offsets)).items() if lookup.is_readable}

    @property
    def _admin(self) -> AIOKafkaAdminClient:
        assert self._connected_admin is not None, "start() comes first"
        return self._connected_admin

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        assert self._connected_consumer is not None, "start() comes first"
        return self._connected_consumer

    async def _fetch_committed(self, wanted: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Returns what the coordinator answers, offset -1 where nothing was committed.

        A coordinator that is still loading the group answers with an error and no partitions. aiokafka 0.14 drops that
        error (tests/unit/kafka/test_offset_reader.py shows it), which would look as if nothing had been committed, and
        the whole log would be read again.
        """
        found = await self._admin.list_consumer_group_offsets(self._topics.consumer_group, partitions=wanted)
        if not found.keys() >= set(wanted):
            raise NotCoordinatorForGroupError("the coordinator did not answer for every partition")
        return {tp: found[tp] for tp in wanted}

    async def _end_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Returns the end offsets from ListOffsets, and those confirmed by a fetch."""
        listed: dict[TopicPartition, int] = await self._consumer.end_offsets(list(partitions))
        lookups = await self._look_up({tp: end - 1 for tp, end in listed.items() if end > 0})
        return listed, {tp: max(listed[tp], lookup.end) for tp, lookup in lookups.items()}

    async def _look_up(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, _Lookup]:
        """Reads from each offset until a record or the end; leaves out what times out."""
        found: dict[TopicPartition, _Lookup] = {}
        if not offsets:
            return found
        async with self._lookup_lock:
            self._consumer.assign(list(offsets))
            self._seek(offsets)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                    while missing := [tp for tp in offsets if tp not in found]:
                        try:
                            await self._poll(missing, found)
                        except UnreadableBatchError as error:
                            end = self._stable_end(error.tp)
                            assert end is not None, "the fetch that brought the batch has its end"
                            found[error.tp] = _Lookup(None, end, is_readable=False)
                            self._seek({tp: offsets[tp] for tp in missing})
            self._consumer.unsubscribe()
        return found

    def _seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        for tp, offset in offsets.items():
            self._consumer.seek(tp, offset)

    async def _poll(self, missing: list[TopicPartition], found: dict[TopicPartition, _Lookup]) -> None:
        batches = await self._consumer.getmany(*missing, timeout_ms=POLL_TIMEOUT_MS, max_records=len(missing))
        for tp in missing:
            if (end := self._stable_end(tp)) is None:  # no fetch was answered yet
                continue
            if tp in batches:
                found[tp] = _Lookup(batches[tp][0], end)
            elif await self._consumer.position(tp) >= end:
                found[tp] = _Lookup(None, end)

    def _stable_end(self, tp: TopicPartition) -> int | None:
        """Where committed records end; a broker without transactions may not say."""
        stable: int | None = self._consumer.last_stable_offset(tp)
        end: int | None = self._consumer.highwater(tp)
        return stable if stable is not None and stable >= 0 else end


def halted_note(member_id: str) -> str:
    """What a worker that has halted commits with its offsets: the only sign of it that the rest of the group sees."""
    return f"{_HALTED}{member_id}"


def _position(tp: TopicPartition, committed: int, beginning: int, end: int) -> Position:
    if committed > end:
        log.error("log_ends_before_committed_offset", partition=tp, committed=committed, end=end)
        return Position(beginning, end)
    return Position(max(committed, beginning), end)


async def _retry_coordinator(ask: Callable[[], Awaitable[T]]) -> T:
    """Retries while the coordinator is unavailable: a new cluster has no offsets topic yet."""
    for _ in range(COORDINATOR_ATTEMPTS):
        with suppress(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            return await ask()
        await asyncio.sleep(COORDINATOR_PAUSE_S)
    return await ask()
