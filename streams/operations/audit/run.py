"""Runs an audit: reads the topics, then the rows, sorts the observations on disk and reconciles them.

The order keeps the audit right while workers run: what the group had committed before the topics were read was
delivered before that, and a row is written before its record is committed and before its event is sent.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, closing
from typing import Any

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import RequestTimedOutError
from aiokafka.structs import ConsumerRecord

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.kafka.admin import check_topics
from streams.kafka.lag import ConnectingLagReader
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.scan import STALLED_AFTER_S, bounds, scan
from streams.operations.audit.findings import Reconciliation, group_progress
from streams.operations.audit.observations import (
    ExternalSort,
    Kind,
    Observation,
    observe_dead_letter,
    observe_event,
    observe_record,
    observe_row,
)
from streams.operations.audit.reconcile import CompleteSince, ReadSpan, ReadSpans, Reconciler, complete_since_us
from streams.operations.broker_errors import broker_errors_as_fatal
from streams.operations.dlq.dead_letter import REPLAYED_DEAD_LETTER
from streams.postgres.database import parse_database_url
from streams.postgres.errors import CONNECTION_ERRORS
from streams.terminal import Display

FIRST_ANSWER_WITHIN_S = 10
FETCH_TIMEOUT_S = 120
FETCH_ROWS = 2_000
#: Of each partition in one response; the client buffers that much for every partition of a topic.
FETCH_BYTES = 256 * 1024
POLL_EVERY_S = 0.5
#: How many observations are reconciled between two updates of the progress display.
_PROGRESS_STRIDE = 2_000

#: The row of a record that failed its check, which has no text key, is older than any of a valid one.
_ROWS = """\
SELECT
    tenant, conversation_id, outcome, CASE WHEN text_key IS NULL THEN 'epoch' ELSE occurred_at END AS occurred_at,
    analysed_at, origin_topic, origin_partition, origin_offset
