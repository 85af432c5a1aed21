"""Fixtures that several test folders share: real brokers and a real Postgres from the project's own local stack.

What starts at once (Tansu, 0.1 s) is new for each test; what does not (Postgres, Apache Kafka) is started once a
session, which is once a worker of pytest-xdist, and names keep the tests apart there.
"""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.postgres import Postgres
from streams.postgres.migrations import migrate_database
from tests.support.servers import running, skip_unless_kafka

_SETTINGS = (
    *("KAFKA_BOOTSTRAP_SERVERS", "TOPIC_PREFIX", "CONSUMER_GROUP", "DATABASE_URL", "SECRETS_DIR"),
    *("ANALYSER", "XAI_API_KEY", "GROK_MODEL"),
)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A developer's .env and settings must not reach tests."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests; databases of their own keep them apart."""
    with running(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """The name of a migrated database that others are copied from, which is quicker than to migrate each."""
    name = "migrated"
    asyncio.run(_execute(postgres, f"CREATE DATABASE {name}"))
    migrate_database(_url_of(postgres, name))
    return name


@pytest.fixture
async def database_url(postgres: Postgres, template_database: str) -> str:
    """A new, migrated database."""
    return await _new_database(postgres, template_database)


@pytest.fixture
async def other_database_url(postgres: Postgres, template_database: str) -> str:
    """Another one."""
    return await _new_database(postgres, template_database)


@pytest.fixture(scope="session")
def shared_kafka() -> Iterator[Kafka]:
    """One Apache Kafka for all tests that give their topics and groups fresh names, and leave it running."""
    skip_unless_kafka()
    with running(Kafka) as server:
        yield server


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tansu | Kafka]:
    """A new broker without topics, of each kind in turn; it may be killed and frozen."""
    if request.param == "kafka":
        skip_unless_kafka()
    with running(Kafka if request.param == "kafka" else Tansu, tmp_path) as server:
        yield server


async def _new_database(postgres: Postgres, template: str) -> str:
    name = f"test_{secrets.token_hex(6)}"
    await _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    return _url_of(postgres, name)


async def _execute(postgres: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(statement)
    await connection.close()


def _url_of(postgres: Postgres, database: str) -> str:
    return postgres.url.replace("/grok_insights?", f"/{database}?")
