"""Rows on a real Postgres that refuses, conflicts, is full, is read-only, is away or holds locks."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from schemas.errors import Unprocessable
from streams.sinks.rows import RowSink
from tests.support.factories import NOON, a_result, result_jobs

#: Halvings from 500 rows to one.
HALVINGS = 9
LATER = NOON + timedelta(seconds=1)

# Counts statements also when they fail, since a sequence is not rolled back.
COUNT_STATEMENTS = """
CREATE SEQUENCE statements MINVALUE 0 START 0;
CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM nextval('statements'); RETURN NULL; END $$;
CREATE TRIGGER count_statement BEFORE INSERT ON insights FOR EACH STATEMENT EXECUTE FUNCTION count_statement();
SELECT nextval('statements');
"""

FAIL_THREE_TIMES = """
CREATE SEQUENCE attempts;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('attempts') <= 3 THEN RAISE EXCEPTION USING ERRCODE = '{state}'; END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fail BEFORE INSERT ON insights FOR EACH STATEMENT EXECUTE FUNCTION fail();
"""

EACH_ROW = """
CREATE FUNCTION each_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.conversation_id = 'bad' THEN {action}; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER each_row BEFORE INSERT ON insights FOR EACH ROW EXECUTE FUNCTION each_row();
"""

OTHER_SESSIONS = """
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND NOT pid = ANY($1)
"""


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another session."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def locked_rows(session: asyncpg.Connection) -> AsyncIterator[None]:
    """Locks all existing rows in that session."""
    async with session.transaction():
        await session.execute("SELECT FROM insights FOR UPDATE")
        yield


def jobs_of(*ids: str, **fields: Any) -> list[Any]:
    return result_jobs(*(a_result(id=conversation_id, **fields) for conversation_id in ids))


async def count(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM insights")
    return found


async def until(connection: asyncpg.Connection, query: str) -> None:
    """Returns when the query yields something true."""
    async with asyncio.timeout(30):
        while not await connection.fetchval(query):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("bad", [1, 20, 500])
async def test_looking_for_bad_rows_takes_two_statements_a_halving(
    sink: RowSink, connection: asyncpg.Connection, bad: int
) -> None:
    """Wherever they are among 500: all others are stored."""
    await connection.execute(COUNT_STATEMENTS)
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    refused = set(random.Random(seed).sample(range(500), bad))
    outcomes = ["nonsense" if number in refused else "cached" for number in range(500)]
    jobs = result_jobs(*(a_result(id=f"c-{n}", outcome=outcome) for n, outcome in enumerate(outcomes)))
    written = await sink.write(jobs)
    assert {jobs.index(job) for job, _ in written.refused} == refused
    assert await count(connection) == 500 - bad
    assert await connection.fetchval("SELECT last_value FROM statements") <= min(1 + 2 * HALVINGS * bad, 2 * 500 - 1)


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01", "53300", "53100", "25006"])
async def test_a_passing_failure_is_waited_out(sink: RowSink, connection: asyncpg.Connection, state: str) -> None:
    """The whole batch is written again: no row is to blame."""
    await connection.execute(FAIL_THREE_TIMES.format(state=state))
    written = await sink.write(jobs_of(*(f"c-{n}" for n in range(20))))
    assert (len(written.stored), await count(connection)) == (20, 20)
    assert await connection.fetchval("SELECT last_value FROM attempts") == 4


@pytest.mark.parametrize("state", ["22012", "23514", "54000", "P0001", "XX000"])
async def test_an_error_about_the_row_is_the_rows_own(
    sink: RowSink, connection: asyncpg.Connection, state: str
) -> None:
    """The row is refused at once; so is one that causes an unforeseen internal error of the server."""
    await connection.execute(FAIL_THREE_TIMES.format(state=state))
    written = await sink.write(jobs_of("c-1"))
    assert [type(error) for _, error in written.refused] == [Unprocessable]
    assert await connection.fetchval("SELECT last_value FROM attempts") == 1


async def test_a_deadlock_is_tried_again(sink: RowSink, connection: asyncpg.Connection) -> None:
    """Another session takes the same two rows in the opposite order; the server ends one, and both come through."""
    await sink.write(jobs_of("a", "b"))
    async with connection.transaction():
        await connection.execute("UPDATE insights SET source = 'other' WHERE conversation_id = 'b'")
        writing = asyncio.create_task(sink.write(jobs_of("a", "b", occurred_at=LATER)))
        await until(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        await connection.execute("UPDATE insights SET source = 'other' WHERE conversation_id = 'a'")
    assert len((await writing).stored) == 2
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE occurred_at = $1", LATER) == 2
    await until(connection, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


async def test_a_locked_row_is_handed_back_and_its_neighbours_are_stored(
    sink: RowSink, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """Later batches are written meanwhile, and the row itself as soon as the lock is gone."""
    await sink.write(jobs_of("c-2", outcome="dead", insight=None))
    jobs = jobs_of(*(f"c-{n}" for n in range(5)))
    async with locked_rows(other):
        written = await sink.write(jobs)
        assert (written.blocked, len(written.stored)) == ([jobs[2]], 4)
        assert len((await sink.write(jobs_of("later"))).stored) == 1
    assert (await sink.write(written.blocked)).stored == [jobs[2]]
    assert await connection.fetchval("SELECT outcome FROM insights WHERE conversation_id = 'c-2'") == "analysed"


async def test_a_locked_row_leaves_no_sessions_behind(
    sink: RowSink, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """However often it is tried: a session that waited for the lock would hold other rows."""
    await sink.write(jobs_of("locked", outcome="dead", insight=None))
    async with locked_rows(other):
        for _ in range(3):
            assert len((await sink.write(jobs_of("locked"))).blocked) == 1
        ours = [await session.fetchval("SELECT pg_backend_pid()") for session in (connection, other)]
        assert await connection.fetchval(f"SELECT count(*) {OTHER_SESSIONS}", ours) == 2  # the writer, and the ping


async def test_a_row_that_never_ends_is_ended_by_the_server(
    sink: RowSink, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no lock is in its way; its neighbours are stored."""
    monkeypatch.setattr("streams.sinks.rows.STATEMENT_TIMEOUT_MS", 300)
    await connection.execute(EACH_ROW.format(action="PERFORM pg_sleep(3600)"))
    written = await sink.write(jobs_of("bad", *(f"c-{n}" for n in range(15))))
    assert ([job.result.id for job in written.blocked], len(written.stored)) == (["bad"], 15)


