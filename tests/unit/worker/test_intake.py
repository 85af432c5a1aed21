"""What happens to a fetch, and what is committed; tests/contracts/test_intake.py reads from real brokers."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from aiokafka import TopicPartition

from agents.analyst import Analyst
from agents.decode import KafkaRecord, Tracker
from schemas.errors import Fatal
from streams.worker.intake import Assignment, Fetch, Intake
from streams.worker.lifecycle import Lifecycle
from streams.worker.timings import Timings
from tests.support.factories import a_record, a_tracker
from tests.support.topics import TOPICS

FIRST, SECOND = TopicPartition(TOPICS.conversations, 0), TopicPartition(TOPICS.conversations, 1)
GENERATION = 7


class Taken:
    """Acts as the analyst: opens the slots, and remembers the records."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.rehomed: list[bool] = []
        self.error: Exception | None = None

    def take(self, tracker: Tracker, records: Sequence[KafkaRecord], *, rehomed: bool) -> None:
        if self.error is not None:
            raise self.error
        tracker.admit([record.offset for record in records])
        self.offsets += [record.offset for record in records]
        self.rehomed.append(rehomed)


class Broker:
    """Accepts commits while `accepts` is set; may first do what happens meanwhile."""

    def __init__(self) -> None:
        self.accepts = True
        self.commits: list[tuple[int, dict[TopicPartition, int]]] = []

    async def commit(self, generation: int, offsets: Mapping[TopicPartition, int]) -> bool:
        self.commits.append((generation, dict(offsets)))
        await asyncio.sleep(0)
        return self.accepts


class Rig:
    """An intake whose assignment has two partitions, both read from offset 5."""

    def __init__(self) -> None:
        self.analyst, self.broker, self.life = Taken(), Broker(), Lifecycle(Timings())
        unused = cast(Any, None)
        self.intake = Intake(unused, cast(Analyst, self.analyst), unused, {}, TOPICS, self.broker.commit, self.life)
        self.assignment = self.intake.current = Assignment([FIRST, SECOND], GENERATION)
        self.assignment.trackers = {tp: a_tracker(tp.partition, 5) for tp in (FIRST, SECOND)}

    def process(self, *offsets: int, tp: TopicPartition = FIRST) -> Fetch:
        records = [a_record(topic=tp.topic, partition=tp.partition, offset=offset) for offset in offsets]
        fetch = Fetch(self.assignment, {tp: records})
        self.intake.process(fetch)
        return fetch

    def finish(self, tp: TopicPartition, *offsets: int) -> None:
        for offset in offsets:
            self.assignment.trackers[tp].finish(offset)


async def test_a_fetch_is_given_to_the_analyst() -> None:
    """The reader then continues."""
    rig = Rig()
    fetch = rig.process(5, 6, 9)
    assert (rig.analyst.offsets, rig.analyst.rehomed, fetch.is_taken.is_set()) == ([5, 6, 9], [False], True)


async def test_records_of_the_topic_of_rehomed_ones_are_distinguished() -> None:
    """Only there are our own headers trusted."""
    rig, tp = Rig(), TopicPartition(TOPICS.rehomed, 0)
    rig.assignment.trackers[tp] = a_tracker(topic=TOPICS.rehomed)
    rig.process(0, tp=tp)
    assert rig.analyst.rehomed == [True]


async def test_a_fetch_of_an_assignment_that_has_ended_is_dropped() -> None:
    """The next owner reads it again; the reader must not wait for it."""
    rig = Rig()
    assert rig.intake.end() is rig.assignment
    fetch = rig.process(5)
    assert (rig.analyst.offsets, fetch.is_taken.is_set(), rig.intake.current) == ([], True, None)


async def test_a_halted_worker_takes_nothing() -> None:
    """What is in flight may still be committed."""
    rig = Rig()
    rig.process(5)
    rig.life.halt(Fatal("too many records became dead letters"))
    assert rig.process(6).is_taken.is_set()
    rig.finish(FIRST, 5)
    await rig.intake.commit(rig.assignment)
    assert (rig.analyst.offsets, rig.broker.commits) == ([5], [(GENERATION, {FIRST: 6, SECOND: 5})])


async def test_a_halted_worker_commits_all_its_positions_once() -> None:
    """A note goes with them. A position is that of the first unfinished record; a refused commit is tried again."""
    rig = Rig()
    rig.process(7, 8)
    rig.life.halt(Fatal("too many records became dead letters"))
    rig.broker.accepts = False
    await rig.intake.commit(rig.assignment)
    rig.broker.accepts = True
    for _ in range(2):
        await rig.intake.commit(rig.assignment)
    assert [offsets for _, offsets in rig.broker.commits] == [{FIRST: 7, SECOND: 5}] * 2


async def test_records_that_a_new_reader_delivers_again_are_dropped() -> None:
    """It began where the tracker was, while the last fetch of the old reader was still in the channel."""
    rig = Rig()
    rig.process(5, 6)
    rig.process(5, 6, 7)
    assert rig.analyst.offsets == [5, 6, 7]


async def test_a_defect_ends_the_worker() -> None:
    """Faust would restart the agent, and the records of the fetch would be lost unnoticed."""
    rig = Rig()
    rig.analyst.error = ZeroDivisionError()
    fetch = rig.process(5)
    assert (rig.life.failure, fetch.is_taken.is_set()) == (rig.analyst.error, True)


async def test_only_what_is_due_is_committed() -> None:
    """As a member of the assignment's own generation, and in one request."""
    rig = Rig()
    await rig.intake.commit(rig.assignment)
    rig.process(5, 6, 7)
    rig.process(5, tp=SECOND)
    rig.finish(FIRST, 5, 7)
    rig.finish(SECOND, 5)
    await rig.intake.commit(rig.assignment)
    await rig.intake.commit(rig.assignment)
    assert rig.broker.commits == [(GENERATION, {FIRST: 6, SECOND: 6})]


async def test_what_the_broker_did_not_take_is_due_again() -> None:
    """It is committed together with later work."""
    rig = Rig()
    rig.broker.accepts = False
    rig.process(5, 6)
    rig.finish(FIRST, 5)
    await rig.intake.commit(rig.assignment)
    rig.broker.accepts = True
    rig.finish(FIRST, 6)
    await rig.intake.commit(rig.assignment)
    assert [offsets for _, offsets in rig.broker.commits] == [{FIRST: 6}, {FIRST: 7}]


async def test_what_is_finished_during_a_commit_is_due_after_it() -> None:
    """The broker took what was due when it was asked."""
    rig = Rig()
    rig.process(5, 6)
    rig.finish(FIRST, 5)
    committing = asyncio.create_task(rig.intake.commit(rig.assignment))
    await asyncio.sleep(0)
    rig.finish(FIRST, 6)
    await committing
    assert rig.assignment.trackers[FIRST].due() == 7


async def test_commits_are_made_from_time_to_time() -> None:
    """Only while there is an assignment."""
    rig = Rig()
    committing = asyncio.create_task(rig.intake.keep_committing(0.3))
    rig.process(5)
    rig.finish(FIRST, 5)
    await asyncio.sleep(0.31)
    rig.intake.end()
    rig.process(6)
    await asyncio.sleep(10)
    committing.cancel()
    assert rig.broker.commits == [(GENERATION, {FIRST: 6})]


async def test_a_revoked_assignment_commits_nothing() -> None:
    """Its trackers are revoked with it."""
    rig = Rig()
    rig.process(5)
    rig.finish(FIRST, 5)
    rig.assignment.revoke()
    await rig.intake.commit(rig.assignment)
    assert rig.broker.commits == []
