"""Fence: no call is paid for by a worker that may have lost its partitions, or is about to give them up."""

import asyncio

from agents.limits.retry import NoLongerWanted
from streams.engine.membership import GroupLease

_LOOK_AGAIN_S = 0.1


class Fence:
    """Closed from the beginning of a drain to the next assignment, and whenever the lease is not held."""

    def __init__(self, lease: GroupLease) -> None:
        self._lease = lease
        self._is_closed = False
        self._watch: asyncio.Task[None] | None = None

    def open(self) -> None:
        """An assignment begins."""
        self._is_closed = False

    def close(self) -> None:
        """The assignment ends: a call that began now would be cut off, and paid for again by the next owner."""
        self._is_closed = True

    async def wait_open(self) -> None:
        """Returns while the lease is held. Raises NoLongerWanted when the assignment ends.

        Hundreds of calls may wait for the lease; one task looks for all of them.
        """
        while not (self._is_closed or self._lease.is_held):
            if self._watch is None or self._watch.done():
                self._watch = asyncio.create_task(self._until_changed(), name="fence")
            await asyncio.shield(self._watch)
        if self._is_closed:
            raise NoLongerWanted("the assignment ends")

    async def _until_changed(self) -> None:
        # The lease is renewed from the consumer's thread, and it also expires by itself.
        while not (self._is_closed or self._lease.is_held):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN_S)
