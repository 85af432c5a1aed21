"""Counts of calls to the provider: from the stand-in, and from the workers' metrics."""

import asyncio
from collections.abc import Sequence

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Fatal
from streams.demo.figures import Calls

_METRIC = "grok_calls_total"
_TIMEOUT_S = 10


async def count_calls(standin_url: str | None, metrics_urls: Sequence[str]) -> Calls:
    """Raises Fatal when one of them does not answer."""
    try:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), raise_for_status=True
        ) as session:
            by_workers = await asyncio.gather(*(_by_worker(session, url) for url in metrics_urls))
            by_standin = await _by_standin(session, standin_url) if standin_url else None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Fatal("the calls could not be counted", str(error) or type(error).__name__) from error
    return Calls(by_standin, sum(by_workers))


async def _by_standin(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/control/stats") as response:
        return int((await response.json())["calls"])


async def _by_worker(session: aiohttp.ClientSession, metrics_url: str) -> int:
    async with session.get(metrics_url) as response:
        return calls_in(await response.text())


def calls_in(exposition: str) -> int:
    """The calls that a worker's metrics tell of, in Prometheus' text format."""
    families = text_string_to_metric_families(exposition)
    return int(sum(sample.value for family in families for sample in family.samples if sample.name == _METRIC))
