"""Mistakes in what is read, what counts as finished and what is committed."""

import asyncio
import random
from collections.abc import Mapping

from aiokafka import TopicPartition
from faust.types import TP
from streams.pipeline.assignment import Assignment
from streams.pipeline.attempts import IsAlive
from streams.pipeline.offsets import Slot, Tracker, Verdict
from streams.pipeline.record import Record
from streams.pipeline.steps import Steps
from tests.chaos.lossy_stream import lose_records

from streams.kafka.offset_reader import OffsetReader
from tests.chaos.planting import replace

#: How long a record's slot may stay unopened where that happens after an await.
SLOT_OPENED_WITHIN_S = 0.2
#: Of the records that Faust has fetched; a worker reads each of them again, which takes it up to two seconds.
LOST_SHARE = 0.001


def faust_loses_records() -> None:
    """Faust loses a fetched record now and then: no bug of ours, and none that a worker may fall for."""
    lose_records(lambda _: random.random() < LOST_SHARE)


def commit_on_read() -> None:
    """A record counts as finished as soon as it is read, as with Kafka's auto-commit."""
    admit = Tracker.admit

    def admit_and_finish(tracker: Tracker, offset: int, timestamp_s: float) -> Slot:
        slot = admit(tracker, offset, timestamp_s)
        tracker.finish(slot)
        return slot

    replace(Tracker, "admit", admit_and_finish)


def commit_highest() -> None:
    """The highest finished offset is committed, whatever is unfinished below it."""

    def finish(tracker: Tracker, slot: Slot) -> None:
        if not tracker.dead:
            tracker.committable = max(tracker.committable or 0, slot.offset + 1)

    replace(Tracker, "finish", finish)


def slot_opened_late() -> None:
    """A record's slot is opened after an await that takes a different time for each record."""
    admit = Tracker.admit

    def admit_later(tracker: Tracker, offset: int, timestamp_s: float) -> Slot:
        slot = admit(tracker, offset, timestamp_s)
        tracker._open.remove(slot)
        asyncio.get_running_loop().call_later(random.uniform(0, SLOT_OPENED_WITHIN_S), open_slot, tracker, slot)
        return slot

    def open_slot(tracker: Tracker, slot: Slot) -> None:
        if not tracker.dead:
            tracker._open.append(slot)
        if slot.finished:
            tracker.finish(slot)

    replace(Tracker, "admit", admit_later)


def next_not_checked() -> None:
    """Whatever record comes is taken for the next one; nobody compares offsets, and Faust loses a record."""
    faust_loses_records()

    def judge(tracker: Tracker, offset: int) -> Verdict:
        return Verdict.NEXT

    replace(Tracker, "judge", judge)


def gap_believed() -> None:
    """Any jump in the offsets is taken for compaction, the log is not asked, and Faust loses a record."""
    faust_loses_records()

    def judge(tracker: Tracker, offset: int) -> Verdict:
        return Verdict.REPEAT if offset < tracker.expected else Verdict.NEXT

    replace(Tracker, "judge", judge)


def dead_generation_commits() -> None:
    """Trackers outlive their assignment, and what is due of any generation is committed."""

    def due(assignment: Assignment, generation: int) -> Mapping[TP, tuple[Tracker, int]]:
        trackers = assignment._trackers.items()
        return {tp: (tracker, offset) for (tp, _), tracker in trackers if (offset := tracker.due()) is not None}

    def revoke(assignment: Assignment) -> None:
        pass

    replace(Assignment, "due", due)
    replace(Assignment, "revoke", revoke)


def reads_from_the_end() -> None:
    """A new assignment begins to read at the end of the log instead of the committed offset."""

    async def start_of_reading(offset_reader: OffsetReader, partition: TopicPartition) -> int:
        return (await offset_reader.positions([partition]))[partition].end

    replace(OffsetReader, "start_of_reading", start_of_reading)


def cancelled_is_finished() -> None:
    """Work that the drain cancels at a revocation counts as finished."""
    handle = Steps.handle

    async def handle_whatever_happens(steps: Steps, record: Record, is_alive: IsAlive) -> bool:
        try:
            return await handle(steps, record, is_alive)
        except asyncio.CancelledError:
            return True

    replace(Steps, "handle", handle_whatever_happens)
