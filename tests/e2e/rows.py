"""Waits for what the service stores."""

import asyncpg

from tests.support.waiting import eventually

_COUNT = "SELECT count(*) FROM insights"


async def count_rows(rows: asyncpg.Connection, count: int, *, timeout_s: float, where: str = "true") -> None:
    """Returns when there are at least `count` rows for which the condition `where` holds."""
    query = f"{_COUNT} WHERE {where}"

    async def are_there() -> bool:
        return bool(await rows.fetchval(query) >= count)

    try:
        await eventually(are_there, timeout_s=timeout_s)
    except AssertionError:
        found = await rows.fetchval(query)
        raise AssertionError(f"{found} of {count} rows within {timeout_s:g} s") from None
