"""The database's faults really happen, to the worker's own sink, and end when they are said to end."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from streams.dev.local.postgres import Postgres
from streams.dev.local.process import ProcessLog
from streams.postgres.migrations import migrate_database
from streams.sinks.rows import RowSink
from tests.chaos.database_faults import DatabaseFaults
from tests.support.factories import a_result
from tests.support.process_tree import tree_of

pytestmark = pytest.mark.slow

DEADLINE_S = 30
JOB: Any = SimpleNamespace(result=a_result(), call=None, is_wanted=True)
#: What asyncpg raises for a connection that is gone, depending on when it notices.
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of its own: the other tests' must not die."""
    with (
        tempfile.TemporaryDirectory(prefix="grok-insights-test-") as folder,
        closing(ProcessLog(Path(folder) / "log")) as log,
    ):
        server = Postgres(Path(folder), log)
        server.start()
        migrate_database(server.url)
        yield server
        server.stop()


@pytest.fixture
def faults(server: Postgres) -> Iterator[DatabaseFaults]:
    faults = DatabaseFaults(server)
    yield faults
    faults.thaw()
    faults.restart()


@pytest.fixture
async def sink(faults: DatabaseFaults, server: Postgres) -> AsyncIterator[RowSink]:
    sink = RowSink(server.url)
    await sink.start()
    await sink.write([JOB])
    yield sink
    await sink.stop()


async def written(sink: RowSink) -> None:
    """The sink itself tries until the row is committed."""
    async with asyncio.timeout(DEADLINE_S):
        assert (await sink.write([JOB])).stored == [JOB]


async def test_a_killed_server_refuses_and_comes_back_with_its_rows(
    faults: DatabaseFaults, server: Postgres, sink: RowSink
) -> None:
    """None of its processes is left, and a second kill or restart changes nothing."""
    assert server.pid is not None
    processes = tree_of(server.pid)
    faults.kill()
    faults.kill()
    assert not faults.is_alive
    assert len(processes) > 1
    assert not any(tree_of(process.pid) for process in processes)
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncpg.connect(server.url)
    await asyncio.to_thread(faults.restart)
    pid = server.pid
    faults.restart()
    assert server.pid == pid
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("SELECT count(*) FROM insights") == 1
    await connection.close()
    await written(sink)


async def test_a_frozen_server_answers_no_client_and_continues_where_it_was(
    faults: DatabaseFaults, server: Postgres, sink: RowSink
) -> None:
    """Its backends are frozen too, each in a session of its own; no connection is lost."""
    faults.freeze()
    faults.freeze()
    assert faults.is_frozen
    assert faults.is_alive
    assert not server.is_ready()
    write = asyncio.create_task(sink.write([JOB]))
    assert await asyncio.to_thread(server.is_ready) is False
    assert not write.done()
    faults.thaw()
    async with asyncio.timeout(DEADLINE_S):
        await write
    assert not faults.is_frozen


async def test_cut_connections_are_really_gone(faults: DatabaseFaults, server: Postgres, sink: RowSink) -> None:
    """Existing connections are cut; new ones are accepted."""
    held = await asyncpg.connect(server.url)
    assert await faults.cut_connections()
    with pytest.raises(LOST):
        await held.fetchval("SELECT 1")
    await written(sink)


async def test_slow_commits_take_as_long_as_was_said_until_they_are_normal_again(
    faults: DatabaseFaults, sink: RowSink
) -> None:
    """The server itself takes the time."""
    assert await faults.slow_commits(3600)
    assert await faults.slow_commits(1)
    began = time.monotonic()
    await sink.write([JOB])
    assert time.monotonic() - began >= 1
    assert await faults.slow_commits(3600)
    assert await faults.normal_commits()
    await written(sink)


async def test_slow_commits_end_also_while_writers_wait(faults: DatabaseFaults, sink: RowSink) -> None:
    """A writer that waits already keeps waiting until its connection is cut; a later one does not wait."""
    assert await faults.slow_commits(3600)
    waiting = asyncio.create_task(sink.write([JOB]))
    await asyncio.sleep(0)
    assert await faults.normal_commits()
    assert await faults.cut_connections()
    async with asyncio.timeout(DEADLINE_S):
        await waiting
    await written(sink)


async def test_a_moment_is_found_at_which_rows_are_written(faults: DatabaseFaults, sink: RowSink) -> None:
    """A fault that hits no writer proves nothing, so it is reported whether a slow one has hit any."""
    assert not await faults.until_written_to(0.2)
    assert await faults.slow_commits(3600)
    before = await faults.slowed()
    waiting = asyncio.create_task(sink.write([JOB]))
    assert await faults.until_written_to(DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        while await faults.slowed() == before:
            pass
    assert await faults.normal_commits()
    assert await faults.cut_connections() > 0
    async with asyncio.timeout(DEADLINE_S):
        await waiting


@pytest.mark.parametrize("away", [DatabaseFaults.kill, DatabaseFaults.freeze])
async def test_a_server_that_is_away_does_nothing_and_says_so(
    faults: DatabaseFaults, away: Callable[[DatabaseFaults], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never an error: a round mixes faults at random."""
    monkeypatch.setattr("tests.chaos.database_faults._TIMEOUT_S", 0.3)
    away(faults)
    assert not await faults.cut_connections()
    assert not await faults.slow_commits(1)
    assert not await faults.normal_commits()
    assert not await faults.until_written_to(0.1)
