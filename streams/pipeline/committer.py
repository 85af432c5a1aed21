"""Commits the unbroken finished runs, every few hundred milliseconds."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from faust.types import TP

from streams.pipeline.assignment import Assignment

COMMIT_EVERY_S = 0.3

#: The partitions whose offsets the broker has taken.
CommitOffsets = Callable[[Mapping[TP, int]], Awaitable[Collection[TP]]]


class Committer:
    """Commits only for live trackers of the given generation; what the broker does not take is due again."""

    def __init__(self, assignment: Assignment, commit: CommitOffsets) -> None:
        self._assignment = assignment
        self._commit = commit

    async def run(self, generation: Callable[[], int]) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self.commit_due(generation())

    async def commit_due(self, generation: int) -> None:
        """One commit of everything that is due, if anything is."""
        due = self._assignment.due(generation)
        if due:
            for tp in await self._commit({tp: offset for tp, (_, offset) in due.items()}):
                tracker, offset = due[tp]
                tracker.committed = offset
