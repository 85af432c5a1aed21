"""The offsets of one partition in one assignment: which record must come next, and up to where all work is done.

Pure. Faust's own positions and acks lose records under rebalances (infra/adr/0002), so nothing here is taken from them.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto


class Verdict(Enum):
    """What to do with a record that has come."""

    NEXT = auto()  # the expected one: admit it
    REPEAT = auto()  # seen before: drop it
    JUMP = auto()  # further on than expected: ask the log whether the hole is real


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one record between being read and being finished; `timestamp_s` is the record's, for its age."""

    offset: int
    timestamp_s: float
    finished: bool = False


@dataclass(slots=True, eq=False)
class Tracker:
    """One object for each (partition, generation), so that a late finish can only reach its own, dead tracker."""

    expected: int
    committable: int | None = None
    committed: int | None = None
    dead: bool = False
    _open: deque[Slot] = field(default_factory=deque)
    #: When the pump last looked into the log for this partition, and last sought it back.
    looked_at_s: float | None = None
    sought_at_s: float | None = None
    _hole_ends_at: int | None = None

    def judge(self, offset: int) -> Verdict:
        """A record at `offset` has come; a hole that `confirm_hole` was told of is no jump."""
        if offset < self.expected:
            return Verdict.REPEAT
        if offset == self.expected or offset == self._hole_ends_at:
            return Verdict.NEXT
        return Verdict.JUMP

    def confirm_hole(self, next_in_log: int) -> None:
        """The log holds nothing from `expected` up to `next_in_log`: compaction or transaction markers."""
        self._hole_ends_at = next_in_log

    @property
    def is_hole_known(self) -> bool:
        """Whether the log was asked since the last admitted record; a look for each record of a jump would be slow."""
        return self._hole_ends_at is not None

    def admit(self, offset: int, timestamp_s: float) -> Slot:
        """Opens the slot of the next record, before anything is awaited for it: a later slot could be another's."""
        if self.dead or self.judge(offset) is not Verdict.NEXT:
            raise ValueError(f"offset {offset} is not the next one after {self.expected - 1}")
        self.expected = offset + 1
        self._hole_ends_at = None
        slot = Slot(offset, timestamp_s)
        self._open.append(slot)
        return slot

    def finish(self, slot: Slot) -> None:
        """Slots finish in any order; what may be committed is the end of the unbroken finished run."""
        if self.dead:
            return
        slot.finished = True
        while self._open and self._open[0].finished:
            self.committable = self._open.popleft().offset + 1

    def due(self) -> int | None:
        """The offset to commit, or None when there is nothing new; nothing is ever due of a dead tracker."""
        if self.dead or self.committable == self.committed:
            return None
        return self.committable

    def revoke(self) -> None:
        """The assignment is over: from here on nothing of it is finished or committed."""
        self.dead = True
        self._open.clear()

    @property
    def oldest_open_timestamp_s(self) -> float | None:
        """Time stamp of the record that holds the offset back; None when nothing is open."""
        return self._open[0].timestamp_s if self._open else None
