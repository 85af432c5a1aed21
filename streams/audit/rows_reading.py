"""The rows' part of the audit: every row's key, outcome, times and origin, by a cursor on the server."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from schemas.errors import Fatal
from schemas.kafka import Origin
from schemas.outcome import OutcomeName
from streams.audit.entries import Entry, row_entry

CONNECT_TIMEOUT_S = 10
FETCH_TIMEOUT_S = 120
FETCH_ROWS = 2_000

_ROWS = """\
SELECT tenant, conversation_id, outcome, occurred_at, analysed_at, origin_topic, origin_partition, origin_offset
FROM insights"""
_PASSING = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def check_database(database_url: str) -> None:
    """Raises Fatal when the rows cannot be read: better before the topics are read than after."""
    async with _connected(database_url) as connection:
        await connection.execute("SELECT FROM insights LIMIT 0", timeout=CONNECT_TIMEOUT_S)


async def row_entries(database_url: str, expect: Callable[[int], None]) -> AsyncGenerator[list[Entry]]:
    """All rows of one moment, in batches; `expect` hears first how many there are. Raises Fatal."""
    async with _connected(database_url) as connection, _one_moment(connection):
        expect(await connection.fetchval("SELECT count(*) FROM insights", timeout=FETCH_TIMEOUT_S))
        cursor = await connection.cursor(_ROWS, timeout=FETCH_TIMEOUT_S)
        while rows := await cursor.fetch(FETCH_ROWS, timeout=FETCH_TIMEOUT_S):
            yield [_entry(*row) for row in rows]


def _entry(
    tenant: str,
    conversation_id: str,
    outcome: OutcomeName,
    occurred_at: datetime,
    analysed_at: datetime,
    *origin: Any,
) -> Entry:
    return row_entry(tenant, conversation_id, outcome, occurred_at, analysed_at, Origin(*origin))


def _one_moment(connection: asyncpg.Connection) -> asyncpg.transaction.Transaction:
    return connection.transaction(isolation="repeatable_read", readonly=True)


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection; what goes wrong with it or on it becomes Fatal, without the address and its password."""
    try:
        connection = await asyncpg.connect(database_url, timeout=CONNECT_TIMEOUT_S)
        try:
            yield connection
        finally:
            connection.terminate()
    except ValueError:  # also asyncpg's ClientConfigurationError, whose words may quote the address
        raise Fatal("DATABASE_URL is no address of a database", "", "it starts with postgresql://") from None
    except asyncpg.UndefinedTableError as error:
        hint = "make it with: grok-insights migrate"
        raise Fatal("the database has no table insights", "its migrations were not run", hint) from error
    except _PASSING as error:
        hint = "check DATABASE_URL and that the database runs"
        raise Fatal("the database cannot be used", type(error).__name__, hint) from error
