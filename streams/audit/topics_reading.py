"""The topics' part of the audit: what is due, what the log holds, and every record of it as an entry."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.structs import ConsumerRecord

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.audit.books import Books
from streams.audit.entries import Entry, Kind, event_entry, letter_entry, record_entry
from streams.audit.holdings import Holdings, Span
from streams.audit.standing import Standing
from streams.audit.wholeness import Whole, read_wholeness
from streams.dlq.letter import REPLAY_LETTER
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.scan import STALLED_AFTER_S, bounds, scan

#: Of each partition in one answer; the client keeps that much of every partition of a topic at hand.
FETCH_BYTES = 256 * 1024

Bounds = Mapping[TopicPartition, tuple[int, int]]


class TopicsReading:
    """Reads in three steps: `look`, `entries`, and, once the rows are read too, `holdings`.

    The order is what makes the audit right while workers run on: what was committed at the first look was delivered
    before it. Each raises KafkaError when no broker answers.
    """

    def __init__(self, client_options: Mapping[str, Any], topics: Topics, books: Books) -> None:
        self._client_options = client_options
        self._topics = topics
        self._books = books
        self._due: dict[TopicPartition, int] = {}
        self._bounds: Bounds = {}

    async def look(self) -> int:
        """Takes the group's offsets, then the topics' ends; returns how many records there may be to read."""
        committed = await _committed(self._client_options, self._topics)
        self._bounds = await bounds(self._client_options, self._topics, self._topics.messages)
        for partition, (_, end) in self._bounds.items():
            if partition in committed:
                standing = Standing(*committed[partition], end)
                self._due[partition] = standing.due
                self._books.stands(partition.topic, partition.partition, standing)
            if partition.topic == self._topics.conversations:
                self._books.line(partition.topic, partition.partition)
        return sum(end - begin for begin, end in self._bounds.values())

    async def entries(self) -> AsyncGenerator[list[Entry]]:
        """Every record of every topic, in batches; topic by topic, since each holds a fetch of its own in memory."""
        options = {**self._client_options, "max_partition_fetch_bytes": FETCH_BYTES}
        for topic in self._topics.messages:
            wanted = {
                at: (begin, end) for at, (begin, end) in self._bounds.items() if at.topic == topic and begin < end
            }
            if not wanted:
                continue
            try:
                async for batch in scan(options, wanted):
                    yield [self._entry(topic, found) for found in batch]
            except RequestTimedOutError as error:
                why = f"the topic {topic} has more records, but none came for {STALLED_AFTER_S:g} s"
                hint = "see whether all brokers run, and audit again"
                raise Fatal("the broker stopped answering", why, hint) from error

    async def holdings(self) -> tuple[Holdings, Whole]:
        """What was held all the while, now that everything is read."""
        later = await bounds(self._client_options, self._topics, self._topics.messages)
        spans = {}
        for partition, (_, end) in self._bounds.items():
            if partition.topic in self._topics.inputs:
                # Of a topic that is gone by now everything was removed.
                begin_later, end_later = later.get(partition, (end, end))
                spans[partition.topic, partition.partition] = Span(begin_later, end, end_later)
        return Holdings(spans), await read_wholeness(self._client_options, self._topics, later)

    def _entry(self, topic: str, found: ConsumerRecord) -> Entry:
        if topic == self._topics.dead_letters:
            self._books.letters["read"] += 1
            return letter_entry(found)
        if topic == self._topics.insights:
            self._books.events["read"] += 1
            return event_entry(found)
        is_due = found.offset < self._due.get(TopicPartition(found.topic, found.partition), 0)
        entry = record_entry(found, is_due=is_due, is_rehomed=topic == self._topics.rehomed)
        if entry.kind == Kind.COPY:
            self._books.copies["read"] += 1
        else:
            self._books.line(entry.topic, entry.partition).read += 1
            self._books.replayed += any(name == REPLAY_LETTER for name, _ in found.headers)
        return entry


async def _committed(client_options: Mapping[str, Any], topics: Topics) -> dict[TopicPartition, tuple[int, int | None]]:
    """Begin, then committed offset of each input partition."""
    reader = OffsetReader(client_options, topics)
    await reader.start()
    try:
        counts = await reader.partition_counts(topics.inputs)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        begins, committed = await reader.beginning_offsets(partitions), await reader.committed_offsets(partitions)
        return {partition: (begins[partition], committed[partition]) for partition in partitions}
    finally:
        await reader.stop()
