"""Postgres goes away under load: intake stops, memory stays flat, and the full rate returns soon after.

GROK_INSIGHTS_OUTAGE_S sets the length of the outage: 600 tests the promise of ten minutes.
"""

import asyncio
import os
import re
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from streams.app import MIN_OPEN_RECORDS
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.postgres import Postgres
from tests.e2e.steady_feed import SteadyFeed
from tests.support.process_tree import continue_tree, kill_tree, stop_tree
from tests.support.processes import Process, Service, get
from tests.support.topics import fresh_prefix
from tests.support.waiting import became_true, eventually, wait_until

OUTAGE_S = float(os.environ.get("GROK_INSIGHTS_OUTAGE_S", "8"))
#: Buffers have filled by then.
FILLED_AFTER_S = 4.0
BACK_WITHIN_S = 30.0
MAX_IN_FLIGHT = 120
PER_S = 60
#: Large conversations on top of the steady ones, 90 MB in all: what buffers hold of them is what they hold of any.
BURST = 3_000
BURST_CHARS = 30_000
MAX_GROWTH_MIB = 32


@pytest.fixture
def service(
    broker: Tansu | Kafka, postgres_of_its_own: Postgres, tmp_path: Path, group_timeouts: dict[str, str]
) -> Iterator[Service]:
    settings = {**group_timeouts, "MAX_IN_FLIGHT": str(MAX_IN_FLIGHT), "LOG_LEVEL": "info"}
    servers, database_url = broker.bootstrap_servers, postgres_of_its_own.url
    with Service(tmp_path, servers, database_url, prefix=fresh_prefix(), **settings) as service:
        service.create_topics()
        service.start_standin("--latency-min-s", "0.1", "--latency-max-s", "0.3")
        yield service


@dataclass(frozen=True)
class Moment:
    """What can be seen from outside while there is no database."""

    calls: int
    in_flight: int
    rss_mib: float
    produced: int


@dataclass
class Watch:
    """One worker under load."""

    service: Service
    worker: Process
    feed: SteadyFeed
    url: str

    def now(self) -> Moment:
        stats = wait_until(lambda: self.service.standin("control/stats"), timeout_s=20, what="the stand-in answers")
        in_flight = wait_until(self._in_flight, timeout_s=20, what="the worker exposes its metrics")
        return Moment(stats["calls"], int(float(in_flight[1])), _rss_mib(self.worker.process.pid), self.feed.confirmed)

    def _in_flight(self) -> re.Match[str] | None:
        metrics = get(f"{self.worker.url}/metrics")[1].decode()
        return re.search(r"^conversations_in_flight (\S+)", metrics, re.MULTILINE)

    async def moments(self, seconds: float) -> list[Moment]:
        """One a second."""
        end_s = time.monotonic() + seconds
        seen = [await asyncio.to_thread(self.now)]
        while time.monotonic() < end_s:
            await asyncio.sleep(min(1.0, max(0.0, end_s - time.monotonic())))
            seen.append(await asyncio.to_thread(self.now))
        return seen

    async def rows(self) -> int:
        """All of them."""
        return await self._count("SELECT count(*) FROM insights")

    async def has_rows(self, count: int) -> bool:
        return await self.rows() >= count

    async def analysed(self) -> int:
        """Those that a call was made for."""
        return await self._count("SELECT count(*) FROM insights WHERE outcome = 'analysed'")

    async def _count(self, query: str) -> int:
        async with asyncio.timeout(BACK_WITHIN_S):
            connection = await asyncpg.connect(self.url)
            try:
                found: int = await connection.fetchval(query)
            finally:
                await connection.close()
        return found

    async def rate(self, seconds: float) -> float:
        """Conversations analysed a second."""
        before, since_s = await self.analysed(), time.monotonic()
        await asyncio.sleep(seconds)
        return (await self.analysed() - before) / (time.monotonic() - since_s)


