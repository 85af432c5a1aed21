"""The pump: each record once per assignment, in order, bounded, and never a slot that nobody works on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import TopicPartition
from faust.types import TP

from streams.pipeline.assignment import Assignment
from streams.pipeline.pump import Pump
from streams.pipeline.record import EPOCH, Record
from tests.fakes.faust_stream import FakeStream

FIRST = TP("conversations", 0)


@dataclass(frozen=True)
class LogRecord:
    offset: int


class FakeLog:
    """A log whose reading starts at 0 and that holds the given offsets."""

    def __init__(self) -> None:
        self.holds = set(range(100))
        self.start = asyncio.Event()
        self.start.set()

    async def start_of_reading(self, partition: TopicPartition) -> int:
        await self.start.wait()
        return 0

    async def first_records(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, LogRecord | None]:
        [(partition, at)] = offsets.items()
        return {partition: LogRecord(min(offset for offset in self.holds if offset >= at))}


class Rig:
    """A pump on fakes; `handle` takes records when the gate is open."""

    def __init__(self, max_in_flight: int) -> None:
        self.stream, self.log, self.assignment = FakeStream(), FakeLog(), Assignment()
        self.generation = 1
        self.assigned = {FIRST}
        self.handled: list[Record] = []
        self.sought: list[int] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.pump = Pump(
            self.assignment,
            self.log,  # type: ignore[arg-type]
            self.handle,
            max_in_flight=max_in_flight,
            generation=lambda: self.generation,
            is_assigned=lambda tp: tp in self.assigned,
            seek=self.seek,
            fail=self.failures.append,
        )

    async def handle(self, record: Record, is_alive: Callable[[], bool]) -> bool:
        self.handled.append(record)
        await self.gate.wait()
        return True

    async def seek(self, tp: TP, offset: int) -> None:
        self.sought.append(offset)

    @property
    def offsets(self) -> list[int]:
        return [record.origin.offset for record in self.handled]

    def due(self) -> dict[TP, int]:
        return {tp: offset for tp, (_, offset) in self.assignment.due(self.generation).items()}


@pytest.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    rig = Rig(getattr(request, "param", 10))
    running = asyncio.create_task(rig.pump.run(rig.stream))  # type: ignore[arg-type]
    yield rig
    rig.gate.set()
    running.cancel()
    await asyncio.wait({running})


async def settled(condition: Callable[[], Any]) -> None:
    """Returns when the condition holds; every wait of the fakes is over within a few turns of the loop."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def turns() -> None:
    """Long enough for everything that could happen to have happened."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_records_are_taken_once_and_committed_up_to_the_unbroken_run(rig: Rig) -> None:
    """A repeat, as after a seek, is dropped."""
    rig.stream.put(0, 1, 1, 0, 2)
    await settled(lambda: rig.due() == {FIRST: 3})
    assert rig.offsets == [0, 1, 2]


async def test_a_skipped_record_is_read_again(rig: Rig) -> None:
    """What the log holds must not be jumped over, whatever Faust delivers."""
    rig.stream.put(0, 2, 3)
    await settled(lambda: rig.sought == [1])
    rig.stream.put(1, 2, 3)
    await settled(lambda: rig.offsets == [0, 1, 2, 3])


async def test_a_hole_of_the_log_is_passed(rig: Rig) -> None:
    """Compaction and transaction markers leave offsets without records."""
    rig.log.holds -= {1, 2}
    rig.stream.put(0, 3)
    await settled(lambda: rig.offsets == [0, 3])
    assert rig.sought == []


@pytest.mark.parametrize("rig", [2], indirect=True)
async def test_no_more_than_the_bound_is_in_work(rig: Rig) -> None:
    """The next one is taken when one has ended."""
    rig.gate.clear()
    rig.stream.put(0, 1, 2, 3)
    await settled(lambda: rig.offsets == [0, 1])
    await turns()
    assert rig.offsets == [0, 1]
    rig.gate.set()
    await settled(lambda: rig.offsets == [0, 1, 2, 3])


async def test_a_fetch_of_the_old_assignment_is_not_taken_for_the_new_one(rig: Rig) -> None:
    """It may carry the new generation's number; the partition is another's now."""
    rig.stream.put(0, partition=5)
    rig.stream.put(0, 1)
    await settled(lambda: rig.offsets == [0, 1])
    assert rig.due() == {FIRST: 2}


@pytest.mark.parametrize("rig", [1], indirect=True)
async def test_nothing_is_begun_while_an_assignment_ends(rig: Rig) -> None:
    """A record that waited for its turn when the drain began is the next owner's: its call would be paid twice."""
    rig.gate.clear()
    rig.stream.put(0, 1)
    await settled(lambda: rig.offsets == [0])
    draining = asyncio.create_task(rig.assignment.drain(5))
    await turns()
    rig.gate.set()
    await draining
    await turns()
    assert rig.offsets == [0]
    assert rig.due() == {FIRST: 1}


