"""Mistakes in what is read, what counts as finished and what is committed."""

import asyncio
import random
from collections.abc import Mapping, Sequence

from aiokafka import TopicPartition

import streams.kafka.offset_reader
from agents.analyse import Analysis
from streams.kafka.offset_reader import Position
from streams.worker.intake import Assignment, Fetch, Intake
from streams.worker.offsets import Tracker
from tests.chaos.planting import replace

#: How long a record's offset may stay unopened where that happens after an await.
OPENED_WITHIN_S = 0.2


def commit_on_read() -> None:
    """A record counts as finished as soon as it is read, as with Kafka's auto-commit."""
    admit, finish = Tracker.admit, Tracker.finish

    def admit_and_finish(tracker: Tracker, offsets: Sequence[int]) -> None:
        admit(tracker, offsets)
        for offset in offsets:
            finish(tracker, offset)

    def is_finished_already(tracker: Tracker, offset: int) -> None:
        pass

    replace(Tracker, "admit", admit_and_finish)
    replace(Tracker, "finish", is_finished_already)


def commit_highest() -> None:
    """The highest finished offset is committed, whatever is unfinished below it."""

    def finish(tracker: Tracker, offset: int) -> None:
        if not tracker.is_revoked:
            tracker.committable = max(tracker.committable or 0, offset + 1)

    replace(Tracker, "finish", finish)


def slot_opened_late() -> None:
    """An offset is opened after an await that takes a different time for each record."""
    admit = Tracker.admit

    def admit_later(tracker: Tracker, offsets: Sequence[int]) -> None:
        admit(tracker, offsets)
        for offset in offsets:
            tracker._open.remove(offset)
            asyncio.get_running_loop().call_later(random.uniform(0, OPENED_WITHIN_S), tracker._open.append, offset)

    def finish(tracker: Tracker, offset: int) -> None:
        tracker._finished.add(offset)
        while not tracker.is_revoked and tracker._open and tracker._open[0] in tracker._finished:
            tracker.committable = tracker._open.popleft() + 1

    replace(Tracker, "admit", admit_later)
    replace(Tracker, "finish", finish)


def dead_generation_commits() -> None:
    """Trackers outlive their assignment, and offsets of every assignment are committed as the current generation."""
    assignments: list[Assignment] = []

    async def commit_all(intake: Intake, assignment: Assignment) -> None:
        if assignment not in assignments:
            assignments.append(assignment)
        trackers = [tracker for each in assignments for tracker in each.trackers.values()]
        due = {tracker: at for tracker in trackers if (at := tracker.due()) is not None}
        if due and await intake._commit(assignment.generation, {tracker.tp: at for tracker, at in due.items()}):
            for tracker, at in due.items():
                tracker.committed = at

    def revoke(assignment: Assignment) -> None:
        pass

    replace(Intake, "commit", commit_all)
    replace(Assignment, "revoke", revoke)


def reads_from_the_end() -> None:
    """A new assignment begins to read at the end of the log instead of the committed offset."""

    def position(partition: TopicPartition, committed: int, begin: int, end: int) -> Position:
        return Position(end, end)

    replace(streams.kafka.offset_reader, "_position", position)


def ended_reader_feeds_the_next() -> None:
    """The reader of an ended assignment reads on, and what it fetches counts for the assignment that follows."""

    def end(intake: Intake) -> Assignment | None:
        assignment, intake.current = intake.current, None
        return assignment

    def revoke(assignment: Assignment) -> None:
        for tracker in assignment.trackers.values():
            tracker.revoke()

    def process(intake: Intake, fetch: Fetch) -> None:
        trackers: Mapping[TopicPartition, Tracker] = intake.current.trackers if intake.current else {}
        for tp, records in fetch.records.items():
            if tp in trackers:
                intake._take(trackers[tp], records)
        fetch.is_taken.set()

    replace(Intake, "end", end)
    replace(Assignment, "revoke", revoke)
    replace(Intake, "process", process)


def first_fetch_skipped() -> None:
    """The first fetch after a reassignment is thrown away, as if it were what a reader had left in the channel."""
    process, seen = Intake.process, set[Assignment]()

    def process_later_ones(intake: Intake, fetch: Fetch) -> None:
        if fetch.assignment in seen:
            process(intake, fetch)
        else:
            seen.add(fetch.assignment)
            fetch.is_taken.set()

    replace(Intake, "process", process_later_ones)


def cancelled_is_finished() -> None:
    """Records whose calls the drain cancels at a revocation count as finished."""
    drain = Analysis.drain

    async def drain_and_finish(analysis: Analysis, within_s: float) -> None:
        flights = list(analysis._flights.values())
        await drain(analysis, within_s)
        for job in [job for flight in flights if flight.answer is None for job in flight.jobs if job.is_wanted]:
            job.is_finished = True
            job.tracker.finish(job.source.offset)

    replace(Analysis, "drain", drain_and_finish)