async def test_the_ping_is_answered_while_writers_wait(
    sink: RowSink, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """A locked row does not make the worker unhealthy."""
    await sink.write(jobs_of("a", "b"))
    async with locked_rows(other):
        writing = [asyncio.create_task(sink.write(jobs_of(id, occurred_at=LATER))) for id in "ab"]
        await until(connection, "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")
        await sink.ping()
    await asyncio.gather(*writing)


async def test_a_cut_connection_is_replaced(sink: RowSink, connection: asyncpg.Connection) -> None:
    """Before a statement or while it runs: the next attempt has a new connection."""
    await sink.write(jobs_of("before"))
    await end_other_sessions(connection)
    assert len((await sink.write(jobs_of("after"))).stored) == 1
    assert await count(connection) == 2


async def test_an_outage_of_the_database_is_waited_out(
    sink: RowSink, connection: asyncpg.Connection, postgres: Any, database_url: str
) -> None:
    """It refuses connections for a while; rows whose partition is revoked meanwhile are given up."""
    await sink.write(jobs_of("before"))
    operator = await asyncpg.connect(postgres.url)
    await operator.execute(f"ALTER DATABASE {database_of(database_url)} ALLOW_CONNECTIONS false")
    await end_other_sessions(connection)
    revoked, wanted = jobs = jobs_of("revoked", "wanted")
    writing = asyncio.create_task(sink.write(jobs))
    assert not (await asyncio.wait({writing}, timeout=0.5))[0]
    revoked.tracker.is_revoked = True
    await operator.execute(f"ALTER DATABASE {database_of(database_url)} ALLOW_CONNECTIONS true")
    await operator.close()
    assert (await writing).stored == [wanted]
    assert await count(connection) == 2


async def test_a_server_that_only_reads_is_left(
    sink: RowSink, connection: asyncpg.Connection, database_url: str
) -> None:
    """An old primary after a failover: the writer reconnects until it finds a server that accepts writes."""
    database = database_of(database_url)
    await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    writing = asyncio.create_task(sink.write(jobs_of("c-1")))
    assert not (await asyncio.wait({writing}, timeout=0.5))[0]
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    assert len((await writing).stored) == 1


async def test_a_write_that_is_cancelled_leaves_a_sink_that_works(
    sink: RowSink, connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    """Its connection is in no state to be used again."""
    await sink.write(jobs_of("locked"))
    async with locked_rows(other):
        writing = asyncio.create_task(sink.write(jobs_of("locked", occurred_at=LATER)))
        await until(connection, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        writing.cancel()
        await asyncio.wait({writing})
        assert len((await sink.write(jobs_of("after"))).stored) == 1


def database_of(database_url: str) -> str:
    return database_url.rpartition("/")[2].partition("?")[0]


async def end_other_sessions(*ours: asyncpg.Connection) -> None:
    """Ends all other sessions of the same database."""
    pids = [await connection.fetchval("SELECT pg_backend_pid()") for connection in ours]
    await ours[0].execute(f"SELECT pg_terminate_backend(pid) {OTHER_SESSIONS}", pids)
