"""Rows on a real Postgres that refuses, conflicts, is full, only reads or is held up: what a batch makes of it."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from streams.pipeline.attempts import until_done
from streams.pipeline.delivery import Delivery
from streams.pipeline.envelope import open_envelope
from streams.sinks.postgres import WRITERS, PostgresSink
from structlog.testing import capture_logs
from tests.unit.pipeline.factories import a_record, value_of

from schemas.errors import Retryable, Unprocessable
from schemas.outcome import Analysed
from tests.fakes.analysis import NOON, a_result, an_answer
from tests.fakes.sinks import FakeEvents, FakeLetters

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

EACH_ROW = """
CREATE FUNCTION each_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.conversation_id = 'bad' THEN {action}; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER each_row BEFORE INSERT ON insights FOR EACH ROW EXECUTE FUNCTION each_row();
"""

COUNT_OTHER_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND NOT pid = ANY($1)
"""

#: Sessions of a sink: its writers', that of the writer of held rows, and the one that pings.
SESSIONS = WRITERS + 2


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


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01", "57014", "53300", "53100", "25006"])
async def test_a_passing_failure_is_nobodys_fault(
    sink: PostgresSink, connection: asyncpg.Connection, state: str
) -> None:
    """Raised by the server three times: whoever waits hears only that all rows are stored."""
    await connection.execute(FAIL_THREE_TIMES.format(state=state))
    await asyncio.gather(*(sink.write(a_result(id=f"c-{n}")) for n in range(20)))
    assert await count(connection) == 20
    assert await connection.fetchval("SELECT last_value FROM attempts") > 3


@pytest.mark.parametrize("state", ["22012", "23514", "54000", "P0001", "XX000"])
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


async def test_two_held_rows_hold_nobody_else(
    sink: PostgresSink, connection: asyncpg.Connection, holder: asyncpg.Connection
) -> None:
    """One for each writer, and a server that waits for locks without end, as it does by default: neighbours are
    written, and what comes later; the held rows as soon as they are let go."""
    await asyncio.gather(*(sink.write(a_result(id=f"{batch}-2", outcome="dead")) for batch in "ab"))
    async with holder.transaction():
        await holder.execute("SELECT FROM insights FOR UPDATE")
        writes = {}
        for batch in "ab":
            writes |= {f"{batch}-{n}": asyncio.ensure_future(sink.write(a_result(id=f"{batch}-{n}"))) for n in range(4)}
            await somebody_waits_for_a_lock(connection)
        held = [writes.pop("a-2"), writes.pop("b-2")]
        async with asyncio.timeout(30):
            await asyncio.gather(*writes.values())
            await asyncio.gather(*(sink.write(a_result(id=f"later-{n}")) for n in range(600)))
        assert not any(write.done() for write in held)
    async with asyncio.timeout(30):
        await asyncio.gather(*held)
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE outcome = 'analysed'") == 608


async def test_a_held_row_leaves_no_sessions_behind(
    sink: PostgresSink, connection: asyncpg.Connection, holder: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried: a session that waited for the lock would hold other rows, and a place in the server.
    The client's patience is shortened, so that what it leaves behind is there in seconds."""
    monkeypatch.setattr("streams.sinks.postgres.COMMAND_TIMEOUT_S", 2)
    await connection.execute(COUNT_STATEMENTS)
    await sink.write(a_result(id="held", outcome="dead"))
    async with holder.transaction():
        await holder.execute("SELECT FROM insights FOR UPDATE")
        await end_other_sessions(connection, holder)  # so that the writers' next ones are impatient
        write = asyncio.ensure_future(sink.write(a_result(id="held")))
        async with asyncio.timeout(60):
            while await connection.fetchval("SELECT last_value FROM statements") < 6:
                await asyncio.sleep(0.05)
        assert not write.done()
        assert await connection.fetchval(COUNT_OTHER_SESSIONS, [holder.get_server_pid()]) <= SESSIONS
    await write


async def test_a_row_that_never_ends_is_ended_by_the_server(
    sink: PostgresSink, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no lock is in its way: its neighbours are written, and only the statement of its writer goes on."""
    monkeypatch.setattr("streams.sinks.postgres.STATEMENT_TIMEOUT_MS", 300)
    await connection.execute(EACH_ROW.format(action="PERFORM pg_sleep(3600)"))
    endless = asyncio.ensure_future(sink.write(a_result(id="bad")))
    async with asyncio.timeout(15):
        await asyncio.gather(*(sink.write(a_result(id=f"c-{n}")) for n in range(100)))
    assert not endless.done()
    await connection.execute("DROP TRIGGER each_row ON insights")
    async with asyncio.timeout(15):
        await endless


async def test_an_error_that_nobody_foresaw_costs_one_row(sink: PostgresSink, connection: asyncpg.Connection) -> None:
    """Such as an internal one of the server: the hundred beside it are stored."""
    await connection.execute(EACH_ROW.format(action="RAISE EXCEPTION USING ERRCODE = 'XX000'"))
    good = [sink.write(a_result(id=f"c-{n}")) for n in range(100)]
    async with asyncio.timeout(15):
        refused, *stored = await asyncio.gather(sink.write(a_result(id="bad")), *good, return_exceptions=True)
    assert isinstance(refused, Unprocessable)
    assert stored == [None] * 100
    assert await count(connection) == 100


async def test_writers_that_end_are_replaced(
    sink: PostgresSink, connection: asyncpg.Connection, holder: asyncpg.Connection
) -> None:
    """Whoever waits for what they had under way may try again, and finds a writer."""
    await sink.write(a_result(id="held", outcome="dead"))
    async with holder.transaction():
        await holder.execute("SELECT FROM insights FOR UPDATE")
        write = asyncio.ensure_future(sink.write(a_result(id="held")))
        await somebody_waits_for_a_lock(connection)
        end_writers()
        with pytest.raises(Retryable):
            await write
    async with asyncio.timeout(15):
        await asyncio.gather(*(sink.write(a_result(id=id)) for id in ("held", "after")))
    assert await connection.fetchval("SELECT count(*) FROM insights WHERE outcome = 'analysed'") == 2


async def test_the_writer_of_held_rows_is_replaced(
    sink: PostgresSink, connection: asyncpg.Connection, holder: asyncpg.Connection
) -> None:
    """A held row that was handed to it comes through in the end, by its own or by another attempt."""
    await sink.write(a_result(id="held", outcome="dead"))
    async with holder.transaction():
        await holder.execute("SELECT FROM insights FOR UPDATE")
        with capture_logs() as told:
            write = asyncio.ensure_future(until_done(lambda: sink.write(a_result(id="held")), lambda: True))
            async with asyncio.timeout(15):
                while "postgres_rows_held" not in [entry["event"] for entry in told]:
                    await asyncio.sleep(0.02)
        await somebody_waits_for_a_lock(connection)
        end_writers()
        assert not write.done()
    async with asyncio.timeout(15):
        await write


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


def end_writers() -> None:
    """By what no part of them catches."""
    writers = [task for task in asyncio.all_tasks() if task.get_name().startswith("postgres-writer-")]
    assert writers
    for writer in writers:
        writer.cancel()


async def somebody_waits_for_a_lock(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.02)
