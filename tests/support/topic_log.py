"""Reads the whole content of a topic with an independent consumer, up to the correct end offset."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from streams.kafka.offset_reader import OffsetReader
from tests.support.topics import TOPICS

DEADLINE_S = 30


async def records_of(bootstrap_servers: str, topic: str) -> list[ConsumerRecord]:
    """Returns every record of the topic, in the order of each partition."""
    ends = await _ends(bootstrap_servers, topic)
    found: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers) as consumer, asyncio.timeout(DEADLINE_S):
        consumer.assign(list(ends))
        for partition in ends:
            consumer.seek(partition, 0)
        while len(found) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += batch
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def _ends(bootstrap_servers: str, topic: str) -> dict[TopicPartition, int]:
    """Asks OffsetReader, since Tansu returns wrong end offsets to a plain request."""
    reader = OffsetReader({"bootstrap_servers": bootstrap_servers}, TOPICS)
    await reader.start()
    try:
        partitions = (await reader.partition_counts([topic]))[topic]
        return await reader.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
    finally:
        await reader.stop()
