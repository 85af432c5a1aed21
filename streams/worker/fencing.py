"""Fence: no call is paid for by a worker that may have lost its partitions, or is about to give them up."""

from agents.limits.retry import NoLongerWanted
from streams.engine.membership import GroupLease


class Fence:
    """Closed from the beginning of a drain to the next assignment, and whenever the lease is not held."""

    def __init__(self, lease: GroupLease) -> None:
        self._lease = lease
        self._is_closed = False

    def open(self) -> None:
        """An assignment begins."""
        self._is_closed = False

    def close(self) -> None:
        """The assignment ends: a call that began now would be cut off, and paid for again by the next owner."""
        self._is_closed = True

    async def wait_open(self) -> None:
        """Waits for the lease. Raises NoLongerWanted while the assignment ends."""
        await self._lease.wait_held()
        if self._is_closed:
            raise NoLongerWanted("the assignment ends")
