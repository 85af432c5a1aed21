"""The topics' part of the audit: what is due, what the log holds, and every record of it as an entry."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from schemas.errors import Fatal
from schemas.topics import INPUT_TOPICS, Topic
from streams.audit.books import Books
from streams.audit.ends import Whole
from streams.audit.entries import Entry, Kind, event_entry, letter_entry, record_entry
from streams.audit.holdings import Holdings, Span
from streams.dlq.letter import REPLAY_LETTER
from streams.pipeline.log_reader import LogReader
from streams.topic_scan import bounds, scan

#: How long a broker may say nothing new in the middle of a topic.
STALL_TIMEOUT_S = 60.0
#: Of each partition in one answer; the client keeps that much of every partition of a topic at hand.
FETCH_BYTES = 256 * 1024

Bounds = Mapping[TopicPartition, tuple[int, int]]


class TopicsReading:
    """Reads in three steps: `look`, `entries`, and, once the rows are read too, `holdings`.

    The order is what makes the audit right while workers run on: what was committed at the first look was delivered
    before it. Each raises KafkaError when no broker answers.
    """

    def __init__(self, client_options: Mapping[str, Any], books: Books) -> None:
        self._client_options = client_options
        self._books = books
        self._due: dict[TopicPartition, int] = {}
        self._bounds: Bounds = {}

    async def look(self) -> int:
        """Takes the group's offsets, then the topics' ends; returns how many records there may be to read."""
        self._due = await _due(self._client_options)
        self._bounds = await bounds(self._client_options, list(Topic))
        if not any(partition.topic == Topic.CONVERSATIONS for partition in self._bounds):
            raise Fatal("there is no topic conversations", "", "make the topics with: grok-insights topics")
        for partition in self._bounds:
            if partition.topic == Topic.CONVERSATIONS:
                self._books.line(partition.topic, partition.partition)
        return sum(end - begin for begin, end in self._bounds.values())

    async def entries(self) -> AsyncGenerator[list[Entry]]:
        """Every record of every topic, in batches; topic by topic, since each holds a fetch of its own in memory."""
        options = {**self._client_options, "max_partition_fetch_bytes": FETCH_BYTES}
        for topic in Topic:
            wanted = {
                at: (begin, end) for at, (begin, end) in self._bounds.items() if at.topic == topic and begin < end
            }
            if not wanted:
                continue
            async for batch in _without_stall(scan(options, wanted)):
                yield [self._entry(topic, found) for found in batch]

    async def holdings(self) -> tuple[Holdings, Whole]:
        """What was held all the while, now that everything is read."""
        later = await bounds(self._client_options, INPUT_TOPICS)
        spans = {
            (partition.topic, partition.partition): Span(later[partition][0], end, later[partition][1])
            for partition, (_, end) in self._bounds.items()
            if partition in later
        }
        return Holdings(spans), Whole(self._is_whole(Topic.DEAD_LETTERS), self._is_whole(Topic.INSIGHTS))

    def _is_whole(self, topic: str) -> bool:
        return all(begin == 0 for partition, (begin, _) in self._bounds.items() if partition.topic == topic)

    def _entry(self, topic: Topic, found: ConsumerRecord) -> Entry:
        if topic is Topic.DEAD_LETTERS:
            self._books.letters["read"] += 1
            return letter_entry(found)
        if topic is Topic.INSIGHTS:
            self._books.events["read"] += 1
            return event_entry(found)
        is_due = found.offset < self._due.get(TopicPartition(found.topic, found.partition), 0)
        entry = record_entry(found, is_due=is_due)
        if entry.kind == Kind.COPY:
            self._books.copies["read"] += 1
        else:
            self._books.line(entry.topic, entry.partition).read += 1
            self._books.replayed += any(name == REPLAY_LETTER for name, _ in found.headers)
        return entry


async def _due(client_options: Mapping[str, Any]) -> dict[TopicPartition, int]:
    """The offset of each input partition below which every record must have its end."""
    reader = LogReader(client_options)
    await reader.start()
    try:
        counts = await reader.partitions(INPUT_TOPICS)
        positions = await reader.positions(_partitions(counts))
        return {partition: position.start for partition, position in positions.items()}
    finally:
        await reader.stop()


def _partitions(counts: Mapping[str, int]) -> Iterable[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]


async def _without_stall(batches: AsyncIterator[list[ConsumerRecord]]) -> AsyncIterator[list[ConsumerRecord]]:
    """The client asks a broker that is gone for ever; a command must come to an end."""
    while True:
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                batch = await anext(batches)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            why = f"nothing came within {STALL_TIMEOUT_S:g} s"
            raise Fatal("the broker stopped answering", why, "see whether it still runs, and audit again") from error
        yield batch
