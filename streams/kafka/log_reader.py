"""The log's own word on offsets: what is committed, where a partition begins and ends, what really stands there.

Reads without joining the group, and believes nothing that Faust says of positions.
"""

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
from aiokafka.structs import ConsumerRecord

from schemas.errors import Retryable
from schemas.kafka import Topics
from streams.kafka.clients import stop_consumer

#: How long a look into the log may take before partitions that have not answered are left out.
LOOK_TIMEOUT_S = 5.0
READ_TIMEOUT_MS = 100
#: How much a broker may send at once for a look: room for small batches of many partitions. A larger one comes whole.
LOOK_BYTES = 2**16
COORDINATOR_ATTEMPTS = 50
COORDINATOR_PAUSE_S = 0.2

T = TypeVar("T")
log = structlog.get_logger()


class Position(NamedTuple):
    """Of the group in one partition: the offset to read next, and the one after the last record."""

    start: int
    end: int


class _Look(NamedTuple):
    """What a fetch brought: the first record, if there was one, and the partition's end."""

    record: ConsumerRecord | None
    end: int


class LogReader:
    """Every method but `check` raises aiokafka.errors.KafkaError when the broker does not answer."""

    def __init__(self, client_options: Mapping[str, Any], topics: Topics) -> None:
        self._client_options = client_options
        self._topics = topics
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None
        # One consumer has one assignment: a look assigns, seeks and reads, which must not interleave.
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Connects; what was connected is closed again when a later step fails."""
        admin = AIOKafkaAdminClient(**self._client_options)
        consumer = AIOKafkaConsumer(
            **self._client_options,
            group_id=None,
            auto_offset_reset="earliest",
            # A look wants one record: brokers send at least one batch, whatever its size, and here no more than that.
            max_partition_fetch_bytes=1,
            # Tansu 0.6 knows no limit by partition, and would send 5 MB at each look.
            fetch_max_bytes=LOOK_BYTES,
        )
        try:
            await admin.start()
            await consumer.start()
        except BaseException:
            await admin.close()
            await stop_consumer(consumer)
            raise
        self._admin, self._consumer = admin, consumer

    async def stop(self) -> None:
        """Disconnects."""
        if self._consumer is not None:
            await stop_consumer(self._consumer)
        if self._admin is not None:
            await self._admin.close()

    async def check(self) -> None:
        """A health check: passes when the broker answers now and has the topic. Raises Retryable otherwise."""
        topic = self._topics.conversations
        if self._admin is None:
            raise Retryable("not connected yet")
        try:
            counts = await self.partitions([topic])
        except KafkaError as error:
            raise Retryable("the broker does not answer") from error
        if not counts.get(topic):
            raise Retryable(f"the topic {topic} is missing: run `grok-insights topics`")

    async def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """Number of partitions of each topic; 0 where there is no such topic."""
        assert self._admin is not None, "start() comes first"
        found = await self._admin.describe_topics(list(topics))
        return {topic["topic"]: len(topic["partitions"]) if not topic["error_code"] else 0 for topic in found}

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int | None]:
        """The group's committed offset of each partition; None where there is none yet."""
        wanted = list(partitions)
        offsets = await _coordinated(lambda: self._committed(wanted))
        return {partition: offset if offset >= 0 else None for partition, offset in offsets.items()}

    async def _committed(self, wanted: list[TopicPartition]) -> dict[TopicPartition, int]:
        """As the coordinator answers, -1 where there is none.

        A coordinator that has just taken the group over answers with an error and without partitions. aiokafka 0.14
        drops that error (tests/unit/kafka/test_log_reader.py shows it), and nothing would look like nothing
        committed: the whole log would be worked on again.
        """
        assert self._admin is not None, "start() comes first"
        found = await self._admin.list_consumer_group_offsets(self._topics.consumer_group, partitions=wanted)
        if not found.keys() >= set(wanted):
            raise NotCoordinatorForGroupError("the coordinator did not answer for every partition")
        return {partition: found[partition].offset for partition in wanted}

    async def members(self) -> int:
        """How many workers are in the group."""
        assert self._admin is not None, "start() comes first"
        admin, group = self._admin, self._topics.consumer_group
        [response] = await _coordinated(lambda: admin.describe_consumer_groups([group]))
        return sum(len(group[-1]) for group in response.groups)

    async def begins(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset of the first record that each partition still holds."""
        found: dict[TopicPartition, int] = await self._log.beginning_offsets(list(partitions))
        return found

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset after the last record of each partition.

        Asked twice: Tansu 0.6 answers ListOffsets with the offset after the last batch's first record, and tells the
        true end only along with a fetch (tests/contracts/test_log_reader.py shows it).
        """
        reported, seen = await self._ends(partitions)
        return reported | seen

    async def _ends(
        self, partitions: Iterable[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """By ListOffsets, and the later of that and the fetch's where the fetch was answered."""
        reported: dict[TopicPartition, int] = await self._log.end_offsets(list(partitions))
        looks = await self._look({partition: end - 1 for partition, end in reported.items() if end > 0})
        return reported, {partition: max(reported[partition], look.end) for partition, look in looks.items()}

    async def positions(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Position]:
        """Where reading must go on in each partition, and its end.

        That is the committed offset, or the partition's begin where that is later. The begin too when the log ends
        before the committed offset, as after an unclean election: other records stand there now, and those below the
        offset would never be read. An end that is too low would have the partition worked on from its begin.
        """
        wanted = list(partitions)
        committed, begins = await self.committed(wanted), await self.begins(wanted)
        reported, seen = await self._ends(wanted)
        if unseen := [at for at in wanted if reported[at] and at not in seen]:
            raise RequestTimedOutError(f"{len(unseen)} partitions did not tell their end")
        return {at: _position(at, committed[at] or 0, begins[at], seen.get(at, 0)) for at in wanted}

    async def start_of_reading(self, partition: TopicPartition) -> int:
        """Where reading must begin; see `positions`."""
        return (await self.positions([partition]))[partition].start

    async def first_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, ConsumerRecord | None]:
        """The first record at or after the given offset of each partition; None where there is none up to its end.

        Offsets of transaction markers and of compacted records hold none. Partitions that did not answer are left out.
        """
        return {partition: look.record for partition, look in (await self._look(offsets)).items()}

    async def _look(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, "_Look"]:
        """Reads from each offset on until a record or the end comes; partitions that did not answer are left out."""
        if not offsets:
            return {}
        async with self._lock:
            self._log.assign(list(offsets))
            for partition, offset in offsets.items():
                self._log.seek(partition, offset)
            seen: dict[TopicPartition, _Look] = {}
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    while missing := [partition for partition in offsets if partition not in seen]:
                        await self._read_on(missing, seen)
            self._log.unsubscribe()
            return seen

    async def _read_on(self, missing: list[TopicPartition], seen: dict[TopicPartition, "_Look"]) -> None:
        batch = await self._log.getmany(*missing, timeout_ms=READ_TIMEOUT_MS, max_records=len(missing))
        for partition in missing:
            end = self._log.highwater(partition)
            if partition in batch:
                seen[partition] = _Look(batch[partition][0], end)
            elif end is not None and await self._log.position(partition) >= end:
                seen[partition] = _Look(None, end)

    @property
    def _log(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "start() comes first"
        return self._consumer


def _position(partition: TopicPartition, committed: int, begin: int, end: int) -> Position:
    if committed > end:
        log.error("log_ends_before_committed_offset", partition=partition, committed=committed, end=end)
        return Position(begin, end)
    return Position(max(committed, begin), end)


async def _coordinated(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks again while the group's coordinator is being found: a new cluster makes its offsets topic on demand."""
    for _ in range(COORDINATOR_ATTEMPTS):
        with suppress(GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            return await ask()
        await asyncio.sleep(COORDINATOR_PAUSE_S)
    return await ask()
