"""What retention removed from the topics, and what the absence of a record, event or dead letter then proves. Pure."""

import math
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from schemas.kafka import Origin
from streams.operations.audit.observations import timestamp_us

#: How far the clocks of different writers may differ: close to the edge of retention an absence proves nothing.
CLOCK_SKEW_US = 5_000_000
#: Nothing was removed.
ALWAYS = -math.inf
#: Everything was removed, or its oldest record could not be read.
NEVER = math.inf


class PartitionOffsets(NamedTuple):
    """The group's offset in an input partition, None before the first commit, and the edges of the log.

    `beginning` must be read before `committed`, and `end` after it, so that a group at work causes no finding.
    """

    beginning: int
    committed: int | None
    end: int

    @property
    def due_below(self) -> int:
        """Offset below which every record must have an outcome.

        That is the log's beginning where the committed offset is not in this log: workers restart there.
        """
        if self.committed is None:
            return 0
        return self.beginning if self.ahead else self.committed

    @property
    def lost(self) -> int:
        """Offsets that retention removed before the group committed them."""
        return 0 if self.committed is None else max(0, self.beginning - self.committed)

    @property
    def ahead(self) -> int:
        """Committed offsets beyond the end of the log."""
        return 0 if self.committed is None else max(0, self.committed - self.end)

    @property
    def unverifiable(self) -> int:
        """Removed offsets that the group may or may not have read."""
        return self.beginning if self.committed is None else 0


class Absence(Enum):
    """What it means that the audit read no record at an origin."""

    PROVEN = auto()  # there is no such record: the audit read that range, or the log has no such offset or partition
    REMOVED = auto()  # retention may have removed it
    LATER = auto()  # it may have been written after the audit began


class ReadSpan(NamedTuple):
    """Beginning of a partition after the audit read it, and its end before and after that."""

    beginning: int
    end: int
    later_end: int


#: By topic and partition, for all input topics.
ReadSpans = Mapping[tuple[str, int], ReadSpan]


def absence_at(spans: ReadSpans, origin: Origin) -> Absence:
    """Says what the absence of a record at `origin` means."""
    span = spans.get((origin.topic, origin.partition))
    if span is None or origin.offset >= span.later_end:
        return Absence.PROVEN
    if origin.offset < span.beginning:
        return Absence.REMOVED
    return Absence.PROVEN if origin.offset < span.end else Absence.LATER


class CompleteSince(NamedTuple):
    """Times in microseconds since 1970: events and dead letters of records written after them are all still there."""

    dead_letters_us: float = ALWAYS
    events_us: float = ALWAYS


def complete_since_us(oldest: Iterable[ConsumerRecord | None]) -> float:
    """Returns the time since which a topic is complete, from the oldest record of each partition that lost some.

    None stands for a partition without records. The latest time counts, since an event may be in any partition.
    """
    return max((NEVER if record is None else timestamp_us(record) + CLOCK_SKEW_US for record in oldest), default=ALWAYS)
