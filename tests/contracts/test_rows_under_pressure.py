"""Rows on a real Postgres that refuses, conflicts, is full, only reads or is held up: what a batch makes of it."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from structlog.testing import capture_logs

from schemas.errors import Unprocessable
from schemas.outcome import Analysed
from streams.pipeline.delivery import Delivery
from streams.pipeline.envelope import open_envelope
from streams.sinks.postgres import PostgresSink
from tests.fakes.analysis import NOON, a_result, an_answer
from tests.fakes.sinks import FakeEvents, FakeLetters
from tests.unit.pipeline.factories import a_record, value_of

#: Halvings from 500 rows to one.
HALVINGS = 9

# Counts statements also when they fail, for a sequence is not rolled back.
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


@pytest.fixture
async def sink(database_url: str) -> AsyncIterator[PostgresSink]:
    sink = PostgresSink(database_url)
    await sink.start()
    yield sink
    await sink.stop()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def holder(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another session."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def count(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT count(*) FROM insights")
    return found


@pytest.mark.parametrize("bad", [1, 20, 500])
async def test_bad_rows_fail_alone(sink: PostgresSink, connection: asyncpg.Connection, bad: int) -> None:
    """Wherever they stand among 500: all others are stored, and looking for them costs two statements a halving."""
    await connection.execute(COUNT_STATEMENTS)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    refused = set(random.Random(seed).sample(range(500), bad))
    outcomes = ["nonsense" if number in refused else "cached" for number in range(500)]
    writes = [sink.write(a_result(id=f"c-{n}", outcome=outcome)) for n, outcome in enumerate(outcomes)]
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert {number for number, end in enumerate(ends) if isinstance(end, Unprocessable)} == refused
    assert await count(connection) == 500 - bad
    statements = await connection.fetchval("SELECT last_value FROM statements")
    print(f"{bad} bad of 500: {statements} statements")
    assert statements <= min(1 + 2 * HALVINGS * bad, 2 * 500 - 1)


async def test_a_bad_row_becomes_one_dead_letter(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Delivered at the same moment as 499 good ones: they have rows and events, it has a letter."""
    events, letters = FakeEvents(), FakeLetters()
    delivery = Delivery(sink, events, letters, "v1", lambda: NOON)

    async def deliver(number: int) -> None:
        record = a_record(value_of(id=f"c-{number}"))
        summary = "\0" if number == 250 else "good"
        await delivery.deliver(record, open_envelope(record), Analysed(an_answer(summary=summary)), lambda: True)

    await asyncio.gather(*map(deliver, range(500)))
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE outcome = 'analysed'") == 499
    assert [(conversation_id, letter.reason) for letter, conversation_id in letters.sent] == [("c-250", "unstorable")]
    assert len(events.sent) == 499


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01", "57014", "53300", "53100", "25006", "XX000"])
async def test_a_passing_failure_is_nobodys_fault(
    sink: PostgresSink, connection: asyncpg.Connection, state: str
) -> None:
    """Raised by the server three times: whoever waits hears only that all rows are stored."""
    await connection.execute(FAIL_THREE_TIMES.format(state=state))
    await asyncio.gather(*(sink.write(a_result(id=f"c-{n}")) for n in range(20)))
    assert await count(connection) == 20
    assert await connection.fetchval("SELECT last_value FROM attempts") > 3


@pytest.mark.parametrize("state", ["22012", "23514", "54000", "P0001"])
async def test_what_is_said_of_the_row_is_the_rows_own(
    sink: PostgresSink, connection: asyncpg.Connection, state: str
) -> None:
    """It is told to whoever waits for the row, at once."""
    await connection.execute(FAIL_THREE_TIMES.format(state=state))
    with pytest.raises(Unprocessable):
        await sink.write(a_result())
    assert await connection.fetchval("SELECT last_value FROM attempts") == 1


