"""Fixtures that several tests of the whole service share."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.postgres import Postgres
from streams.postgres.migrations import migrate_database
from tests.e2e.roles import PASSWORD, execute
from tests.support.processes import Service
from tests.support.servers import running
from tests.support.topics import fresh_prefix

#: As short as each broker allows. Apache Kafka refuses sessions below 6 s; Tansu lets every join wait for half of
#: the session timeout. Half of the rebalance timeout is what calls in flight get when partitions move.
_GROUP_TIMEOUTS = {
    Tansu: {"KAFKA_SESSION_TIMEOUT_S": "3", "KAFKA_REBALANCE_TIMEOUT_S": "2"},
    Kafka: {"KAFKA_SESSION_TIMEOUT_S": "6", "KAFKA_REBALANCE_TIMEOUT_S": "4"},
}


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tansu | Kafka]:
    """A broker of each kind in turn. Tests share Apache Kafka, so they neither stop it nor use the default names."""
    if request.param == "kafka":
        yield request.getfixturevalue("shared_kafka")
        return
    with running(Tansu, tmp_path) as server:
        yield server


@pytest.fixture
def group_timeouts(broker: Tansu | Kafka) -> dict[str, str]:
    """Settings with which workers join in a second; tests of the promised times use the defaults instead."""
    return _GROUP_TIMEOUTS[type(broker)]


@pytest.fixture
def bare_service(
    broker: Tansu | Kafka, database_url: str, tmp_path: Path, group_timeouts: dict[str, str]
) -> Iterator[Service]:
    """Processes on a broker and a new database; the topics, whose names no other test has, are not there yet."""
    with Service(tmp_path, broker.bootstrap_servers, database_url, prefix=fresh_prefix(), **group_timeouts) as service:
        yield service


@pytest.fixture
def service(bare_service: Service) -> Service:
    """The same with its topics."""
    bare_service.create_topics()
    return bare_service


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database of the service."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def role(postgres: Postgres) -> str:
    """A new user, who may connect and nothing else."""
    name = f"role_{secrets.token_hex(4)}"
    await execute(postgres.url, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    return name


@pytest.fixture
def postgres_of_its_own(tmp_path: Path) -> Iterator[Postgres]:
    """A migrated server that may be killed and frozen."""
    with running(Postgres, tmp_path) as server:
        migrate_database(server.url)
        yield server
