"""What the input topics held while the audit looked, so that a trace without its record can be judged. Pure."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from schemas.kafka import Origin


class Whereabouts(Enum):
    """Of an origin at which the audit met no record of the conversation."""

    HELD = auto()  # the audit read that part of the log: there is no such record
    REMOVED = auto()  # retention took it: nothing can be said
    LATER = auto()  # written after the audit began to look: nothing can be said
    NOWHERE = auto()  # the log has no such offset, or there is no such partition


class Span(NamedTuple):
    """Of one partition: its first offset when the reading was over, and its end before and after the reading."""

    begin: int
    end: int
    end_later: int


class Holdings:
    """The spans of all partitions of the input topics, by topic and partition."""

    def __init__(self, spans: Mapping[tuple[str, int], Span]) -> None:
        self._spans = spans

    def knows(self, topic: str, partition: int) -> bool:
        """Whether the input topics have that partition."""
        return (topic, partition) in self._spans

    def where(self, place: Origin) -> Whereabouts:
        """What the absence of a record at `place` means."""
        span = self._spans.get((place.topic, place.partition))
        if span is None or place.offset >= span.end_later:
            return Whereabouts.NOWHERE
        if place.offset < span.begin:
            return Whereabouts.REMOVED
        return Whereabouts.HELD if place.offset < span.end else Whereabouts.LATER