FROM insights"""

Bounds = Mapping[TopicPartition, tuple[int, int]]


@broker_errors_as_fatal()
async def run_audit(
    client_options: Mapping[str, Any],
    topics: Topics,
    database_url: str,
    display: Display,
    result: Reconciliation,
    *,
    wait_s: float,
) -> None:
    """Fills `result`, after waiting up to `wait_s` seconds until no record is pending.

    Raises Fatal when a topic is missing, a broker or the database does not answer, or the temporary folder is full.
    """
    async with _connect(database_url) as connection:  # fails before the topics are read, not after
        await connection.execute("SELECT FROM insights LIMIT 0", timeout=FIRST_ANSWER_WITHIN_S)
    await check_topics(client_options, topics.messages)
    if wait_s:
        await _wait_until_idle(ConnectingLagReader(client_options, topics), wait_s, display)
    reader = TopicReader(client_options, topics, result)
    with closing(ExternalSort()) as external_sort:
        await _read_topics(reader, external_sort, display)
        await _read_rows(database_url, external_sort, result, display)
        spans, complete = await reader.retention()
        Reconciler(result, spans, complete).reconcile(_sorted_with_progress(external_sort, display))
    result.check()


async def _wait_until_idle(lag: ConnectingLagReader, wait_s: float, display: Display) -> None:
    try:
        async with asyncio.timeout(wait_s):
            while (await lag.read()).records:  # noqa: ASYNC110  a broker reports no commits
                await asyncio.sleep(POLL_EVERY_S)
    except TimeoutError:
        display.say(f"records are still pending after {wait_s:g} s")
    finally:
        await lag.stop()


async def _read_topics(reader: "TopicReader", external_sort: ExternalSort, display: Display) -> None:
    display.begin("topics", await reader.start())
    async with aclosing(reader.observations()) as batches:
        async for batch in batches:
            external_sort.add(batch)
            display.reached("topics", external_sort.count)
    display.done("topics")


async def _read_rows(database_url: str, external_sort: ExternalSort, result: Reconciliation, display: Display) -> None:
    """Reads all rows in one snapshot."""
    async with _connect(database_url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        display.begin("rows", await connection.fetchval("SELECT count(*) FROM insights", timeout=FETCH_TIMEOUT_S))
        # asyncpg's own cursors name their statements, which a pooler would keep.
        await connection.execute(f"DECLARE found NO SCROLL CURSOR FOR {_ROWS}")
        while rows := await connection.fetch(f"FETCH {FETCH_ROWS} FROM found", timeout=FETCH_TIMEOUT_S):
            external_sort.add([observe_row(row) for row in rows])
            result.rows["read"] += len(rows)
            display.reached("rows", result.rows["read"])
    display.done("rows")


def _sorted_with_progress(external_sort: ExternalSort, display: Display) -> Iterator[Observation]:
    display.begin("compared", external_sort.count)
    for count, observation in enumerate(external_sort.sorted(), start=1):
        yield observation
        if count % _PROGRESS_STRIDE == 0:
            display.reached("compared", count)
    display.reached("compared", external_sort.count)
    display.done("compared")


class TopicReader:
    """Reads all topics in three steps: `start`, `observations` and, once the rows are read too, `retention`.

    Every method raises KafkaError when no broker answers.
    """

    def __init__(self, client_options: Mapping[str, Any], topics: Topics, result: Reconciliation) -> None:
        self._client_options = client_options
        self._topics = topics
        self._result = result
        self._due_below: dict[TopicPartition, int] = {}
        self._bounds: Bounds = {}

    async def start(self) -> int:
        """Reads the group's offsets, then the topics' bounds; returns the largest possible number of records."""
        offsets = await self._group_offsets()
        self._bounds = await bounds(self._client_options, self._topics, self._topics.messages)
        for partition, (_, end) in self._bounds.items():
            if partition in offsets:
                progress = group_progress(*offsets[partition], end)
                self._due_below[partition] = progress.due_below
                self._result.add_progress(partition.topic, partition.partition, progress)
            if partition.topic == self._topics.conversations:
                self._result.counts(partition.topic, partition.partition)
        return sum(end - beginning for beginning, end in self._bounds.values())

    async def _group_offsets(self) -> dict[TopicPartition, tuple[int, int | None]]:
        """Returns the beginning offset, then the committed offset of each input partition."""
        async with _offset_reader(self._client_options, self._topics) as reader:
            counts = await reader.partition_counts(self._topics.inputs)
            partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
            beginnings = await reader.beginning_offsets(partitions)
            committed = await reader.committed_offsets(partitions)
            return {partition: (beginnings[partition], committed[partition]) for partition in partitions}

    async def observations(self) -> AsyncGenerator[list[Observation]]:
        """Yields every record of every topic, topic by topic, since a fetch of each is held in memory."""
        options = {**self._client_options, "max_partition_fetch_bytes": FETCH_BYTES}
        for topic in self._topics.messages:
            wanted = {partition: span for partition, span in self._bounds.items() if partition.topic == topic}
            try:
                async for batch in scan(options, wanted):
                    yield [self._observe(topic, found) for found in batch]
            except RequestTimedOutError as error:
                why = f"the topic {topic} has more records, but none arrived for {STALLED_AFTER_S:g} s"
                hint = "check that all brokers run, then run the audit again"
                raise Fatal("the broker stopped answering", why, hint) from error

    def _observe(self, topic: str, found: ConsumerRecord) -> Observation:
        if topic == self._topics.dead_letters:
            self._result.dead_letters["read"] += 1
            return observe_dead_letter(found)
        if topic == self._topics.insights:
            self._result.events["read"] += 1
            return observe_event(found)
        is_due = found.offset < self._due_below.get(TopicPartition(found.topic, found.partition), 0)
        observation = observe_record(found, is_due=is_due, is_rehomed=topic == self._topics.rehomed)
        if observation.kind == Kind.COPY:
            self._result.copies["read"] += 1
        else:
            self._result.counts(observation.topic, observation.partition).records += 1
            self._result.replayed += any(name == REPLAYED_DEAD_LETTER for name, _ in found.headers)
        return observation

    async def retention(self) -> tuple[ReadSpans, CompleteSince]:
        """Returns which part of the input topics was read and still exists, and since when the others are complete."""
        later = await bounds(self._client_options, self._topics, self._topics.messages)
        spans = {}
        for partition, (_, end) in self._bounds.items():
            if partition.topic in self._topics.inputs:
                # Of a topic that was deleted meanwhile everything is gone.
                later_beginning, later_end = later.get(partition, (end, end))
                spans[partition.topic, partition.partition] = ReadSpan(later_beginning, end, later_end)
        outcomes = (self._topics.dead_letters, self._topics.insights)
        # The bounds after reading: what retention removed meanwhile may not have been read.
        truncated = [tp for tp, (beginning, _) in later.items() if tp.topic in outcomes and beginning > 0]
        oldest = await self._first_records({tp: later[tp][0] for tp in truncated if later[tp][0] < later[tp][1]})
        dead_letters_us, events_us = (
            complete_since_us(oldest.get(tp) for tp in truncated if tp.topic == topic) for topic in outcomes
        )
        return spans, CompleteSince(dead_letters_us, events_us)

    async def _first_records(self, offsets: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, ConsumerRecord]:
        if not offsets:
            return {}
        async with _offset_reader(self._client_options, self._topics) as reader:
            return await reader.first_records(offsets)


@asynccontextmanager
async def _offset_reader(client_options: Mapping[str, Any], topics: Topics) -> AsyncIterator[OffsetReader]:
    reader = OffsetReader(client_options, topics)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


@asynccontextmanager
async def _connect(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Opens a connection; raises Fatal for its failures, and for those of its queries."""
    database = parse_database_url(database_url)
    try:
        connection = await database.connect("grok-insights audit")
        try:
            yield connection
        finally:
            connection.terminate()
    except CONNECTION_ERRORS as error:
        raise database.fatal(error) from error
