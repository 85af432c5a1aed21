"""Reading from real brokers: where it starts, what it skips, and how a reader continues after an interruption."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaConnectionError

from agents.analyst import Analyst
from agents.decode import KafkaRecord, Tracker
from schemas.errors import Fatal
from streams.engine.app import InputChannel
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer, Outgoing
from streams.worker import lifecycle
from streams.worker.intake import Fetch, Intake
from streams.worker.lifecycle import Lifecycle
from streams.worker.timings import Timings
from tests.contracts.conftest import Cluster
from tests.support.factories import a_tracker
from tests.support.waiting import eventually

ON_KAFKA = pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)


class Taken:
    """Acts as the analyst: opens and finishes every record at once; `errors` are raised one per request for room."""

    def __init__(self) -> None:
        self.offsets: dict[str, list[int]] = {}
        self.sizes: list[int] = []
        self.room_for = 1_000
        self.errors: list[Exception] = []

    async def room(self) -> int:
        if self.errors and self.sizes:
            raise self.errors.pop(0)
        return self.room_for

    def take(self, tracker: Tracker, records: Sequence[KafkaRecord], *, rehomed: bool) -> None:
        tracker.admit([record.offset for record in records])
        for record in records:
            self.offsets.setdefault(f"{record.topic}/{record.partition}", []).append(record.offset)
            tracker.finish(record.offset)
        self.sizes.append(len(records))


class Reading:
    """An intake that is fed directly, without Faust's channel."""

    def __init__(self, cluster: Cluster, offset_reader: OffsetReader) -> None:
        self.life, self.analyst = Lifecycle(Timings()), Taken()
        self.conversations = [TopicPartition(cluster.topics.conversations, n) for n in range(2)]
        self.intake = Intake(
            cast(InputChannel, self),
            cast(Analyst, self.analyst),
            offset_reader,
            cluster.options,
            cluster.topics,
            self._commit,
            self.life,
        )

    async def put(self, fetch: Fetch) -> None:
        self.intake.process(fetch)

    async def _commit(self, generation: int, offsets: Mapping[TopicPartition, int]) -> bool:
        return True

    def begin(self, *, start: int | None = None) -> None:
        """Starts at the committed offsets, or at `start`, as a worker does that has read up to there."""
        self.intake.begin(self.conversations, 1)
        if start is not None and self.intake.current is not None:
            self.intake.current.trackers = {tp: a_tracker(tp.partition, start, tp.topic) for tp in self.conversations}

    async def taken(self, partition: int, count: int) -> list[int]:
        """Returns the offsets taken of a partition, once there are that many."""
        at = f"{self.conversations[0].topic}/{partition}"

        async def enough() -> bool:
            return len(self.analyst.offsets.get(at, [])) >= count

        await eventually(enough, what=f"{count} records of partition {partition} are taken")
        return self.analyst.offsets[at]


@pytest.fixture
async def reading(
    cluster: Cluster, offset_reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reading]:
    monkeypatch.setattr(lifecycle, "end_process_within", lambda _: None)
    reading = Reading(cluster, offset_reader)
    yield reading
    assignment = reading.intake.end()
    if assignment is not None and assignment.reader is not None:
        await asyncio.wait({assignment.reader}, timeout=30)


async def produce(producer: ConfirmedProducer, cluster: Cluster, count: int, partition: int = 0) -> None:
    records = [Outgoing(b"k", b"v", [], partition) for _ in range(count)]
    deliveries = await producer.send_all(cluster.topics.conversations, records)
    assert all(isinstance(delivery, int) for delivery in deliveries)


async def commit(cluster: Cluster, offsets: dict[TopicPartition, int]) -> None:
    """Commits as the partitions' last owner in the group."""
    group = cluster.topics.consumer_group
    async with AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **cluster.options) as consumer:
        consumer.assign(list(offsets))
        await consumer.commit(offsets)


