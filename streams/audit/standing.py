"""Where the group stands in one input partition, against what the log holds there. Pure; does no I/O."""

from typing import NamedTuple


class Standing(NamedTuple):
    """`begin` was asked for before `committed`, and `end` after it, so that a group at work never seems at fault.

    `committed` is None where the group has never committed.
    """

    begin: int
    committed: int | None
    end: int

    @property
    def due(self) -> int:
        """The offset below which every record must have its end.

        The log's begin where the committed offset is none of this log's: workers read it from there, too.
        """
        if self.committed is None:
            return 0
        return self.begin if self.ahead else self.committed

    @property
    def lost(self) -> int:
        """Offsets that were removed before the group committed them."""
        return 0 if self.committed is None else max(0, self.begin - self.committed)

    @property
    def ahead(self) -> int:
        """Committed offsets that the log does not have."""
        return 0 if self.committed is None else max(0, self.committed - self.end)

    @property
    def unchecked(self) -> int:
        """Removed offsets of which nobody can tell any more whether the group read them."""
        return self.begin if self.committed is None else 0
