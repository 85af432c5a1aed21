"""Fixtures that several contract tests share: brokers, databases and the worker's connections to them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer

from schemas.kafka import Topics
from streams.dev.local.brokers import Tansu
from streams.kafka.admin import create_topics
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.rows import RowSink
from tests.support.servers import running
from tests.support.topics import TOPICS, fresh_prefix, topics_with

PARTITIONS = 4


class Cluster(NamedTuple):
    """A broker that runs for as long as the test, and topics whose names no other test has."""

    bootstrap_servers: str
    topics: Topics
    #: As short as is of use: Apache Kafka takes none below 6 s, Tansu lets every join wait for half of it.
    session_timeout_s: float

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients."""
        return {"bootstrap_servers": self.bootstrap_servers}


def a_member(cluster: Cluster) -> AIOKafkaConsumer:
    """A member of the workers' group."""
    return AIOKafkaConsumer(
        cluster.topics.conversations,
        group_id=cluster.topics.consumer_group,
        enable_auto_commit=False,
        session_timeout_ms=int(1_000 * cluster.session_timeout_s),
        heartbeat_interval_ms=300,
        rebalance_timeout_ms=1_000,
        **cluster.options,
    )


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
async def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A broker of each kind in turn, with every topic. Tests share Apache Kafka, so they do not stop it."""
    server = request.getfixturevalue("shared_kafka" if request.param == "kafka" else "tansu")
    session_s = 6.0 if request.param == "kafka" else 2.0
    cluster = Cluster(server.bootstrap_servers, topics_with(fresh_prefix()), session_s)
    await create_topics(cluster.options, cluster.topics, PARTITIONS, 1)
    return cluster


@pytest.fixture
async def confirmed(cluster: Cluster) -> AsyncIterator[ConfirmedProducer]:
    """A producer of the cluster."""
    producer = ConfirmedProducer(cluster.options)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def offset_reader(cluster: Cluster) -> AsyncIterator[OffsetReader]:
    """An offset reader of the cluster."""
    reader = OffsetReader(cluster.options, cluster.topics)
    await reader.start()
    yield reader
    await reader.stop()


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[Tansu]:
    """A broker that starts at once, without topics."""
    with running(Tansu, tmp_path) as server:
        yield server


@pytest.fixture
async def producer(tansu: Tansu) -> AsyncIterator[ConfirmedProducer]:
    """Every topic is there, with four partitions."""
    options = {"bootstrap_servers": tansu.bootstrap_servers}
    await create_topics(options, TOPICS, PARTITIONS, 1)
    producer = ConfirmedProducer(options)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def sink(database_url: str) -> AsyncIterator[RowSink]:
    """Connected to a new database."""
    sink = RowSink(database_url)
    await sink.start()
    yield sink
    await sink.stop()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
