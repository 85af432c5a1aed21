"""Faults of the workers' dependencies: Grok, Postgres and the brokers. Each is undone at its end."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

from tests.chaos.admin import admin_of
from tests.chaos.cluster import NODES, Cluster
from tests.chaos.database_faults import DatabaseFaults
from tests.chaos.grok import TROUBLES, Grok
from tests.chaos.repeated_calls import Outage
from tests.chaos.schedule import Fault
from tests.support.topics import TOPICS
from tests.support.waiting import became_true

_KAFKA_FROZEN_S = 30.0
#: New leaders are elected and found by clients, after a broker died or all were thawed.
_ELECTIONS_S = 20.0
_NORMAL_AGAIN_WITHIN_S = 60.0
#: All workers may be down, or wait for a broker; a fault that hits nothing does not count.
_WRITTEN_TO_WITHIN_S = 20.0


class Infrastructure:
    """Counts faults that hit something, by name. `given_up` is called just before frozen brokers resume."""

    def __init__(self, cluster: Cluster, database: DatabaseFaults, grok: Grok, given_up: Callable[[], None]) -> None:
        self._cluster, self._database, self._grok, self._given_up = cluster, database, grok, given_up
        self.happened: Counter[str] = Counter()
        self.outages: list[Outage] = []

    @property
    def by_name(self) -> Mapping[str, Fault]:
        """For the schedule."""
        return {
            "postgres_killed": self._postgres_killed,
            "postgres_frozen": self._postgres_frozen,
            "postgres_slow": self._postgres_slow,
            "postgres_cut": self._postgres_cut,
            "kafka_frozen": self._kafka_frozen,
            "broker_killed": self._broker_killed,
            "broker_restarted": self._broker_restarted,
            **{name: partial(self._grok_trouble, name) for name in TROUBLES},
        }

    async def _postgres_killed(self, source: random.Random) -> None:
        hits = await self._database.until_written_to(_WRITTEN_TO_WITHIN_S)
        await asyncio.to_thread(self._database.kill)
        try:
            await asyncio.sleep(source.uniform(2, 8))
        finally:
            await asyncio.to_thread(self._database.restart)
        self.happened["postgres_killed"] += hits

    async def _postgres_frozen(self, source: random.Random) -> None:
        hits = await self._database.until_written_to(_WRITTEN_TO_WITHIN_S)
        await asyncio.to_thread(self._database.freeze)
        try:
            await asyncio.sleep(source.uniform(5, 15))
        finally:
            await asyncio.to_thread(self._database.thaw)
        self.happened["postgres_frozen"] += hits

    async def _postgres_slow(self, source: random.Random) -> None:
        await self._database.until_written_to(_WRITTEN_TO_WITHIN_S)
        is_slow = await self._database.slow_commits(source.uniform(0.3, 1.5))
        try:
            before = await self._database.slowed()
            await asyncio.sleep(source.uniform(6, 10))
            is_slow = is_slow and await self._database.slowed() > before
        finally:
            is_normal = await became_true(self._database.normal_commits, _NORMAL_AGAIN_WITHIN_S, 0.5)
            assert is_normal, f"commits are still slow after {_NORMAL_AGAIN_WITHIN_S:g} s"
        self.happened["postgres_slow"] += is_slow

    async def _postgres_cut(self, source: random.Random) -> None:
        for _ in range(3):
            await self._database.until_written_to(_WRITTEN_TO_WITHIN_S)
            self.happened["postgres_cut"] += await self._database.cut_connections() > 0
            await asyncio.sleep(source.uniform(0.5, 2))

    async def _kafka_frozen(self, source: random.Random) -> None:
        began_s = time.time()
        await asyncio.to_thread(self._cluster.freeze)
        try:
            await asyncio.sleep(_KAFKA_FROZEN_S)
        finally:
            self._given_up()
            await asyncio.to_thread(self._cluster.thaw)
            self._was_away(began_s)
        self.happened["kafka_frozen"] += 1

    async def _broker_killed(self, source: random.Random) -> None:
        async with self._without(source.choice(NODES)):
            await asyncio.sleep(source.uniform(3, 8))
        self.happened["broker_killed"] += 1

    async def _broker_restarted(self, source: random.Random) -> None:
        node, began_s = source.choice(NODES), time.time()
        await asyncio.to_thread(self._cluster.terminate, node)
        await asyncio.to_thread(self._cluster.restart, node)
        self._was_away(began_s)
        self.happened["broker_restarted"] += 1

    @asynccontextmanager
    async def without_coordinator(self) -> AsyncIterator[None]:
        """Kills the broker that coordinates the workers' group, and restarts it at the end."""
        async with admin_of(self._cluster.bootstrap_servers) as admin:
            node = await admin.find_coordinator(TOPICS.consumer_group)
        async with self._without(node):
            yield

    @asynccontextmanager
    async def _without(self, node: int) -> AsyncIterator[None]:
        began_s = time.time()
        await asyncio.to_thread(self._cluster.kill, node)
        try:
            yield
        finally:
            await asyncio.to_thread(self._cluster.restart, node)
            self._was_away(began_s)

    async def _grok_trouble(self, name: str, source: random.Random) -> None:
        self.happened[name] += await self._grok.trouble(name, source) > 0

    def _was_away(self, began_s: float) -> None:
        self.outages.append(Outage(began_s, time.time() + _ELECTIONS_S))
