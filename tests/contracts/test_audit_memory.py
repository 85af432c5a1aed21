"""`grok-insights audit` in bounded memory. For the figures of a million records, which take some minutes:

GROK_INSIGHTS_AUDIT_RECORDS=1000000 pytest -s -o timeout=1800 tests/contracts/test_audit_memory.py
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from schemas.kafka import Header, Origin
from streams.dev.local.brokers import Kafka, Tansu
from streams.kafka.admin import create_topics
from streams.kafka.scan import bounds
from tests.support.processes import ROOT
from tests.support.topics import TOPICS

RECORDS = int(os.environ.get("GROK_INSIGHTS_AUDIT_RECORDS", "20000"))
PARTITIONS = 4
BATCH = 500
#: What ten times the records may add at most. The join's cache (16 MiB) fills up between a few and many; a Python
#: string for each of a million ids alone would be more.
MAX_GROWTH_MIB = 60
COLUMNS = (
    *("tenant", "conversation_id", "outcome", "occurred_at", "received_at", "analysed_at"),
    *("origin_topic", "origin_partition", "origin_offset"),
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


Headers = list[tuple[str, bytes]]


class Run(NamedTuple):
    peak_mib: float
    seconds: float
    code: int
    document: Any


def audit(bootstrap_servers: str, database_url: str, folder: Path) -> Run:
    """Runs one audit as a process, whose peak memory the system reports."""
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "DATABASE_URL": database_url,
        "PYTHONPATH": str(ROOT),
        "PATH": "",
    }
    out = folder / "audit.json"
    started = time.monotonic()
    with (
        out.open("wb") as stdout,
        subprocess.Popen(
            [sys.executable, "-m", "streams", "audit", "--json"], cwd=folder, env=environment, stdout=stdout
        ) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Run(usage.ru_maxrss / 1024, time.monotonic() - started, process.returncode, json.loads(out.read_bytes()))


def batches(first: int, end: int) -> Iterator[tuple[int, range]]:
    """Partition and numbers of each batch."""
    for count, start in enumerate(range(first, end, BATCH)):
        yield count % PARTITIONS, range(start, min(start + BATCH, end))


async def deliver(broker: Kafka | Tansu, database_url: str, first: int, end: int) -> None:
    """Acts as workers on the conversations `first` to `end`: sends records, rows, events and committed offsets."""
    connection = await asyncpg.connect(database_url)
    options = {"bootstrap_servers": broker.bootstrap_servers, "acks": "all", "max_batch_size": 512 * 1024}
    async with AIOKafkaProducer(**options) as producer:
        for partition, numbers in batches(first, end):
            records = [b'{"id":"conversation-%d","text":"Where is my parcel, it is late?"}' % n for n in numbers]
            start = await send(producer, TOPICS.conversations, partition, [(None, value, []) for value in records])
            ids = [f"conversation-{n}" for n in numbers]
            origins = [Origin(TOPICS.conversations, partition, start + index) for index in range(len(ids))]
            events = [(name.encode(), b"{}", headers(origin)) for name, origin in zip(ids, origins, strict=True)]
            await send(producer, TOPICS.insights, partition, events)
            rows = [
                ("default", name, "analysed", NOW, NOW, NOW, origin.topic, origin.partition, origin.offset)
                for name, origin in zip(ids, origins, strict=True)
            ]
            await connection.copy_records_to_table("insights", records=rows, columns=COLUMNS)
    await connection.close()
    await commit_all(broker)


async def send(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes, Headers]]
) -> int:
    """Sends one batch; returns the offset of its first record."""
    batch = producer.create_batch()
    for key, value, headers in records:
        assert batch.append(key=key, value=value, timestamp=None, headers=headers) is not None
    return int((await (await producer.send_batch(batch, topic, partition=partition))).offset)


def headers(origin: Origin) -> Headers:
    source = f"/{origin.topic}/{origin.partition}/{origin.offset}".encode()
    return [(Header.SOURCE, source), (Header.TENANT, b"default")]


async def commit_all(broker: Kafka | Tansu) -> None:
    # Not the consumer's own end_offsets: Tansu answers with the offset after the last batch's first record.
    options = {"bootstrap_servers": broker.bootstrap_servers}
    edges = await bounds(options, TOPICS, [TOPICS.conversations])
    async with AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, group_id=TOPICS.consumer_group, enable_auto_commit=False
    ) as consumer:
        consumer.assign(list(edges))
        await consumer.commit({partition: end for partition, (_, end) in edges.items()})


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_records(broker: Kafka | Tansu, database_url: str, tmp_path: Path) -> None:
    """Ten times as many add less than a set of their ids would; all of them are reconciled."""
    await create_topics({"bootstrap_servers": broker.bootstrap_servers}, TOPICS, PARTITIONS, 1)
    runs = []
    for first, end in ((0, RECORDS // 10), (RECORDS // 10, RECORDS)):
        await deliver(broker, database_url, first, end)
        run = audit(broker.bootstrap_servers, database_url, tmp_path)
        assert (run.code, run.document["total"]["analysed"], run.document["rows"]["of_records"]) == (0, end, end)
        print(f"{end} records: peak {run.peak_mib:.1f} MiB, {run.seconds:.1f} s")
        runs.append(run)
    few, many = runs
    assert many.peak_mib - few.peak_mib < MAX_GROWTH_MIB
