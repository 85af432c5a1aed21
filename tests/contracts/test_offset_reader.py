"""OffsetReader returns correct offsets on every broker."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.dev.local.brokers import Kafka, Tansu
from streams.kafka.admin import create_topics
from streams.kafka.lag import LagReader
from streams.kafka.offset_reader import OffsetReader, Position
from tests.support.topics import TOPICS

FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)


@pytest.fixture
async def reader(broker: Tansu | Kafka) -> AsyncIterator[OffsetReader]:
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await create_topics(options, TOPICS, 2, 1)
    reader = OffsetReader(options, TOPICS)
    await reader.start()
    yield reader
    await reader.stop()


async def produce_batches(broker: Tansu | Kafka, *sizes: int, at: TopicPartition = FIRST, chars: int = 100) -> int:
    """Sends one produce request per batch to one partition; returns the end offset."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all") as producer:
        end = 0
        for size in sizes:
            batch = producer.create_batch()
            for _ in range(size):
                batch.append(key=None, value=b"x" * chars, timestamp=None)
            metadata = await (await producer.send_batch(batch, at.topic, partition=at.partition))
            end = metadata.offset + size
    return end


async def test_the_end_offset_is_after_the_last_record(reader: OffsetReader, broker: Tansu | Kafka) -> None:
    """For batches of any size. Recovery, lag and the check of the RocksDB shards rely on it."""
    for sizes in ((1,), (5, 3), (10, 1), (7,)):
        end = await produce_batches(broker, *sizes)
        assert await reader.end_offsets([FIRST, SECOND]) == {FIRST: end, SECOND: 0}


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_tansu_lists_a_wrong_end_offset(reader: OffsetReader, broker: Tansu) -> None:
    """The defect that OffsetReader.end_offsets works around; once this fails, remove the second request."""
    await produce_batches(broker, 5)
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
        assert (await consumer.end_offsets([FIRST]))[FIRST] == 1


async def test_the_first_record_at_or_after_an_offset_is_found(reader: OffsetReader, broker: Tansu | Kafka) -> None:
    """It may be in the middle of a batch."""
    await produce_batches(broker, 5, 5)
    found = await reader.first_records({FIRST: 7})
    record = found[FIRST]
    assert record is not None
    assert record.offset == 7


async def test_reading_starts_at_the_committed_offset(reader: OffsetReader, broker: Tansu | Kafka) -> None:
    """And at the beginning offset while nothing is committed."""
    await produce_batches(broker, 5)
    assert await reader.positions([FIRST]) == {FIRST: Position(0, 5)}
    options = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": TOPICS.consumer_group,
        "enable_auto_commit": False,
    }
    async with AIOKafkaConsumer(FIRST.topic, **options) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 3})
    assert await reader.positions([FIRST]) == {FIRST: Position(3, 5)}


async def test_a_log_that_ends_before_the_committed_offset_is_read_from_its_beginning(
    reader: OffsetReader, broker: Tansu | Kafka
) -> None:
    """The log was lost or truncated: its records are new ones, and all have to be read."""
    await produce_batches(broker, 5)
    options = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": TOPICS.consumer_group,
        "enable_auto_commit": False,
    }
    async with AIOKafkaConsumer(FIRST.topic, **options) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 50})
    assert await reader.positions([FIRST]) == {FIRST: Position(0, 5)}


async def test_lag_counts_unfinished_records(reader: OffsetReader, broker: Tansu | Kafka) -> None:
    """In records by partition, and in seconds since the oldest one."""
    await produce_batches(broker, 5, 3)
    lag = await LagReader(reader, TOPICS.inputs).read()
    assert (lag.records_by_partition, lag.members) == ({0: 8, 1: 0}, 0)
    assert 0 <= lag.seconds < 60


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_transaction_marker_is_not_lag(reader: OffsetReader, broker: Kafka) -> None:
    """A transaction ends with a marker, which no worker ever reads: the group has caught up."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    async with AIOKafkaProducer(**options, transactional_id="t") as producer, producer.transaction():
        await producer.send_and_wait(FIRST.topic, b"x", partition=FIRST.partition)
    assert (await LagReader(reader, TOPICS.inputs).read()).records_by_partition[0] == 2
    async with AIOKafkaConsumer(
        FIRST.topic, **options, group_id=TOPICS.consumer_group, enable_auto_commit=False
    ) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 1})
    lag = await LagReader(reader, TOPICS.inputs).read()
    assert (lag.records, lag.seconds) == (0, 0)


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_what_no_transaction_has_committed_is_not_lag(reader: OffsetReader, broker: Kafka) -> None:
    """Neither records of an aborted one nor those of an open one, as long as it is open."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    async with AIOKafkaProducer(**options, transactional_id="t") as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(FIRST.topic, b"x", partition=FIRST.partition)
        await producer.abort_transaction()
        assert (await LagReader(reader, TOPICS.inputs).read()).records == 0
        await producer.begin_transaction()
        await producer.send_and_wait(FIRST.topic, b"x", partition=FIRST.partition)
        assert (await LagReader(reader, TOPICS.inputs).read()).records == 0
        assert (await reader.end_offsets([FIRST])) == {FIRST: 2}
        await producer.commit_transaction()
        assert (await LagReader(reader, TOPICS.inputs).read()).records > 0


async def test_reading_the_lag_needs_little_memory(reader: OffsetReader, broker: Tansu | Kafka) -> None:
    """It is read every few seconds, also with a large backlog of large records."""
    chars, count = 100_000, 60
    ends = {at: await produce_batches(broker, *[1] * count, at=at, chars=chars) for at in (FIRST, SECOND)}
    assert await reader.end_offsets(ends) == ends  # what is allocated only once does not count
    tracemalloc.start()
    try:
        lag = await LagReader(reader, TOPICS.inputs).read()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lag.records_by_partition == {0: count, 1: count}
    assert peak_bytes < 30 * chars


async def test_partitions_are_counted(reader: OffsetReader) -> None:
    """The worker checks that its topics exist and have equal partition counts."""
    assert await reader.partition_counts([TOPICS.conversations, TOPICS.rehomed]) == {
        "conversations": 2,
        "conversations.rehomed": 2,
    }