async def test_reading_begins_at_the_committed_offset(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """Without one it begins at the log's beginning; then it continues with new records."""
    for partition in (0, 1):
        await produce(confirmed, cluster, 10, partition)
    await commit(cluster, {reading.conversations[0]: 7})
    reading.begin()
    assert await reading.taken(0, 3) == [7, 8, 9]
    assert await reading.taken(1, 10) == list(range(10))
    await produce(confirmed, cluster, 2)
    assert await reading.taken(0, 5) == [7, 8, 9, 10, 11]


async def test_no_more_is_fetched_than_there_is_room_for(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """Whatever the broker sends in one reply."""
    await produce(confirmed, cluster, 50)
    reading.analyst.room_for = 4
    reading.begin()
    assert await reading.taken(0, 50) == list(range(50))
    assert max(reading.analyst.sizes) <= 4


@ON_KAFKA
async def test_gaps_in_the_log_are_passed(reading: Reading, cluster: Cluster) -> None:
    """Here markers of transactions; compacted records look the same."""
    [tp, _] = reading.conversations
    async with AIOKafkaProducer(transactional_id=cluster.topics.prefix, **cluster.options) as producer:
        for _ in range(3):
            async with producer.transaction():
                await producer.send(tp.topic, b"v", partition=tp.partition)
    reading.begin()
    assert await reading.taken(0, 3) == [0, 2, 4]
    assert reading.intake.current is not None
    assert reading.intake.current.trackers[tp].due() == 5


@ON_KAFKA
async def test_only_what_was_committed_is_read(reading: Reading, cluster: Cluster) -> None:
    """Records of an aborted transaction are skipped; those of an open one are read once it is committed."""
    [tp, _] = reading.conversations
    async with AIOKafkaProducer(transactional_id=cluster.topics.prefix, **cluster.options) as producer:
        for outcome in (producer.abort_transaction, producer.commit_transaction):
            await producer.begin_transaction()
            await producer.send_and_wait(tp.topic, b"v", partition=tp.partition)
            await outcome()
        await producer.begin_transaction()
        await producer.send_and_wait(tp.topic, b"v", partition=tp.partition)
        reading.begin()
        assert await reading.taken(0, 1) == [2]
        await producer.commit_transaction()
        assert await reading.taken(0, 2) == [2, 4]


@ON_KAFKA
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(reading: Reading, cluster: Cluster, codec: str) -> None:
    """Whichever the producer or the topic has chosen."""
    [tp, _] = reading.conversations
    async with AIOKafkaProducer(compression_type=codec, **cluster.options) as producer:
        await producer.send_and_wait(tp.topic, b"v" * 1_000, partition=tp.partition)
    reading.begin()
    assert await reading.taken(0, 1) == [0]


@ON_KAFKA
async def test_reading_continues_where_retention_has_left_records(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """The next record was removed before it was read: that is logged, and does not stop the partition."""
    await produce(confirmed, cluster, 10)
    await delete_records(cluster, reading.conversations[0], before=6)
    reading.begin(start=0)
    assert await reading.taken(0, 4) == [6, 7, 8, 9]
    assert reading.life.failure is None


@ON_KAFKA
async def test_a_log_that_ends_before_what_was_read_ends_the_worker(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """After an unclean election its offsets mean other records."""
    await produce(confirmed, cluster, 10)
    reading.begin(start=1_000)
    async with asyncio.timeout(30):
        await reading.life.failed.wait()
    assert isinstance(reading.life.failure, Fatal)
    assert "read up to 1000" in reading.life.failure.why


async def test_a_reader_that_begins_again_repeats_and_skips_nothing(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """An error of the brokers ended it after some fetches."""
    await produce(confirmed, cluster, 30)
    reading.analyst.room_for = 4
    reading.analyst.errors = [KafkaConnectionError() for _ in range(2)]
    reading.begin()
    assert await reading.taken(0, 30) == list(range(30))
    assert (reading.analyst.errors, reading.life.failure) == ([], None)


async def test_a_defect_of_the_reader_ends_the_worker(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """It would seem idle."""
    await produce(confirmed, cluster, 1)
    error = ZeroDivisionError()
    reading.analyst.errors = [error]
    reading.begin()
    async with asyncio.timeout(30):
        await reading.life.failed.wait()
    assert reading.life.failure is error


@pytest.mark.parametrize("cluster", ["tansu"], indirect=True)
async def test_a_halted_worker_reads_nothing(reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """It stays a member of the group, and its reader ends with the assignment."""
    await produce(confirmed, cluster, 1)
    reading.begin()
    await reading.taken(0, 1)
    reading.life.halt(Fatal("too many records became dead letters"))
    await produce(confirmed, cluster, 1)
    assignment = reading.intake.current
    assert assignment is not None
    assert assignment.reader is not None
    assert not (await asyncio.wait({assignment.reader}, timeout=2))[0]
    assert await reading.taken(0, 1) == [0]
    reading.intake.end()
    await asyncio.wait({assignment.reader}, timeout=30)
    assert assignment.reader.cancelled()


async def test_nothing_of_an_assignment_that_has_ended_is_taken(
    reading: Reading, cluster: Cluster, confirmed: ConfirmedProducer
) -> None:
    """The next one begins where the broker's commits are, here at the beginning again."""
    await produce(confirmed, cluster, 5)
    reading.begin()
    await reading.taken(0, 5)
    assignment = reading.intake.end()
    assert assignment is not None
    assignment.revoke()
    await produce(confirmed, cluster, 5)
    reading.begin()
    assert await reading.taken(0, 15) == [*range(5), *range(10)]


async def delete_records(cluster: Cluster, tp: TopicPartition, *, before: int) -> None:
    """Deletes records as retention does."""
    admin = AIOKafkaAdminClient(**cluster.options)
    await admin.start()
    await admin.delete_records({tp: RecordsToDelete(before)})
    await admin.close()
