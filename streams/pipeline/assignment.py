"""The trackers of the partitions that are assigned now, and the work under way for them."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from faust.types import TP

from agents.analyse import KEEP_S
from streams.pipeline.offsets import Tracker

Key = tuple[TP, int]  # a partition in a generation


class Assignment:
    """Owns trackers and tasks from the first record of an assignment until it is revoked."""

    def __init__(self) -> None:
        self._trackers: dict[Key, Tracker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: From the beginning of a drain until the next assignment: what begins now would be cut off.
        self.is_ending = False
        #: Whether no record is admitted any more, in this assignment or a later one.
        self.is_halted = False

    @property
    def is_open(self) -> bool:
        """Whether records are admitted: not between the end of one assignment and the next, nor when halted."""
        return not self.is_ending and not self.is_halted

    def halt(self) -> None:
        """For good: nothing more is admitted. Work under way goes on, and what it finishes may be committed."""
        self.is_halted = True

    def tracker(self, key: Key) -> Tracker | None:
        """The tracker of that partition and generation, if one was opened and lives."""
        return self._trackers.get(key)

    def open(self, key: Key, expected: int) -> Tracker:
        """A new tracker whose first record must stand at `expected`."""
        tracker = self._trackers[key] = Tracker(expected)
        return tracker

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs the work of one record as a task that `drain` waits for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def due(self, generation: int) -> Mapping[TP, tuple[Tracker, int]]:
        """What can be committed for the given generation: partition to its tracker and offset."""
        return {
            tp: (tracker, offset)
            for (tp, of_generation), tracker in self._trackers.items()
            if of_generation == generation and (offset := tracker.due()) is not None
        }

    async def drain(self, within_s: float) -> None:
        """Admits nothing more, gives work under way a bounded time, then cancels it.

        What is being kept by then is still kept, within KEEP_S.
        """
        self.is_ending = True
        if not self._tasks:
            return
        _, late = await asyncio.wait(set(self._tasks), timeout=within_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=KEEP_S)

    def reopen(self) -> None:
        """A new assignment begins."""
        self.is_ending = False

    def revoke(self) -> None:
        """Every tracker dies: a late finish or commit reaches nothing."""
        for tracker in self._trackers.values():
            tracker.revoke()
        self._trackers.clear()

    @property
    def in_flight(self) -> int:
        """Records in work."""
        return len(self._tasks)
