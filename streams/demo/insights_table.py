"""What the demo reads from Postgres: how many rows there are, and at the end all of them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from schemas.errors import Fatal
from streams.demo.examples import Example
from streams.demo.figures import Row

_COUNT = "SELECT count(*) FROM insights"
_ROWS = """
    SELECT conversation_id, outcome, reason, received_at, analysed_at, text_key, cost_usd_ticks
    FROM insights
"""
_EXAMPLES = """
    SELECT conversation_id, source, sentiment, sentiment_score, urgency, topics, intent, summary
    FROM insights WHERE outcome = 'analysed'
"""
_MISSING = """
    SELECT id FROM unnest($1::text[]) AS id
    WHERE NOT EXISTS (SELECT FROM insights WHERE conversation_id = id)
"""


class InsightsTable:
    """The demo's database is its own: every row in it is one of the demo's."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def count(self) -> int:
        return int(await self._connection.fetchval(_COUNT))

    async def rows(self) -> list[Row]:
        return [Row(*record) for record in await self._connection.fetch(_ROWS)]

    async def insights(self) -> list[Example]:
        """Those of analysed conversations."""
        return [
            Example(identifier, source, sentiment, score, urgency, tuple(topics), intent, summary)
            for identifier, source, sentiment, score, urgency, topics, intent, summary in (
                await self._connection.fetch(_EXAMPLES)
            )
        ]

    async def missing(self, ids: Sequence[str]) -> list[str]:
        """The ids without a row."""
        return [record["id"] for record in await self._connection.fetch(_MISSING, ids)]


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[InsightsTable]:
    """One connection for as long as the block runs. Raises Fatal when it cannot be had, or is lost."""
    try:
        connection = await asyncpg.connect(database_url, command_timeout=20)
        try:
            yield InsightsTable(connection)
        finally:
            await connection.close(timeout=2)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Fatal("the demo's database does not answer", str(error) or type(error).__name__) from error
