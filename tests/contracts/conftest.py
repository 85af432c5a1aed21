"""Fixtures that several contracts share: brokers and databases, and the worker's own ways to them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.process_log import ProcessLog
from streams.dev.local.tansu import Tansu
from streams.kafka.admin import create_topics
from streams.kafka.producer import ConfirmedProducer
from streams.sinks.rows import RowSink
from tests.support.topics import TOPICS


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[Tansu]:
    """The broker that is there at once, without topics."""
    with closing(ProcessLog(tmp_path / "log")) as log:
        server = Tansu(tmp_path, log)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def producer(tansu: Tansu) -> AsyncIterator[ConfirmedProducer]:
    """Every topic is there, with four partitions."""
    options = {"bootstrap_servers": tansu.bootstrap_servers}
    await create_topics(options, TOPICS, 4, 1)
    producer = ConfirmedProducer(options)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def sink(database_url: str) -> AsyncIterator[RowSink]:
    """At work on a new database."""
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