async def test_no_tracker_is_opened_for_an_assignment_that_ended_meanwhile(rig: Rig) -> None:
    """The log answered late, between the end of one assignment and the next."""
    rig.log.start.clear()
    rig.stream.put(0)
    await turns()
    await rig.assignment.drain(0)
    rig.assignment.revoke()
    rig.log.start.set()
    await turns()
    assert (rig.offsets, rig.due()) == ([], {})


async def test_a_time_stamp_from_nowhere_stops_nobody(rig: Rig) -> None:
    """A producer may stamp records with any number; it counts as the epoch, each time the record is read."""
    rig.stream.put(0, timestamp=-1e14)
    rig.stream.put(1, timestamp=1e17)
    rig.stream.put(2, timestamp=None)
    await settled(lambda: rig.due() == {FIRST: 3})
    assert [record.received_at for record in rig.handled] == [EPOCH, EPOCH, EPOCH]


@pytest.mark.parametrize("rig", [2], indirect=True)
async def test_a_halted_pump_takes_nothing_more_and_finishes_what_is_in_work(rig: Rig) -> None:
    """Neither the record that waited for its turn nor later ones, in this assignment or the next; offsets stay."""
    rig.gate.clear()
    rig.stream.put(0, 1, 2, 3)
    await settled(lambda: rig.offsets == [0, 1])
    rig.assignment.halt()
    rig.gate.set()
    await settled(lambda: rig.due() == {FIRST: 2})
    await rig.assignment.drain(0)
    rig.assignment.revoke()
    rig.assignment.reopen()
    rig.generation = 2
    rig.stream.put(2, 3, generation=2)
    await turns()
    assert (rig.offsets, rig.due(), rig.failures) == ([0, 1], {}, [])


async def test_work_that_breaks_off_ends_the_worker(rig: Rig) -> None:
    """Its slot would hold the partition for ever, and nobody would see why."""

    async def broken(record: Record, is_alive: Callable[[], bool]) -> bool:
        raise ZeroDivisionError

    rig.pump._handle = broken
    rig.stream.put(0)
    await settled(lambda: rig.failures)
    assert isinstance(rig.failures[0], ZeroDivisionError)
    assert rig.due() == {}


async def test_work_that_somebody_cancelled_ends_the_worker(rig: Rig) -> None:
    """Its slot would hold the partition for ever, unseen."""
    rig.gate.clear()
    rig.stream.put(0)
    await settled(lambda: rig.handled)
    [task] = rig.assignment._tasks
    task.cancel()
    await settled(lambda: rig.failures)
    assert str(rig.failures[0]) == "a record's work was cancelled"


async def test_the_end_of_an_assignment_may_cancel_work(rig: Rig) -> None:
    """Whoever gets the partition reads the record again."""
    rig.gate.clear()
    rig.stream.put(0)
    await settled(lambda: rig.handled)
    await rig.assignment.drain(0)
    rig.assignment.revoke()
    await turns()
    assert rig.failures == []
