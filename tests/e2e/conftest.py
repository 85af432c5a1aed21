"""Fixtures that several tests of the whole service share."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.kafka import Kafka
from streams.dev.local.postgres import Postgres
from streams.dev.local.process_log import ProcessLog
from streams.dev.local.tansu import Tansu
from streams.postgres.migrations import migrate_database
from tests.chaos.process_tree import continue_tree
from tests.e2e.service import Service


@pytest.fixture
def service(broker: Tansu | Kafka, database_url: str, tmp_path: Path) -> Iterator[Service]:
    """Processes on a new broker with its topics, and on a new database."""
    with Service(tmp_path, broker.bootstrap_servers, database_url) as service:
        service.run("topics")
        yield service


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A look at what the service has stored."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def postgres_of_its_own(tmp_path: Path) -> Iterator[Postgres]:
    """A migrated server that may be killed and frozen."""
    with closing(ProcessLog(tmp_path / "postgres.log")) as log:
        server = Postgres(tmp_path, log)
        server.start()
        migrate_database(server.url)
        yield server
        if server.pid is not None:
            continue_tree(server.pid)
        server.stop()
