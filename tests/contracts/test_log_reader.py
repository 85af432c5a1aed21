"""What the log reader says of offsets is true on every broker."""

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.dev.local.kafka import Kafka
from streams.dev.local.tansu import Tansu
from streams.kafka.admin import make_topics
from streams.kafka.lag import LogLag
from streams.kafka.log_reader import LogReader
from tests.support.topics import TOPICS

FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)


@pytest.fixture
async def reader(broker: Tansu | Kafka) -> AsyncIterator[LogReader]:
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await make_topics(options, TOPICS, 2, 1)
    reader = LogReader(options, TOPICS)
    await reader.start()
    yield reader
    await reader.stop()


async def produce_batches(broker: Tansu | Kafka, *sizes: int, at: TopicPartition = FIRST, chars: int = 100) -> int:
    """One produce request a batch, all into one partition; returns the offset after the last record."""
    async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all") as producer:
        end = 0
        for size in sizes:
            batch = producer.create_batch()
            for _ in range(size):
                batch.append(key=None, value=b"x" * chars, timestamp=None)
            metadata = await (await producer.send_batch(batch, at.topic, partition=at.partition))
            end = metadata.offset + size
    return end


async def test_the_end_is_after_the_last_record(reader: LogReader, broker: Tansu | Kafka) -> None:
    """Whatever the sizes of the batches; recovery, lag and the shards' check rest on it."""
    for sizes in ((1,), (5, 3), (10, 1), (7,)):
        end = await produce_batches(broker, *sizes)
        assert await reader.ends([FIRST, SECOND]) == {FIRST: end, SECOND: 0}


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_tansu_tells_a_wrong_end_when_asked_for_it_alone(reader: LogReader, broker: Tansu) -> None:
    """The defect that LogReader.ends works around: once this fails, the second question can go."""
    await produce_batches(broker, 5)
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers) as consumer:
        assert (await consumer.end_offsets([FIRST]))[FIRST] == 1


async def test_the_first_record_at_or_after_an_offset_is_found(reader: LogReader, broker: Tansu | Kafka) -> None:
    """Also in the middle of a batch."""
    await produce_batches(broker, 5, 5)
    found = await reader.first_records({FIRST: 7})
    record = found[FIRST]
    assert record is not None
    assert record.offset == 7


async def test_reading_starts_at_the_committed_offset(reader: LogReader, broker: Tansu | Kafka) -> None:
    """And at the begin of the log while nothing is committed."""
    await produce_batches(broker, 5)
    assert await reader.start_of_reading(FIRST) == 0
    options = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": TOPICS.consumer_group,
        "enable_auto_commit": False,
    }
    async with AIOKafkaConsumer(FIRST.topic, **options) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 3})
    assert await reader.start_of_reading(FIRST) == 3


async def test_a_log_that_ends_before_the_committed_offset_is_read_from_its_begin(
    reader: LogReader, broker: Tansu | Kafka
) -> None:
    """The log was lost or cut: other records stand there now, and none of them may be taken for read."""
    await produce_batches(broker, 5)
    options = {
        "bootstrap_servers": broker.bootstrap_servers,
        "group_id": TOPICS.consumer_group,
        "enable_auto_commit": False,
    }
    async with AIOKafkaConsumer(FIRST.topic, **options) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 50})
    assert await reader.start_of_reading(FIRST) == 0


async def test_lag_counts_what_is_not_finished(reader: LogReader, broker: Tansu | Kafka) -> None:
    """In records by partition, and in seconds since the oldest of them."""
    await produce_batches(broker, 5, 3)
    lag = await LogLag(reader, TOPICS.inputs).read()
    assert (lag.records_by_partition, lag.members) == ({0: 8, 1: 0}, 0)
    assert 0 <= lag.seconds < 60


@pytest.mark.kafka
@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
async def test_a_transactions_marker_is_no_lag(reader: LogReader, broker: Kafka) -> None:
    """A foreign producer's transaction ends with a marker that no worker ever reads: the group has caught up."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    async with AIOKafkaProducer(**options, transactional_id="t") as producer, producer.transaction():
        await producer.send_and_wait(FIRST.topic, b"x", partition=FIRST.partition)
    assert (await LogLag(reader, TOPICS.inputs).read()).records_by_partition[0] == 2
    async with AIOKafkaConsumer(
        FIRST.topic, **options, group_id=TOPICS.consumer_group, enable_auto_commit=False
    ) as consumer:
        await consumer.getmany(timeout_ms=1000)
        await consumer.commit({FIRST: 1})
    lag = await LogLag(reader, TOPICS.inputs).read()
    assert (lag.records, lag.seconds) == (0, 0)


async def test_a_look_holds_little_of_a_log_of_large_records(reader: LogReader, broker: Tansu | Kafka) -> None:
    """Lag is read every few seconds, while as much as you like has piled up."""
    chars, count = 100_000, 60
    ends = {at: await produce_batches(broker, *[1] * count, at=at, chars=chars) for at in (FIRST, SECOND)}
    assert await reader.ends(ends) == ends  # what is allocated once is not a look's
    tracemalloc.start()
    try:
        lag = await LogLag(reader, TOPICS.inputs).read()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lag.records_by_partition == {0: count, 1: count}
    assert peak_bytes < 30 * chars


async def test_partitions_are_counted(reader: LogReader) -> None:
    """The worker checks that its topics are there and alike."""
    assert await reader.partitions([TOPICS.conversations, TOPICS.rehomed]) == {
        "conversations": 2,
        "conversations.rehomed": 2,
    }
