"""Reads the dead letters' topic in bounded memory, up to the end that it had when the reading began."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, cast

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from schemas.errors import Fatal
from schemas.topics import Topic
from streams.dlq.letter import Letter, LetterId, read_letter
from streams.topic_scan import bounds, scan

#: A broker that is asked for records which it has, and sends none for so long, is not there.
STALLED_AFTER_S = 30.0

_Records = AsyncGenerator[list[ConsumerRecord], None]
Bounds = Mapping[TopicPartition, tuple[int, int]]


@contextmanager
def told_as_fatal() -> Iterator[None]:
    """What the clients raise of the brokers becomes Fatal."""
    try:
        yield
    except KafkaError as error:
        hint = "check KAFKA_BOOTSTRAP_SERVERS and that the broker runs"
        raise Fatal("the broker cannot be used", type(error).__name__, hint) from error


async def topics_of(client_options: Mapping[str, Any]) -> set[str]:
    """The names of all topics. Asked so, no broker makes one: one that is asked about by name may be made at once."""
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def letter_bounds(client_options: Mapping[str, Any]) -> Bounds:
    """Where the letters begin and end now: those that die later are not among them.

    Raises Fatal when topics are missing, KafkaError when no broker answers.
    """
    missing = {Topic.CONVERSATIONS, Topic.DEAD_LETTERS} - await topics_of(client_options)
    if missing:
        raise Fatal("topics are missing", ", ".join(sorted(missing)), "make them with: grok-insights topics")
    return await bounds(client_options, [Topic.DEAD_LETTERS])


async def batches(client_options: Mapping[str, Any], wanted: Bounds) -> _Records:
    """As `scan`, which would wait for ever for a broker that goes away: raises Fatal after STALLED_AFTER_S."""
    if all(begin >= end for begin, end in wanted.values()):
        return  # nothing to connect for
    async with aclosing(cast(_Records, scan(client_options, wanted))) as found:
        while True:
            try:
                async with asyncio.timeout(STALLED_AFTER_S):
                    records = await anext(found)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                why = f"nothing came for {STALLED_AFTER_S:g} s"
                raise Fatal("the broker sends no records", why, "check that the broker runs") from error
            yield records


async def letters(client_options: Mapping[str, Any], wanted: Bounds) -> AsyncGenerator[Letter, None]:
    """The letters within the bounds, in the order of each partition. Raises KafkaError and Fatal."""
    async with aclosing(batches(client_options, wanted)) as found:
        async for records in found:
            for record in records:
                yield read_letter(record)


async def find_letter(client_options: Mapping[str, Any], letter_id: LetterId) -> Letter | None:
    """The letter of that name; None where there is none, or none any more. Raises KafkaError and Fatal."""
    partition = TopicPartition(Topic.DEAD_LETTERS, letter_id.partition)
    begin, end = (await letter_bounds(client_options)).get(partition, (0, 0))
    if not begin <= letter_id.offset < end:
        return None
    wanted = {partition: (letter_id.offset, letter_id.offset + 1)}
    async with aclosing(letters(client_options, wanted)) as found:
        async for letter in found:
            return letter
    return None
