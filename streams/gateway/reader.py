"""Reads insights from Postgres, always for one tenant. The pool connects when used, so Postgres may come later."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import asyncpg

from streams.gateway.cursor import Cursor
from streams.gateway.filters import InsightFilter
from streams.gateway.insight_record import InsightRecord, record_from_row
from streams.gateway.parts import DatabaseUnavailable

READ_TIMEOUT_S = 5.0
RETRY_AFTER_S = 5.0
POOL_MAX_CONNECTIONS = 10

_QUERIES = Path(__file__).parent / "queries"
_CONVERSATION_BY_ID = (_QUERIES / "conversation_by_id.sql").read_text()
_INSIGHTS_PAGE = (_QUERIES / "insights_page.sql").read_text()
_TABLE_EXISTS = (_QUERIES / "table_exists.sql").read_text()

_Answer = TypeVar("_Answer")
#: A server that is gone, starting, stopping, full or not migrated yet, and a pool that is closing.
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


async def open_pool(database_url: str) -> asyncpg.Pool:
    """A pool that has no connection yet; raises ValueError for a URL that is none."""
    return await asyncpg.create_pool(
        database_url,
        min_size=0,
        max_size=POOL_MAX_CONNECTIONS,
        timeout=READ_TIMEOUT_S,
        command_timeout=READ_TIMEOUT_S,
        server_settings={"application_name": "grok-insights gateway"},
    )


class PostgresReader:
    """See InsightReader; every question is answered or given up within READ_TIMEOUT_S."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def conversation(self, tenant: str, conversation_id: str) -> InsightRecord | None:
        row = await _answered(self._pool.fetchrow(_CONVERSATION_BY_ID, tenant, conversation_id))
        return None if row is None else record_from_row(dict(row))

    async def insights(
        self, tenant: str, wanted: InsightFilter, after: Cursor | None, limit: int
    ) -> list[InsightRecord]:
        where, parameters = wanted.where(tenant)
        if after is not None:
            where += f" AND (occurred_at, conversation_id) < (${len(parameters) + 1}, ${len(parameters) + 2})"
            parameters += [after.occurred_at, after.id]
        parameters.append(limit)
        sql = _INSIGHTS_PAGE.format(where=where, limit=f"${len(parameters)}")
        return [record_from_row(dict(row)) for row in await _answered(self._pool.fetch(sql, *parameters))]

    async def check(self) -> None:
        """Passes when Postgres answers now and has the table; raises DatabaseUnavailable otherwise."""
        if not await _answered(self._pool.fetchval(_TABLE_EXISTS)):
            raise DatabaseUnavailable("the table insights is missing: run `grok-insights migrate`")


async def _answered(question: Awaitable[_Answer]) -> _Answer:
    """Foreign errors become ours here. What is left is a defect of ours and is answered as such."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await question
    except _UNAVAILABLE as error:
        raise DatabaseUnavailable("the database cannot answer", retry_after_s=RETRY_AFTER_S) from error
