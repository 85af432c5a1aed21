"""Reads what became of the conversations: rows from Postgres, calls from the stand-in and the workers' metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
import orjson
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Fatal
from streams.dev.demo.figures import Calls, Example, Row
from streams.dev.local.service import describe_exit, failure
from streams.dev.local.stack import Stack
from streams.terminal import Display

POLL_S = 0.1
#: Without a new row for this long, with everything posted, the demo is given up: no slow machine takes that long.
STALLED_AFTER_S = 60.0
_SHOWN_IDS = 5
_CALLS_METRIC = "grok_calls_total"
_HTTP_TIMEOUT_S = 10

_COUNT = "SELECT count(*) FROM insights"
_ROWS = """
    SELECT conversation_id, outcome, reason, received_at, analysed_at, text_key, cost_usd_ticks
    FROM insights
"""
_EXAMPLES = """
    SELECT conversation_id AS id, source, sentiment, sentiment_score, urgency, topics, intent, summary
    FROM insights WHERE outcome = 'analysed'
"""
_MISSING = """
    SELECT id FROM unnest($1::text[]) AS id
    WHERE NOT EXISTS (SELECT FROM insights WHERE conversation_id = id)
"""


class InsightsTable:
    """The table `insights` of the demo's own database: every row in it is one of the demo's."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def count(self) -> int:
        return int(await self._connection.fetchval(_COUNT))

    async def rows(self) -> list[Row]:
        return [Row(*record) for record in await self._connection.fetch(_ROWS)]

    async def insights(self) -> list[Example]:
        """Returns those of analysed conversations."""
        return [Example(**record) for record in await self._connection.fetch(_EXAMPLES)]

    async def missing(self, ids: Sequence[str]) -> list[str]:
        """Returns the ids without a row."""
        return [record["id"] for record in await self._connection.fetch(_MISSING, ids)]


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[InsightsTable]:
    """Connects for as long as the block runs. Raises Fatal when the database does not answer."""
    try:
        connection = await asyncpg.connect(database_url, command_timeout=20)
        try:
            yield InsightsTable(connection)
        finally:
            await connection.close(timeout=2)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Fatal("the demo's database does not answer", str(error) or type(error).__name__) from error


async def wait_for_rows(
    ids: Sequence[str], posting: "asyncio.Task[None]", table: InsightsTable, stack: Stack, display: Display
) -> None:
    """Returns when every id has its row.

    Raises Fatal when `posting` fails, a process of the stack ends, or no new row comes for STALLED_AFTER_S.
    """
    rows, changed_at_s = 0, time.monotonic()
    while True:
        is_posted = posting.done()
        if is_posted:
            posting.result()
        before, rows = rows, await table.count()
        display.reached("ended", rows)
        if is_posted and rows >= len(ids):
            return
        if rows != before or not is_posted:
            changed_at_s = time.monotonic()
        elif time.monotonic() - changed_at_s > STALLED_AFTER_S:
            raise await _stalled(ids, table, stack)
        _check_running(stack)
        await asyncio.sleep(POLL_S)


def _check_running(stack: Stack) -> None:
    for service in stack.services:
        if not service.is_one_shot and not service.is_running:
            why = f"it ended with {describe_exit(service.exit_code)}"
            raise failure(f"{service.name} ended during the demo", why, service.name, stack.log)


async def _stalled(ids: Sequence[str], table: InsightsTable, stack: Stack) -> Fatal:
    missing = await table.missing(ids)
    shown = ", ".join(missing[:_SHOWN_IDS]) + (", ..." if len(missing) > _SHOWN_IDS else "")
    return Fatal(
        f"{len(missing)} of {len(ids)} conversations have no row",
        f"no new row for {STALLED_AFTER_S:g} s; missing are {shown}",
        f"the log of all processes is {stack.log.path}",
    )


async def count_calls(standin_url: str | None, metrics_urls: Sequence[str]) -> Calls:
    """Raises Fatal when one of them does not answer."""
    timeout = aiohttp.ClientTimeout(total=_HTTP_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            expositions = await asyncio.gather(*(_text_of(session, url) for url in metrics_urls))
            stats = await _text_of(session, f"{standin_url}/control/stats") if standin_url else None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Fatal("the calls could not be counted", str(error) or type(error).__name__) from error
    return Calls(orjson.loads(stats)["calls"] if stats else None, sum(map(calls_in, expositions)))


async def _text_of(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as response:
        return await response.text()


def calls_in(exposition: str) -> int:
    """Returns the calls in a worker's metrics, which are in Prometheus' text format."""
    families = text_string_to_metric_families(exposition)
    samples = (sample for family in families for sample in family.samples)
    return int(sum(sample.value for sample in samples if sample.name == _CALLS_METRIC))
