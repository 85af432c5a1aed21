"""Reads whole topics outside any consumer group: for audits and dead letters."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.structs import ConsumerRecord

from schemas.kafka import Topics
from streams.kafka.clients import READ_COMMITTED, stop_consumer
from streams.kafka.offset_reader import OffsetReader

POLL_TIMEOUT_MS = 500
MAX_RECORDS = 2_000
#: aiokafka itself keeps asking a broker that has gone.
STALLED_AFTER_S = 30.0


async def bounds(
    client_options: Mapping[str, Any], topics: Topics, wanted: Iterable[str]
) -> dict[TopicPartition, tuple[int, int]]:
    """Returns the beginning and end offset of each partition of the wanted topics.

    Raises KafkaError when the broker does not answer.
    """
    reader = OffsetReader(client_options, topics)
    await reader.start()
    try:
        counts = await reader.partition_counts(wanted)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        beginning, end = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        return {tp: (beginning[tp], end[tp]) for tp in partitions}
    finally:
        await reader.stop()


async def scan(
    client_options: Mapping[str, Any], wanted: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncGenerator[list[ConsumerRecord], None]:
    """Yields the records of each partition from its first to before its second offset.

    A batch holds records of one partition, in order; memory is bounded by one fetch. Raises UnreadableBatchError,
    and KafkaError when the broker does not answer, or sends nothing for STALLED_AFTER_S, as when the log has become
    shorter in the meantime.
    """
    end_offsets = {tp: end for tp, (start, end) in wanted.items() if start < end}
    if not end_offsets:
        return
    consumer = AIOKafkaConsumer(
        **client_options,
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level=READ_COMMITTED,
    )
    try:
        await consumer.start()
        consumer.assign(list(end_offsets))
        for tp in end_offsets:
            consumer.seek(tp, wanted[tp][0])
        while end_offsets:
            batches = await _next_batches(consumer, end_offsets)
            for tp, records in batches.items():
                if within := [record for record in records if record.offset < end_offsets[tp]]:
                    yield within
            # Compares positions: the last offsets may be transaction markers, which never arrive as records.
            for tp in [tp for tp in end_offsets if await consumer.position(tp) >= end_offsets[tp]]:
                del end_offsets[tp]
    finally:
        await stop_consumer(consumer)


async def _next_batches(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, list[ConsumerRecord]]:
    """Returns as soon as records arrive or a position moves.

    Raises RequestTimedOutError otherwise.
    """
    try:
        async with asyncio.timeout(STALLED_AFTER_S):
            before = [await consumer.position(tp) for tp in partitions]
            while True:
                batches: Mapping[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
                    *partitions, timeout_ms=POLL_TIMEOUT_MS, max_records=MAX_RECORDS
                )
                if batches or before != [await consumer.position(tp) for tp in partitions]:
                    return batches
    except TimeoutError as error:
        raise RequestTimedOutError(f"no record within {STALLED_AFTER_S:g} s") from error
