"""Reads the durable state of a run from the broker and the database, at the crash and at the end."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord

from schemas.insight import Answer
from schemas.kafka import Topics
from tests.crash.workload import PARTITIONS

READ_WITHIN_S = 60
Place = tuple[str, int, int]  # topic, partition, offset


@dataclass(frozen=True, slots=True)
class Evidence:
    """Records by topic, rows by conversation id, committed offsets by input topic, answered calls by key and end."""

    topics: Topics
    records: Mapping[str, list[ConsumerRecord]]
    changelog: list[ConsumerRecord]
    rows: Mapping[str, asyncpg.Record]
    committed: Mapping[TopicPartition, int]
    calls: set[tuple[bytes, datetime]]

    @property
    def answers(self) -> set[tuple[bytes, datetime]]:
        """Answers in the changelog, by key and the end of their call."""
        answers = [record for record in self.changelog if record.value is not None]
        return {(record.key, msgspec.json.decode(record.value, type=Answer).analysed_at) for record in answers}

    @property
    def dead_letters(self) -> Mapping[Place, list[ConsumerRecord]]:
        """Dead letters by the first place of their record."""
        return _by_place(self.records[self.topics.dead_letters], "dlq")

    @property
    def rehomed(self) -> Mapping[Place, list[ConsumerRecord]]:
        """Rehomed copies by the first place of their record."""
        return _by_place(self.records[self.topics.rehomed], "rehomed")

    @property
    def events(self) -> Mapping[str, list[dict[str, Any]]]:
        """Payloads by the id of the event, which all copies of one event share."""
        found = defaultdict(list)
        for record in self.records[self.topics.insights]:
            found[dict(record.headers)["ce_id"].decode()].append(json.loads(record.value))
        return found


async def gather(
    run: str, topics: Topics, bootstrap_servers: str, admin: AIOKafkaAdminClient, database_url: str
) -> Evidence:
    """Reads the current state."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT * FROM insights WHERE conversation_id LIKE $1", f"{run}-%")
        calls = await connection.fetch(
            """
            SELECT text_key || ':' || analysis_version AS key, ended_at FROM calls
            WHERE outcome = 'answered' AND conversation_id LIKE $1
            """,
            f"{run}-%",
        )
    finally:
        await connection.close()
    committed = await committed_offsets(topics, admin)
    records: dict[str, list[ConsumerRecord]] = {name: [] for name in (*topics.messages, topics.answers_changelog)}
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers) as consumer, asyncio.timeout(READ_WITHIN_S):
        for record in await _read(consumer, [TopicPartition(t, n) for t in records for n in range(PARTITIONS)]):
            records[record.topic].append(record)
    by_id = {row["conversation_id"]: row for row in rows}
    assert len(by_id) == len(rows), "two rows of one conversation"
    changelog = records.pop(topics.answers_changelog)
    answered = {(call["key"].encode(), call["ended_at"]) for call in calls}
    return Evidence(topics, records, changelog, by_id, committed, answered)


async def committed_offsets(topics: Topics, admin: AIOKafkaAdminClient) -> dict[TopicPartition, int]:
    """Returns those of the input topics; 0 where nothing is committed yet."""
    found = await admin.list_consumer_group_offsets(topics.consumer_group)
    partitions = [TopicPartition(topic, number) for topic in topics.inputs for number in range(PARTITIONS)]
    return {at: max(0, found[at].offset) if at in found else 0 for at in partitions}


async def _read(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> list[ConsumerRecord]:
    """All records up to the ends of now."""
    ends = await consumer.end_offsets(partitions)
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    found: list[ConsumerRecord] = []
    while any([await consumer.position(partition) < end for partition, end in ends.items()]):
        for batch in (await consumer.getmany(timeout_ms=100)).values():
            found += batch
    return found


def _by_place(records: list[ConsumerRecord], prefix: str) -> Mapping[Place, list[ConsumerRecord]]:
    found = defaultdict(list)
    for record in records:
        pairs = {name: value.decode() for name, value in record.headers if name.startswith(prefix)}
        place = (pairs[f"{prefix}.topic"], int(pairs[f"{prefix}.partition"]), int(pairs[f"{prefix}.offset"]))
        found[place].append(record)
    return found
