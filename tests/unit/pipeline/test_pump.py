"""The pump: each record once per assignment, in order, bounded, and never a slot that nobody works on."""

import asyncio
from collections.abc import Callable

import pytest
from streams.pipeline.record import EPOCH, Record

from tests.unit.pipeline.pump_rig import FIRST, Rig, settled, turns


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
