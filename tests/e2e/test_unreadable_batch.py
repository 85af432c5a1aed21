"""A batch that changed on the broker's disk stops its partition, with one message that names it, and nothing else."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from schemas.settings import Settings
from streams.dev.local.brokers import Kafka
from streams.kafka.admin import create_topics
from streams.kafka.clients import client_options
from streams.kafka.lag import LagReader
from streams.kafka.offset_reader import OffsetReader
from tests.e2e.rows import count_rows
from tests.support.processes import ROOT, Service
from tests.support.servers import running, skip_unless_kafka
from tests.support.topics import TOPICS

pytestmark = pytest.mark.kafka

DAMAGED = "the damaged one"
FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)


class DamagedKafka:
    """An Apache Kafka whose disk damages one batch while it is stopped: offset 3 of partition 0 of two topics."""

    def __init__(self, server: Kafka, folder: Path) -> None:
        self.server = server
        self.bootstrap_servers = server.bootstrap_servers
        self._data = folder / "kafka" / "data"

    async def fill(self) -> None:
        """Partition 0 gets a batch of three records, DAMAGED, and one more; partition 1 of `conversations` ten."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers) as producer:
            for topic in (TOPICS.conversations, TOPICS.dead_letters):
                batch = producer.create_batch()
                for number in range(3):
                    batch.append(key=None, value=conversation(number), timestamp=None)
                await (await producer.send_batch(batch, topic, partition=0))
                await producer.send_and_wait(topic, conversation(3, DAMAGED), partition=0)
                await producer.send_and_wait(topic, conversation(4), partition=0)
            for number in range(10, 20):
                await producer.send_and_wait(TOPICS.conversations, conversation(number), partition=1)

    def flip(self, topic: str) -> None:
        """Flips one bit of DAMAGED; flipped again, it is as before."""
        segment = self._data / f"{topic}-0" / f"{0:020}.log"
        at = segment.read_bytes().index(DAMAGED[1:].encode()) - 1
        with segment.open("r+b") as file:
            file.seek(at)
            [byte] = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1]))


def conversation(number: int, words: str = "the parcel is late") -> bytes:
    return json.dumps({"id": f"c-{number}", "text": f"{words}, number {number}"}).encode()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[DamagedKafka]:
    """Its topics have two partitions."""
    skip_unless_kafka()
    with running(Kafka, tmp_path) as server:
        damaged = DamagedKafka(server, tmp_path)
        asyncio.run(create_topics({"bootstrap_servers": server.bootstrap_servers}, TOPICS, 2, 1))
        asyncio.run(damaged.fill())
        server.stop()
        for topic in (TOPICS.conversations, TOPICS.dead_letters):
            damaged.flip(topic)
        server.start()
        yield damaged


@pytest.fixture
def service(broker: DamagedKafka, database_url: str, tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path, broker.bootstrap_servers, database_url, ANALYSER="local") as service:
        yield service


def events(log: Path, name: str) -> list[dict[str, Any]]:
    """What a process logged under that name."""
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in found if event["event"] == name]


async def test_only_its_partition_stops_and_continues_once_the_batch_can_be_read(
    broker: DamagedKafka, service: Service, rows: asyncpg.Connection
) -> None:
    """Records before it are analysed, other partitions lose nothing, and retries are not logged."""
    worker = await asyncio.to_thread(service.start_worker, "worker-1")
    await count_rows(rows, 13, timeout_s=60)
    offsets = await rows.fetch("SELECT origin_offset FROM insights WHERE origin_partition = 0 ORDER BY 1")
    assert [row["origin_offset"] for row in offsets] == [0, 1, 2]
    broker.flip(TOPICS.conversations)
    await count_rows(rows, 15, timeout_s=90)
    [event] = events(worker.log, "batch_unreadable")
    assert (event["topic"], event["partition"], event["offset"]) == (*FIRST, 3)
    assert (event["level"], event["error"]) == ("error", "CorruptRecordException")
    assert "kafka-delete-records.sh" in event["hint"]
    assert worker.stop() == 0


async def test_the_batch_can_be_given_up(broker: DamagedKafka, service: Service, rows: asyncpg.Connection) -> None:
    """As the hint says: the records after it are read."""
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    worker = await asyncio.to_thread(service.start_worker, "worker-1")
    await count_rows(rows, 13, timeout_s=60)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    await admin.delete_records({FIRST: RecordsToDelete(4)})
    await admin.close()
    await count_rows(rows, 14, timeout_s=90)
    [event] = events(worker.log, "records_removed_unread")
    assert (event["topic"], event["partition"], event["until"]) == (*FIRST, 4)


async def test_commands_name_the_batch_and_do_not_blame_the_address(broker: DamagedKafka, service: Service) -> None:
    """In three lines, with what an operator can do; the lag counts what cannot be read."""
    for arguments, topic in (
        (["audit"], TOPICS.conversations),
        (["dlq", "list"], TOPICS.dead_letters),
        (["dlq", "show", "0:3"], TOPICS.dead_letters),
        (["dlq", "replay", "--all"], TOPICS.dead_letters),
    ):
        ended = await asyncio.to_thread(run, service, *arguments)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        what, why, hint = ended.stderr.splitlines()[-3:]
        assert what == "error: a batch cannot be read"
        assert why == f"  why: {topic} partition 0 offset 3: CorruptRecordException"
        assert "kafka-delete-records.sh" in hint

    reader = OffsetReader(client_options(Settings(kafka_bootstrap_servers=broker.bootstrap_servers)), TOPICS)
    await reader.start()
    try:
        assert (await LagReader(reader, TOPICS.inputs).read()).records_by_partition == {0: 5, 1: 10}
        found = await reader.first_records({FIRST: 3, SECOND: 3})
        assert {tp: record and record.offset for tp, record in found.items()} == {SECOND: 3}
    finally:
        await reader.stop()


def run(service: Service, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **service.settings, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "streams", *arguments]
    return subprocess.run(
        command, cwd=service.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
