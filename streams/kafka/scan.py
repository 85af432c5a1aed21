"""Reads topics from where they begin to where they end now, outside any consumer group: for audits and dead letters."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import RequestTimedOutError
from aiokafka.structs import ConsumerRecord

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.kafka.clients import stop_consumer
from streams.kafka.log_reader import LogReader

READ_TIMEOUT_MS = 500
MAX_RECORDS = 2_000
#: aiokafka asks a broker that went away for ever.
STALLED_AFTER_S = 30.0


async def check_topics(client_options: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises Fatal when one is missing, KafkaError when no broker answers.

    All names are asked for: a broker may make a topic that is asked about by its own.
    """
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        missing = set(needed).difference(await admin.list_topics())
    finally:
        await admin.close()
    if missing:
        hint = "make them with: grok-insights topics; a user who may not see them is told the same"
        raise Fatal("topics are missing", ", ".join(sorted(missing)), hint)


async def bounds(
    client_options: Mapping[str, Any], topics: Topics, wanted: Iterable[str]
) -> dict[TopicPartition, tuple[int, int]]:
    """Each wanted topic's partitions with their first offset and the one after their last record.

    Raises KafkaError when no broker answers.
    """
    reader = LogReader(client_options, topics)
    await reader.start()
    try:
        counts = await reader.partitions(wanted)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        begins, ends = await reader.begins(partitions), await reader.ends(partitions)
        return {partition: (begins[partition], ends[partition]) for partition in partitions}
    finally:
        await reader.stop()


async def scan(
    client_options: Mapping[str, Any], wanted: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """The records of each partition from its first to before its second offset, in order, a batch of one partition
    at a time.

    Memory is bounded by one fetch, however long the topics are. Raises KafkaError when no broker answers, or when one
    has nothing to say for STALLED_AFTER_S, as where the log now ends before it did.
    """
    left = {partition: end for partition, (start, end) in wanted.items() if start < end}
    if not left:
        return
    consumer = AIOKafkaConsumer(**client_options, group_id=None, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign(list(left))
        for partition in left:
            consumer.seek(partition, wanted[partition][0])
        while left:
            batches = await _next_batches(consumer, left)
            for partition, records in batches.items():
                if within := [record for record in records if record.offset < left[partition]]:
                    yield within
            # By position, since the last offsets may be transaction markers, which no record comes with.
            for partition in [partition for partition in left if await consumer.position(partition) >= left[partition]]:
                del left[partition]
    finally:
        await stop_consumer(consumer)


async def _next_batches(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, list[ConsumerRecord]]:
    """Returns when records came, or when a position moved without any. Raises RequestTimedOutError otherwise."""
    try:
        async with asyncio.timeout(STALLED_AFTER_S):
            before = [await consumer.position(partition) for partition in partitions]
            while True:
                batches: Mapping[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                    *partitions, timeout_ms=READ_TIMEOUT_MS, max_records=MAX_RECORDS
                )
                if batches or before != [await consumer.position(partition) for partition in partitions]:
                    return batches
    except TimeoutError as error:
        raise RequestTimedOutError(f"nothing came within {STALLED_AFTER_S:g} s") from error
