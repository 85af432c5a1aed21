"""Faults of workers; at the end of each, all affected workers run again."""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from tests.chaos.fleet import WORKERS_MAX, WORKERS_MIN, Fleet, Member
from tests.chaos.schedule import Fault
from tests.support.waiting import became_true

#: Longer than the group's session timeout of 10 s: the others get the frozen worker's partitions, and work on them.
_FREEZE_S = (13.0, 19.0)
#: Log lines of an assignment and of its restored table, and about the time between them.
_ASSIGNED, _RESTORED = "partitions_assigned", "partitions_ready"
_RECOVERY_S = 0.7
_ASSIGNED_WITHIN_S = 40.0
#: Another broker coordinates the group by then.
_TAKEN_OVER_S = 8.0


class WorkerFaults:
    """Counts faults that really happened, by name."""

    def __init__(self, fleet: Fleet, without_coordinator: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._fleet, self._without_coordinator = fleet, without_coordinator

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
            "thawed_without_coordinator": self._thawed_without_coordinator,
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
        was_there = self._fleet.lose_tables(member)
        self._fleet.start(member)
        self._happened("killed_and_table_lost", hit=was_there)

    async def _killed_and_table_torn(self, source: random.Random) -> None:
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        was_there = self._fleet.tear_table(member, source)
        self._fleet.start(member)
        self._happened("killed_and_table_torn", hit=was_there)

    async def _killed_in_recovery(self, source: random.Random) -> None:
        """A second time, while it restores its table, the whole of which is lost."""
        member = await self._fleet.pick(source)
        await self._fleet.kill(member)
        self._fleet.lose_tables(member)
        since = member.log_bytes()
        self._fleet.start(member)
        if await _until(lambda: member.logged(_ASSIGNED, since)):
            await asyncio.sleep(source.uniform(0, _RECOVERY_S))
        await self._fleet.kill(member)
        in_recovery = member.logged(_ASSIGNED, since) > member.logged(_RESTORED, since)
        self._happened("killed_in_recovery", hit=in_recovery)
        self._fleet.start(member)

    async def _all_killed(self, source: random.Random) -> None:
        living = self._fleet.living
        for member in living:
            await self._fleet.kill(member)
        for member in living:
            self._fleet.start(member)
        self._happened("all_killed")

    async def _successor_killed_while_frozen(self, source: random.Random) -> None:
        """Kills the worker that gets the partitions of a frozen one."""
        self._fleet.fill_up(WORKERS_MIN)
        frozen = await self._fleet.pick(source)
        since = {member: member.log_bytes() for member in self._fleet.members if member is not frozen}

        def successors() -> list[Member]:
            """Workers that were given partitions after the freeze."""
            living = [member for member in self._fleet.living if member is not frozen]
            return [member for member in living if member.logged(_ASSIGNED, since[member])]

        with self._fleet.frozen(frozen):
            await _until(successors)
            if successor := next(iter(successors()), None):
                await self._fleet.kill(successor)
                self._fleet.start(successor)
                self._happened("successor_killed_while_frozen")

    async def _frozen(self, source: random.Random) -> None:
        with self._fleet.frozen(await self._fleet.pick(source)):
            await asyncio.sleep(source.uniform(*_FREEZE_S))
        self._happened("frozen")

    async def _thawed_without_coordinator(self, source: random.Random) -> None:
        """It cannot learn that it was replaced: its coordinator is dead, and no other broker has the group yet."""
        async with AsyncExitStack() as until_taken_over:
            with self._fleet.frozen(await self._fleet.pick(source)):
                await asyncio.sleep(source.uniform(*_FREEZE_S))
                await until_taken_over.enter_async_context(self._without_coordinator())
            await asyncio.sleep(_TAKEN_OVER_S)
        self._happened("thawed_without_coordinator")

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

    def _happened(self, name: str, *, hit: bool = True) -> None:
        self._fleet.happened[name] += hit


async def _until(condition: Callable[[], object]) -> bool:
    """Whether it became true in time: with a member gone the group may take a session and a rebalance."""
    return await became_true(lambda: asyncio.to_thread(condition), _ASSIGNED_WITHIN_S, 0.05)
