"""From when on a topic of events or letters holds all that was sent to it, by the oldest record of each partition."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from schemas.kafka import Topics
from streams.audit.entries import stamp_us
from streams.kafka.offset_reader import OffsetReader

#: How far the clocks of those who write may lie apart: near the edge of retention an absence proves nothing.
CLOCKS_APART_US = 5_000_000

#: Nothing was removed.
ALWAYS = -math.inf
#: Everything was removed, or its oldest record could not be read.
NEVER = math.inf


class Whole(NamedTuple):
    """What a record that was written later than so many microseconds since 1970 left in a topic is still there."""

    letters_from_us: float = ALWAYS
    events_from_us: float = ALWAYS

    def has_letters_of(self, written_us: int) -> bool:
        return written_us > self.letters_from_us

    def has_events_of(self, written_us: int) -> bool:
        return written_us > self.events_from_us


async def read_wholeness(
    client_options: Mapping[str, Any], topics: Topics, bounds: Mapping[TopicPartition, tuple[int, int]]
) -> Whole:
    """By the bounds of the topics when they had been read: what retention took meanwhile was perhaps not read.

    Raises KafkaError when no broker answers.
    """
    cut = {at: begin for at, (begin, _) in bounds.items() if begin > 0}
    held = {at: begin for at, begin in cut.items() if begin < bounds[at][1]}
    oldest = await _first_records(client_options, topics, held)
    letters, events = (
        whole_from_us(oldest.get(at) for at in cut if at.topic == topic)
        for topic in (topics.dead_letters, topics.insights)
    )
    return Whole(letters, events)


def whole_from_us(oldest: Iterable[ConsumerRecord | None]) -> float:
    """Of one topic: takes the oldest record of each partition that retention has cut, None where there is none.

    By the worst of them, since an event may lie in any partition.
    """
    return max((NEVER if record is None else stamp_us(record) + CLOCKS_APART_US for record in oldest), default=ALWAYS)


async def _first_records(
    client_options: Mapping[str, Any], topics: Topics, offsets: Mapping[TopicPartition, int]
) -> dict[TopicPartition, ConsumerRecord | None]:
    if not offsets:
        return {}  # nothing to connect for
    reader = OffsetReader(client_options, topics)
    try:
        await reader.start()
        return await reader.first_records(offsets)
    finally:
        await reader.stop()