async def test_a_deadlock_is_tried_again(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Another session takes the same two rows in the opposite order: the server breaks it, and both come through."""
    await asyncio.gather(sink.write(a_result(id="a")), sink.write(a_result(id="b")))
    later = NOON + timedelta(seconds=1)
    async with connection.transaction():
        await connection.execute("UPDATE insights SET source = 'other' WHERE conversation_id = 'b'")
        writes = asyncio.gather(*(sink.write(a_result(id=id, occurred_at=later)) for id in "ab"))
        await somebody_waits_for_a_lock(connection)
        await connection.execute("UPDATE insights SET source = 'other' WHERE conversation_id = 'a'")
    await writes
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE occurred_at = $1", later) == 2
    async with asyncio.timeout(10):  # sessions tell their figures a little later
        while not await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ):
            await asyncio.sleep(0.05)


async def test_a_row_that_somebody_holds_does_not_hold_its_neighbours(
    sink: PostgresSink, connection: asyncpg.Connection, holder: asyncpg.Connection, database_url: str
) -> None:
    """With a time limit of the server's; the held row is stored as soon as it is let go."""
    await connection.execute(f"ALTER DATABASE {database_of(database_url)} SET lock_timeout = '100ms'")
    await sink.write(a_result(id="c-3", outcome="dead"))
    async with holder.transaction():
        await holder.execute("SELECT FROM insights FOR UPDATE")
        await end_other_sessions(connection, holder)  # so that the writers' next ones have the limit
        writes = [asyncio.ensure_future(sink.write(a_result(id=f"c-{n}"))) for n in range(16)]
        async with asyncio.timeout(30):
            await asyncio.gather(*(write for n, write in enumerate(writes) if n != 3))
        assert not writes[3].done()
    await writes[3]
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE outcome = 'analysed'") == 16


async def test_a_server_that_only_reads_is_left(
    sink: PostgresSink, connection: asyncpg.Connection, database_url: str
) -> None:
    """An old primary after a failover: the writer connects anew until it finds one that takes rows."""
    await sink.write(a_result(id="before"))
    database = database_of(database_url)
    await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await end_other_sessions(connection)
    with capture_logs() as told:
        write = asyncio.ensure_future(sink.write(a_result(id="after")))
        async with asyncio.timeout(10):
            while "ReadOnlySQLTransactionError" not in [entry.get("error") for entry in told]:
                await asyncio.sleep(0.02)
    assert not write.done()
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    await write
    assert await count(connection) == 2


async def test_rows_that_nobody_waits_for_are_not_written(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Their records were given up while the database was away; the rest of the batch comes through."""
    await connection.execute(FAIL_THREE_TIMES.format(state="53100"))
    given_up, waited_for = (asyncio.ensure_future(sink.write(a_result(id=id))) for id in ("given-up", "waited-for"))
    async with asyncio.timeout(10):
        while not await connection.fetchval("SELECT is_called FROM attempts"):
            await asyncio.sleep(0.01)
    given_up.cancel()
    await waited_for
    assert await connection.fetch("SELECT conversation_id FROM insights") == [("waited-for",)]


async def test_nobody_waits_for_a_sink_that_was_stopped(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Neither for a batch that is tried again and again, nor for what was still to come."""
    await connection.execute(FAIL_THREE_TIMES.replace("<= 3", "> 0").format(state="53100"))
    writes = [asyncio.ensure_future(sink.write(a_result(id=f"c-{n}"))) for n in range(1_500)]
    async with asyncio.timeout(10):
        while not await connection.fetchval("SELECT is_called FROM attempts"):
            await asyncio.sleep(0.01)
    await sink.stop()
    await asyncio.wait(writes, timeout=10)
    assert all(write.cancelled() for write in writes)


def database_of(database_url: str) -> str:
    return database_url.rpartition("/")[2].partition("?")[0]


async def end_other_sessions(*ours: asyncpg.Connection) -> None:
    """Those of the same database; returns when they are gone."""
    pids = [await connection.fetchval("SELECT pg_backend_pid()") for connection in ours]
    query = "FROM pg_stat_activity WHERE datname = current_database() AND NOT pid = ANY($1)"
    await ours[0].execute(f"SELECT pg_terminate_backend(pid) {query}", pids)


async def somebody_waits_for_a_lock(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.02)
