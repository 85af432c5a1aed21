"""Fixtures that several contracts share: brokers and databases, and the worker's own ways to them."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from schemas.kafka import Topics
from streams.kafka.admin import make_topics
from streams.kafka.producer import ConfirmedProducer
from streams.local.kafka import Kafka
from streams.local.log_sink import LogSink
from streams.local.tansu import Tansu
from streams.sinks.rows import RowSink
from tests.conftest import skip_unless_kafka
from tests.support.topics import TOPICS, topics_with

PARTITIONS = 4


class Cluster(NamedTuple):
    """A broker that many tests use, and the topics of this one, with four partitions each."""

    bootstrap_servers: str
    topics: Topics

    @property
    def options(self) -> dict[str, Any]:
        """For any client."""
        return {"bootstrap_servers": self.bootstrap_servers}


@pytest.fixture(scope="session")
def started_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Starts a broker of each kind at most once."""
    addresses: dict[str, str] = {}
    with ExitStack() as stack:

        def start(kind: str) -> str:
            if kind not in addresses:
                folder = tmp_path_factory.mktemp(kind)
                log = stack.enter_context(closing(LogSink(folder / "log")))
                server = Kafka(folder, log) if kind == "kafka" else Tansu(folder, log)
                server.start()
                stack.callback(server.stop)
                addresses[kind] = server.bootstrap_servers
            return addresses[kind]

        yield start


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
async def cluster(request: pytest.FixtureRequest, started_broker: Callable[[str], str]) -> Cluster:
    """A broker of each kind in turn."""
    if request.param == "kafka":
        skip_unless_kafka()
    cluster = Cluster(started_broker(request.param), topics_with(f"t{secrets.token_hex(4)}-"))
    await make_topics(cluster.options, cluster.topics, PARTITIONS, 1)
    return cluster


@pytest.fixture
async def cluster_producer(cluster: Cluster) -> AsyncIterator[ConfirmedProducer]:
    """Connected to the cluster."""
    producer = ConfirmedProducer(cluster.options)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[Tansu]:
    """The broker that is there at once, without topics."""
    with closing(LogSink(tmp_path / "log")) as log:
        server = Tansu(tmp_path, log)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def producer(tansu: Tansu) -> AsyncIterator[ConfirmedProducer]:
    """Every topic is there, with four partitions."""
    options = {"bootstrap_servers": tansu.bootstrap_servers}
    await make_topics(options, TOPICS, PARTITIONS, 1)
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
    """A session of the test's own."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
