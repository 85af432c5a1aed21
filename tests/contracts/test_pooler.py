"""Everything that uses Postgres works behind PgBouncer in transaction mode, and leaves nothing behind there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from streams.dev.local.postgres import Postgres
from streams.gateway.insights import PostgresInsightReader
from streams.postgres.database import parse_database_url
from streams.postgres.migrations import migrate_database
from streams.sinks.rows import RowSink
from tests.support.factories import a_result, result_jobs
from tests.support.servers import running_pgbouncer

SESSIONS = 6


@pytest.fixture
def pooled_url(postgres: Postgres, database_url: str, tmp_path: Path) -> Iterator[str]:
    """The migrated database through a pooler, without pgbouncer=true in its URL."""
    with running_pgbouncer(database_url, tmp_path) as url:
        yield url


@pytest.fixture
async def sinks(pooled_url: str) -> AsyncIterator[list[RowSink]]:
    """More than the pooler has server connections."""
    sinks = [RowSink(pooled_url) for _ in range(SESSIONS)]
    for sink in sinks:
        await sink.start()
    yield sinks
    for sink in sinks:
        await sink.stop()


async def test_many_writers_and_readers_share_server_connections(
    sinks: list[RowSink], pooled_url: str, connection: asyncpg.Connection
) -> None:
    """No client runs another one's statements."""
    readers = [PostgresInsightReader(pooled_url) for _ in range(SESSIONS)]
    for reader in readers:
        await reader.start()

    async def work(number: int) -> None:
        for turn in range(10):
            written = await sinks[number].write(result_jobs(a_result(id=f"c-{number}-{turn}")))
            assert len(written.stored) == 1
            found = await readers[number].conversation("default", f"c-{number}-{turn}")
            assert found is not None
            assert found.id == f"c-{number}-{turn}"
            assert len(await readers[number].insights("default", {"source": "none"}, None, 5)) == 0
            await readers[number].check()
            await sinks[number].ping()

    await asyncio.gather(*map(work, range(SESSIONS)))
    assert await connection.fetchval("SELECT count(*) FROM insights") == SESSIONS * 10
    for reader in readers:
        await reader.stop()


async def test_refused_and_locked_rows_are_distinguished_as_without_pooler(
    sinks: list[RowSink], connection: asyncpg.Connection
) -> None:
    """The limits hold in the statement's transaction, and its end leaves the connection usable."""
    jobs = result_jobs(*(a_result(id=f"c-{n}", outcome="dead", insight=None) for n in range(4)))
    await sinks[0].write(jobs)
    again = result_jobs(a_result(id="c-0"), a_result(id="c-1"), a_result(id="bad", outcome="nonsense"))
    async with connection.transaction():
        await connection.execute("SELECT FROM insights WHERE conversation_id = 'c-0' FOR UPDATE")
        written = await sinks[0].write(again)
    assert (written.blocked, written.stored) == ([again[0]], [again[1]])
    assert [job for job, _ in written.refused] == [again[2]]
    assert len((await sinks[0].write(written.blocked)).stored) == 1


async def test_no_limit_of_ours_holds_for_other_clients(sinks: list[RowSink], pooled_url: str) -> None:
    """They share the server connections."""
    for sink in sinks:
        await sink.write(result_jobs(a_result()))
    database = parse_database_url(pooled_url)
    others = [await database.connect("other") for _ in range(2)]
    for other in others:
        await other.execute("BEGIN")  # and stays in it, so that the next one gets the other server connection
        assert [await other.fetchval(f"SHOW {name}_timeout") for name in ("lock", "statement")] == ["0", "0"]
        assert await other.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
    for other in others:
        other.terminate()


def test_migrations_run_and_leave_no_lock(postgres: Postgres, tmp_path: Path) -> None:
    """Twice: on a database without tables, and on one that is up to date."""
    name = "behind_a_pooler"
    asyncio.run(_execute(postgres.url, f"CREATE DATABASE {name}"))
    direct = postgres.url.replace("/grok_insights?", f"/{name}?")
    with running_pgbouncer(direct, tmp_path) as url:
        assert any("Applied" in line for line in migrate_database(url))
        assert not any("Applied" in line for line in migrate_database(f"{url}?pgbouncer=true"))
        assert asyncio.run(_fetchval(direct, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _fetchval(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    found = await connection.fetchval(query)
    await connection.close()
    return found
