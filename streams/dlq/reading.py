"""Reads the dead letters' topic in bounded memory, up to the end that it had when the reading began."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from aiokafka import TopicPartition

from schemas.kafka import Topics
from streams.dlq.letter import Letter, LetterId, read_letter
from streams.kafka.admin import check_topics
from streams.kafka.scan import bounds, scan

Bounds = Mapping[TopicPartition, tuple[int, int]]


async def letter_bounds(client_options: Mapping[str, Any], topics: Topics) -> Bounds:
    """Where the letters begin and end now: those that die later are not among them.

    Raises Fatal when topics are missing, KafkaError when no broker answers.
    """
    await check_topics(client_options, (topics.conversations, topics.dead_letters, topics.replay_ledger))
    return await bounds(client_options, topics, [topics.dead_letters])


async def letters(client_options: Mapping[str, Any], wanted: Bounds) -> AsyncGenerator[Letter, None]:
    """The letters within the bounds, in the order of each partition. Raises KafkaError."""
    async with aclosing(scan(client_options, wanted)) as found:
        async for records in found:
            for record in records:
                yield read_letter(record)


async def find_letter(client_options: Mapping[str, Any], topics: Topics, letter_id: LetterId) -> Letter | None:
    """The letter of that name; None where there is none, or none any more. Raises KafkaError and Fatal."""
    partition = TopicPartition(topics.dead_letters, letter_id.partition)
    begin, end = (await letter_bounds(client_options, topics)).get(partition, (0, 0))
    if not begin <= letter_id.offset < end:
        return None
    wanted = {partition: (letter_id.offset, letter_id.offset + 1)}
    async with aclosing(letters(client_options, wanted)) as found:
        async for letter in found:
            return letter
    return None
