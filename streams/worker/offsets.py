"""Tracker: the offsets of one partition in one assignment, finished in any order and committed without a gap.

Pure. The reader delivers a partition's records in order, so a jump in offsets means that the log has none there
(compaction, transaction markers).
"""

from collections import deque
from collections.abc import Sequence

from aiokafka import TopicPartition


class Tracker:
    """One object for each partition of an assignment, so that late work can only reach its own, revoked tracker."""

    __slots__ = ("_finished", "_open", "committable", "committed", "is_revoked", "next", "partition", "tp")

    def __init__(self, tp: TopicPartition, start: int) -> None:
        self.tp = tp
        self.partition: int = tp.partition
        #: The lowest offset that may be admitted next; what a new reader delivers again lies below it.
        self.next = start
        #: The end of the unbroken run of finished records, once there is one.
        self.committable: int | None = None
        #: What the broker has taken.
        self.committed: int | None = None
        self.is_revoked = False
        #: Offsets that were admitted and not passed by `committable` yet, in order.
        self._open: deque[int] = deque()
        #: Those of them that are finished behind an unfinished one.
        self._finished: set[int] = set()

    def admit(self, offsets: Sequence[int]) -> None:
        """Opens the offsets, in order. Raises ValueError when one was admitted before, or after the revocation."""
        for offset in offsets:
            if self.is_revoked or offset < self.next:
                raise ValueError(f"offset {offset} comes after {self.next - 1} in a partition that is read in order")
            self.next = offset + 1
            self._open.append(offset)

    def finish(self, offset: int) -> None:
        """Moves `committable` over the unbroken finished run; does nothing after the revocation.

        Raises ValueError for an offset that is not open: finishing a record twice is a defect.
        """
        if self.is_revoked:
            return
        waiting, finished = self._open, self._finished
        if not waiting or offset in finished or not waiting[0] <= offset < self.next:
            raise ValueError(f"offset {offset} is not open")
        if offset != waiting[0]:
            finished.add(offset)
            return
        last = waiting.popleft()
        while waiting and waiting[0] in finished:
            last = waiting.popleft()
            finished.remove(last)
        self.committable = last + 1

    @property
    def resume_at(self) -> int:
        """Where the next owner has to begin to read."""
        unfinished = self._open[0] if self._open else self.next
        return unfinished if self.committable is None else self.committable

    def due(self) -> int | None:
        """The offset to commit, or None when there is nothing new; nothing is due of a revoked tracker."""
        if self.is_revoked or self.committable == self.committed:
            return None
        return self.committable

    def revoke(self) -> None:
        """The assignment is over: from here on nothing of it is finished or committed."""
        self.is_revoked = True
        self._open.clear()
        self._finished.clear()
