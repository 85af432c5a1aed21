"""Reads insights from Postgres, always for one tenant."""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec

from schemas.errors import Retryable
from schemas.insight import Insight
from schemas.outcome import OutcomeName
from streams.gateway.insight_query import Cursor, InsightFilter

READ_TIMEOUT_S = 5.0
RETRY_AFTER_S = 5.0
POOL_MAX_CONNECTIONS = 10

_QUERIES = Path(__file__).parents[1] / "postgres" / "queries"
_SELECT_INSIGHT = (_QUERIES / "select_insight.sql").read_text()
_SELECT_INSIGHTS_PAGE = (_QUERIES / "select_insights_page.sql").read_text()
_INSIGHTS_TABLE_EXISTS = (_QUERIES / "insights_table_exists.sql").read_text()

T = TypeVar("T")
#: The server is gone, starting, stopping, full or not migrated, or the pool is closing.
_UNAVAILABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,
)


class DatabaseUnavailable(Retryable):
    """Postgres did not answer."""


class InsightRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the table `insights` with the field names of the event in the topic `insights`.

    JSON leaves out absent fields. The cost is in ticks of 10^-10 USD.
    """

    id: str
    outcome: OutcomeName
    occurred_at: datetime
    received_at: datetime
    analysed_at: datetime
    prompt_tokens: int
    completion_tokens: int
    cost_usd_ticks: int
    reason: str | None = None
    insight: Insight | None = None
    source: str | None = None
    text_key: str | None = None
    analysis_version: str | None = None
    model: str | None = None


_SAME_NAME = tuple(name for name in InsightRecord.__struct_fields__ if name not in ("id", "insight"))
_INSIGHT_FIELDS = tuple(name for name in Insight.__struct_fields__ if name not in ("topics", "extra"))


async def open_pool(database_url: str) -> asyncpg.Pool:
    """Returns a pool that connects on first use. Raises ValueError for an invalid URL."""
    return await asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=POOL_MAX_CONNECTIONS,
        timeout=READ_TIMEOUT_S,
        command_timeout=READ_TIMEOUT_S,
        server_settings={"application_name": "grok-insights gateway"},
    )


class PostgresInsightReader:
    """See streams.gateway.routes.InsightReader. Every query ends within READ_TIMEOUT_S."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        row = await _within_timeout(self._pool.fetchrow(_SELECT_INSIGHT, tenant, conversation_id))
        return None if row is None else _record_from_row(dict(row))

    async def insights(
        self, tenant: str, wanted: InsightFilter, after: Cursor | None, limit: int
    ) -> list[InsightRecord]:
        where, parameters = wanted.where(tenant)
        if after is not None:
            where += f" AND (occurred_at, conversation_id) < (${len(parameters) + 1}, ${len(parameters) + 2})"
            parameters += [after.occurred_at, after.id]
        parameters.append(limit)
        sql = _SELECT_INSIGHTS_PAGE.format(where=where, limit=f"${len(parameters)}")
        return [_record_from_row(dict(row)) for row in await _within_timeout(self._pool.fetch(sql, *parameters))]

    async def check(self) -> None:
        """Checks that Postgres answers and has the table. Raises DatabaseUnavailable otherwise."""
        if not await _within_timeout(self._pool.fetchval(_INSIGHTS_TABLE_EXISTS)):
            raise DatabaseUnavailable("the table insights is missing: run `grok-insights migrate`")


async def _within_timeout(query: Awaitable[T]) -> T:
    """Raises DatabaseUnavailable for errors of the server and the connection.

    Any other error is a defect.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await query
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable("the database does not answer", retry_after_s=RETRY_AFTER_S) from error


def _record_from_row(row: Mapping[str, Any]) -> InsightRecord:
    return InsightRecord(id=row["conversation_id"], insight=_insight(row), **{name: row[name] for name in _SAME_NAME})


def _insight(row: Mapping[str, Any]) -> Insight | None:
    if row["sentiment"] is None:
        return None
    return Insight(
        topics=tuple(row["topics"] or ()),
        extra=msgspec.json.decode(row["extra"]) if row["extra"] is not None else {},  # asyncpg returns JSON as text
        **{name: row[name] for name in _INSIGHT_FIELDS},
    )
