"""Migrations, topics and sinks against Postgres and Apache Kafka as the public images run them."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from msgspec.structs import replace
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from schemas.insight import Insight
from schemas.kafka import DEFAULT_TENANT, Origin
from schemas.result import ConversationResult
from streams.dev.local.ports import LOOPBACK, free_port
from streams.kafka.admin import create_topics, topic_configs
from streams.kafka.producer import ConfirmedProducer
from streams.postgres.migrations import migrate_database
from streams.sinks.rows import RowSink
from tests.support.container_engine import KAFKA_IMAGE, POSTGRES_IMAGE, require_images
from tests.support.factories import result_jobs
from tests.support.topics import TOPICS

pytestmark = pytest.mark.docker

START_TIMEOUT_S = 90
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """Without the reaper, whose image would have to be pulled: the `with` blocks below remove every container."""
    require_images(KAFKA_IMAGE, POSTGRES_IMAGE)
    with pytest.MonkeyPatch.context() as patch:
        if "TESTCONTAINERS_RYUK_DISABLED" not in os.environ:
            patch.setattr(testcontainers_config, "ryuk_disabled", True)
        yield


@pytest.fixture(scope="module")
def database_url(engine: None) -> Iterator[str]:
    """A migrated database in a container."""
    port = free_port()
    container = PostgresContainer(POSTGRES_IMAGE, username="grok", password="secret", dbname="insights", driver=None)
    _publish(container, 5432, port)
    with container:
        url = f"postgresql://grok:secret@{LOOPBACK}:{port}/insights"
        assert any("Applied" in line for line in migrate_database(url))
        yield url


@pytest.fixture(scope="module")
def client_options(engine: None) -> Iterator[dict[str, Any]]:
    """How a broker in a container is reached; the broker advertises the same address to clients."""
    port = free_port()
    container = DockerContainer(KAFKA_IMAGE).with_envs(
        KAFKA_NODE_ID="1",
        KAFKA_PROCESS_ROLES="broker,controller",
        KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9093",
        KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
        KAFKA_LISTENERS="PLAINTEXT://:9092,CONTROLLER://localhost:9093",
        KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{LOOPBACK}:{port}",
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
    )
    _publish(container, 9092, port)
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(START_TIMEOUT_S))
    with container:
        yield {"bootstrap_servers": f"{LOOPBACK}:{port}"}


async def test_migrating_again_changes_nothing(database_url: str) -> None:
    """`migrate` is safe to run at every start, also over data."""
    before = await _fetch(database_url, "SELECT * FROM information_schema.columns WHERE table_name = 'insights'")

    assert not any("Applied" in line for line in migrate_database(database_url))

    assert before
    assert before == await _fetch(
        database_url, "SELECT * FROM information_schema.columns WHERE table_name = 'insights'"
    )


async def test_the_sink_writes_a_row_once_and_the_newest_wins(database_url: str) -> None:
    """A replay changes nothing, and an older version of a conversation never covers a newer one."""
    newest = _result("c-1", NOON)
    older = replace(newest, occurred_at=NOON - timedelta(seconds=1), outcome="filtered", insight=None)
    sink = RowSink(database_url)
    await sink.start()
    try:
        await sink.write(result_jobs(newest))
        written = await _fetch(database_url, "SELECT * FROM insights")
        await sink.write(result_jobs(newest))
        await sink.write(result_jobs(older))
    finally:
        await sink.stop()

    assert [(row["conversation_id"], row["sentiment"]) for row in written] == [("c-1", "negative")]
    assert written == await _fetch(database_url, "SELECT * FROM insights")


async def test_topics_are_made_once(client_options: dict[str, Any]) -> None:
    """`topics` creates all of them with their partitions; running it again changes nothing."""
    first = await create_topics(client_options, TOPICS, partitions=3, replication_factor=1)
    again = await create_topics(client_options, TOPICS, partitions=3, replication_factor=1)

    assert {topic.name for topic in first if topic.is_new} <= set(topic_configs(TOPICS))
    assert [(topic.partitions, topic.is_new) for topic in again] == [(3, False)] * len(topic_configs(TOPICS))


async def test_a_confirmed_record_is_in_the_log(client_options: dict[str, Any]) -> None:
    """When `send` returns, key, value and headers are at the returned offset, byte for byte."""
    await create_topics(client_options, TOPICS, partitions=3, replication_factor=1)
    producer = ConfirmedProducer(client_options)
    await producer.start()
    try:
        headers = [("ce_id", b"c-1"), ("content-type", b"application/json")]
        sent = await producer.send(TOPICS.insights, key=b"c-1", value=b'{"id":"c-1"}', headers=headers)
    finally:
        await producer.stop()

    record = await _read_one(client_options, TOPICS.insights)
    assert (record.partition, record.offset) == (sent.partition, sent.offset)
    assert (record.key, record.value, list(record.headers)) == (b"c-1", b'{"id":"c-1"}', headers)


def _publish(container: DockerContainer, port: int, host_port: int) -> None:
    """On loopback and on a port of our choice: where the library looks for one depends on where it thinks it runs."""
    ports: dict[str, Any] = container.ports
    ports[f"{port}/tcp"] = (LOOPBACK, host_port)


async def _fetch(database_url: str, query: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def _read_one(client_options: dict[str, Any], topic: str) -> Any:
    async with AIOKafkaConsumer(topic, **client_options, auto_offset_reset="earliest") as consumer:
        return await consumer.getone()


def _result(conversation_id: str, occurred_at: datetime) -> ConversationResult:
    insight = Insight("negative", -0.5, ("refund",), "request_refund", "high", "Wants a refund.", True, 0.9, "en")
    return ConversationResult(
        tenant=DEFAULT_TENANT,
        id=conversation_id,
        outcome="analysed",
        occurred_at=occurred_at,
        received_at=NOON,
        analysed_at=NOON,
        origin=Origin(TOPICS.conversations, 0, 7),
        insight=insight,
    )