@pytest.fixture
async def watch(service: Service, postgres_of_its_own: Postgres) -> AsyncIterator[Watch]:
    worker = await asyncio.to_thread(service.start_worker, "worker")
    async with SteadyFeed(service, PER_S) as feed:
        watch = Watch(service, worker, feed, postgres_of_its_own.url)
        await eventually(lambda: watch.has_rows(3 * PER_S), timeout_s=60)
        yield watch


@pytest.mark.slow
@pytest.mark.timeout(2 * OUTAGE_S + 240)
@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_an_outage_of_postgres_passes(watch: Watch, postgres_of_its_own: Postgres, how: str) -> None:
    """Work in flight is bounded, no call is made once it is full, nothing accumulates or is lost."""
    await _outage(how, watch, postgres_of_its_own)
    await watch.feed.stop()
    await _all_rows(watch)
    assert await asyncio.to_thread(watch.worker.stop) == 0


async def _outage(how: str, watch: Watch, server: Postgres) -> None:
    go, come = _ways(server)[how]
    rate_before = await watch.rate(3)
    before = await asyncio.to_thread(watch.now)
    await asyncio.to_thread(go)
    await watch.feed.burst(2 * MIN_OPEN_RECORDS, 100)
    await asyncio.sleep(FILLED_AFTER_S)
    filled = await asyncio.to_thread(watch.now)
    await watch.feed.burst(BURST, BURST_CHARS)
    outage = [filled, *await watch.moments(OUTAGE_S - FILLED_AFTER_S)]
    await asyncio.to_thread(come)
    full_rate_after_s = await _full_rate_again(watch, min(rate_before, PER_S), time.monotonic())
    growth_mib = max(moment.rss_mib for moment in outage) - filled.rss_mib
    over_time_mib = [round(moment.rss_mib) for moment in outage[:: max(1, len(outage) // 10)]]
    print(
        f"{how} for {OUTAGE_S:g} s: rate before {rate_before:.0f}/s, full rate after {full_rate_after_s:.1f} s; "
        f"in flight {before.in_flight} -> {outage[-1].in_flight}; RSS grew by {growth_mib:.1f} MiB, {over_time_mib}, "
        f"while {outage[-1].produced - filled.produced} came in; "
        f"calls {before.calls} -> {filled.calls} -> {outage[-1].calls}"
    )
    assert {moment.in_flight > MAX_IN_FLIGHT for moment in outage} == {True}  # intake has stopped
    assert {moment.in_flight <= MIN_OPEN_RECORDS for moment in outage} == {True}
    assert filled.calls - before.calls <= MIN_OPEN_RECORDS + 2 * rate_before  # some end before it is gone
    assert outage[-1].calls == filled.calls
    assert outage[-1].produced - filled.produced > BURST
    assert growth_mib <= MAX_GROWTH_MIB


async def _full_rate_again(watch: Watch, rate: float, since_s: float) -> float:
    """Seconds until the rate of two seconds has reached the one before; what was in flight is not counted."""
    in_flight = await watch.analysed() + MAX_IN_FLIGHT

    async def is_through() -> bool:
        return await watch.analysed() >= in_flight

    await became_true(is_through, BACK_WITHIN_S)
    while (again := await watch.rate(2)) < 0.9 * rate:
        assert time.monotonic() - since_s < BACK_WITHIN_S, f"only {again:.0f}/s of {rate:.0f}/s"
    return time.monotonic() - since_s


async def _all_rows(watch: Watch) -> None:
    """One for each conversation that was confirmed to the feed, and no other."""
    timeout_s = 90 + 2 * OUTAGE_S  # and the backlog
    await eventually(lambda: watch.has_rows(watch.feed.confirmed), timeout_s=timeout_s)
    assert await watch.rows() == watch.feed.confirmed


def _ways(server: Postgres) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """How it goes, and how it comes back."""
    assert server.pid is not None
    pid = server.pid

    def start_again() -> None:
        server.launch()
        server.await_ready()

    return {
        "killed": (lambda: kill_tree(pid), start_again),
        "frozen": (lambda: stop_tree(pid), lambda: continue_tree(pid)),
    }


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
