"""What is done to workers; each fault ends with all that it hurt running again."""

import asyncio
import random
from collections.abc import Mapping

from tests.chaos.fleet import WORKERS_MAX, WORKERS_MIN, Fleet
from tests.chaos.schedule import Fault


class WorkerFaults:
    """Counts those that really happened under their names."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @property
    def by_name(self) -> Mapping[str, Fault]:
        """For the schedule."""
        return {
            "killed": self._killed,
            "killed_and_table_lost": self._killed_and_table_lost,
            "killed_and_table_torn": self._killed_and_table_torn,
            "killed_in_recovery": self._killed_in_recovery,
            "all_killed": self._all_killed,
            "successor_killed_while_frozen": self._successor_killed_while_frozen,
            "frozen": self._frozen,
            "stopped": self._stopped,
            "churn": self._churn,
        }

    async def _killed(self, source: random.Random) -> None:
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        await asyncio.sleep(source.uniform(0, 3))
        self._fleet.start(member)
        self._happened("killed")

    async def _killed_and_table_lost(self, source: random.Random) -> None:
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        self._fleet.lose_tables(member)
        self._fleet.start(member)
        self._happened("killed_and_table_lost")

    async def _killed_and_table_torn(self, source: random.Random) -> None:
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        self._fleet.tear_table(member, source)
        self._fleet.start(member)
        self._happened("killed_and_table_torn")

    async def _killed_in_recovery(self, source: random.Random) -> None:
        """A second time, at any moment between its start and its first record; its whole table is to be restored."""
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        self._fleet.lose_tables(member)
        self._fleet.start(member)
        await asyncio.sleep(source.uniform(2, 8))
        if not await asyncio.to_thread(member.is_ready):
            self._happened("killed_in_recovery")
        await self._fleet.kill(member)
        self._fleet.start(member)

    async def _all_killed(self, source: random.Random) -> None:
        living = self._fleet.living
        for member in living:
            await self._fleet.kill(member)
        for member in living:
            self._fleet.start(member)
        self._happened("all_killed")

    async def _successor_killed_while_frozen(self, source: random.Random) -> None:
        """Whoever gets the frozen one's partitions dies with them."""
        self._fleet.fill_up(WORKERS_MIN)
        freezing = asyncio.create_task(self._fleet.freeze(await self._fleet.pick(source), source))
        await asyncio.sleep(source.uniform(11, 13))
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        self._fleet.start(member)
        await freezing
        self._happened("successor_killed_while_frozen")

    async def _frozen(self, source: random.Random) -> None:
        await self._fleet.freeze(await self._fleet.pick(source), source)
        self._happened("frozen")

    async def _stopped(self, source: random.Random) -> None:
        member = await self._fleet.pick(source)
        await self._fleet.stop(member)
        await asyncio.sleep(source.uniform(0, 2))
        self._fleet.start(member)
        self._happened("stopped")

    async def _churn(self, source: random.Random) -> None:
        """Workers join and leave in quick succession."""
        for _ in range(2):
            self._fleet.fill_up(WORKERS_MAX)
            await asyncio.sleep(source.uniform(0.5, 3))
            if len(self._fleet.living) > WORKERS_MIN:
                await self._fleet.stop(await self._fleet.pick(source))
        self._happened("churn")

    def _happened(self, name: str) -> None:
        self._fleet.happened[name] += 1
