"""Fixtures that several test folders share: real brokers and a real Postgres from the project's own local stack."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.kafka import Kafka, kafka_available
from streams.dev.local.postgres import Postgres
from streams.dev.local.process_log import ProcessLog
from streams.dev.local.tansu import Tansu
from streams.postgres.migrations import migrate_database

#: Comma-separated names of what must not be skipped: CI sets kafka, so that it cannot pass without it.
REQUIRED = os.environ.get("GROK_INSIGHTS_TEST_REQUIRE", "").split(",")

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


def skip_unless_kafka() -> None:
    """Skips with the reason, or fails where Kafka is required."""
    reason = kafka_available()
    if reason is not None and "kafka" in REQUIRED:
        pytest.fail(f"Apache Kafka is required here: {reason}")
    if reason is not None:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests; databases of their own keep them apart."""
    with (
        tempfile.TemporaryDirectory(prefix="grok-insights-test-") as folder,
        closing(ProcessLog(Path(folder) / "postgres.log")) as log,
    ):
        server = Postgres(Path(folder), log)
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def database_url(postgres: Postgres) -> str:
    """A new, migrated database."""
    return await _new_database(postgres)


@pytest.fixture
async def other_database_url(postgres: Postgres) -> str:
    """Another one."""
    return await _new_database(postgres)


async def _new_database(postgres: Postgres) -> str:
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = postgres.url.replace("/grok_insights?", f"/{name}?")
    migrate_database(url)
    return url


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tansu | Kafka]:
    """A new broker without topics, of each kind in turn."""
    if request.param == "kafka":
        skip_unless_kafka()
    with closing(ProcessLog(tmp_path / "broker.log")) as log:
        server = Kafka(tmp_path, log) if request.param == "kafka" else Tansu(tmp_path, log)
        server.start()
        yield server
        server.stop()
