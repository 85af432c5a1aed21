"""Waits for what the service stores."""

import asyncio

import asyncpg


async def count_rows(rows: asyncpg.Connection, count: int, *, within_s: float) -> None:
    """Returns when there are at least `count` rows."""
    try:
        async with asyncio.timeout(within_s):
            while await rows.fetchval("SELECT count(*) FROM insights") < count:
                await asyncio.sleep(0.2)
    except TimeoutError:
        found = await rows.fetchval("SELECT count(*) FROM insights")
        raise AssertionError(f"{found} of {count} rows within {within_s:g} s") from None
