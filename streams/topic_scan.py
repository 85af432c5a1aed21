"""Reads topics from where they begin to where they end now, outside any consumer group: for audits and dead letters."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.kafka_consumer import stop_consumer
from streams.pipeline.log_reader import LogReader

READ_TIMEOUT_MS = 500
MAX_RECORDS = 2_000


async def bounds(client_options: Mapping[str, Any], topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
    """Each partition's first offset and the one after its last record. Raises KafkaError when no broker answers."""
    reader = LogReader(client_options)
    await reader.start()
    try:
        counts = await reader.partitions(topics)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        begins, ends = await reader.begins(partitions), await reader.ends(partitions)
        return {partition: (begins[partition], ends[partition]) for partition in partitions}
    finally:
        await reader.stop()


async def scan(
    client_options: Mapping[str, Any], wanted: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncIterator[list[ConsumerRecord]]:
    """The records of each partition from its first to before its second offset, in order, a batch of one partition
    at a time.

    Memory is bounded by one fetch, however long the topics are. Raises KafkaError when no broker answers.
    """
    left = {partition: end for partition, (start, end) in wanted.items() if start < end}
    if not left:
        return
    consumer = AIOKafkaConsumer(**client_options, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(left))
        for partition in left:
            consumer.seek(partition, wanted[partition][0])
        while left:
            batches = await consumer.getmany(*left, timeout_ms=READ_TIMEOUT_MS, max_records=MAX_RECORDS)
            for partition, records in batches.items():
                if within := [record for record in records if record.offset < left[partition]]:
                    yield within
            # By position, since the last offsets may be transaction markers, which no record comes with.
            for partition in [partition for partition in left if await consumer.position(partition) >= left[partition]]:
                del left[partition]
    finally:
        await stop_consumer(consumer)
