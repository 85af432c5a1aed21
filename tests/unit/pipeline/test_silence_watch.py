"""The watch: what Faust lost and no later record shows is read again, and nothing is sought without need."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from streams.pipeline import silence_watch
from streams.pipeline.reading import SEEK_AGAIN_S
from streams.pipeline.silence_watch import LOOK_EVERY_S

from tests.unit.pipeline.pump_rig import FIRST, Rig, settled, turns


async def test_a_second_loss_right_after_the_first_is_read_again(rig: Rig) -> None:
    """A jump is sought only SEEK_AGAIN_S after the last seek, and here nothing comes later than that."""
    rig.log.end = 4
    rig.stream.put(0, 2, 3)
    await settled(lambda: rig.sought == [1])
    rig.stream.put(1, 3)
    await settled(lambda: rig.offsets == [0, 1])
    await rig.look()
    assert rig.sought == [1]
    await rig.look()
    assert rig.sought == [1, 2]
    rig.stream.put(2, 3)
    await settled(lambda: rig.due() == {FIRST: 4})


async def test_the_loss_of_the_last_record_is_noticed(rig: Rig) -> None:
    """Nothing comes after it."""
    rig.log.end = 2
    rig.stream.put(0)
    await rig.look()
    await rig.look()
    assert rig.sought == [1]


async def test_a_partition_of_which_nothing_ever_came_is_read(rig: Rig) -> None:
    """All that it holds was lost when the assignment began."""
    await rig.look()
    await rig.look()
    assert rig.sought == [0]
    rig.stream.put(0)
    await settled(lambda: rig.offsets == [0])


async def test_a_seek_that_brings_nothing_is_made_again(rig: Rig) -> None:
    """What it brought may be lost as well; it gets two looks to come, and each seek is made though others were."""
    assert LOOK_EVERY_S > SEEK_AGAIN_S
    for _ in range(4):
        await rig.look()
    assert rig.sought == [0, 0]


async def test_a_partition_of_which_faust_has_no_more_is_left_alone(rig: Rig) -> None:
    """Nobody sends anything, or what was sent is not fetched yet."""
    rig.log.end = 2
    rig.stream.put(0, 1)
    for _ in range(3):
        await rig.look()
    assert rig.sought == []


async def test_the_marker_of_a_transaction_is_no_record(rig: Rig) -> None:
    """Faust was given an offset and no record, and has not fetched the next one."""
    rig.log.end, rig.log.holds = 3, {0, 1, 3}
    rig.stream.put(0, 1)
    for _ in range(3):
        await rig.look()
    assert rig.sought == []


async def test_a_record_that_is_lost_behind_a_marker_is_read_again(rig: Rig) -> None:
    """The partition was ahead for the marker's sake already."""
    rig.log.end, rig.log.holds = 3, {0, 1, 3}
    rig.stream.put(0, 1)
    await rig.look()
    rig.log.end = 4
    await rig.look()
    assert rig.sought == [2]


async def test_a_partition_that_is_read_is_left_alone(rig: Rig) -> None:
    """Faust has always more of it than the pump, and it moves between looks."""
    for offset in range(4):
        rig.stream.put(offset)
        await rig.look()
    assert rig.sought == []


@pytest.mark.parametrize("rig", [1], indirect=True)
async def test_a_full_pump_is_not_taken_for_silence(rig: Rig) -> None:
    """What has come waits in Faust's queue; it is looked at anew once there are free slots."""
    rig.log.end = 3
    rig.gate.clear()
    rig.stream.put(0)
    for _ in range(3):
        await rig.look()
    assert rig.sought == []
    rig.gate.set()
    await rig.look()
    assert rig.sought == []
    await rig.look()
    assert rig.sought == [1]


@pytest.mark.parametrize("rig", [1], indirect=True)
async def test_a_pump_that_is_always_full_misses_what_the_queues_did_not_bring(rig: Rig) -> None:
    """A provider that is slower than the producers must not hide a loss for hours; the other partition has plenty."""
    busy = TP("conversations", 1)
    rig.assigned = {FIRST, busy}
    rig.log.ends = {FIRST: 1, busy: 3}
    rig.gate.clear()
    rig.stream.put(*range(9), partition=1)
    await rig.look()  # 0 is in work and 1 waits for its slot: 2 may be in the queues, and the quiet one's before it
    await rig.one_ends()
    await rig.look()
    assert (rig.offsets, rig.sought) == ([0, 1], [])
    await rig.one_ends()
    await rig.look()
    assert (rig.offsets, rig.sought, rig.pump.is_full) == ([0, 1, 2], [0], True)


async def test_a_rebalance_begins_the_silence_anew(rig: Rig) -> None:
    """Records of the new assignment may still be under way."""
    await rig.look()
    await rig.assignment.drain(0)
    rig.assignment.revoke()
    await rig.look()
    rig.assignment.reopen()
    rig.generation = 2
    await rig.look()
    assert rig.sought == []
    await rig.look()
    assert rig.sought == [0]


@pytest.mark.parametrize("end", ["halt", "drain"])
async def test_nothing_is_sought_when_no_record_is_admitted(rig: Rig, end: str) -> None:
    """Halted for good, or between two assignments."""
    await rig.look()
    if end == "halt":
        rig.assignment.halt()
    else:
        await rig.assignment.drain(0)
    await rig.look()
    await rig.look()
    assert rig.sought == []


async def test_pump_and_watch_share_a_tracker_that_both_open(rig: Rig) -> None:
    """A second one would admit what the first one has admitted."""
    rig.log.start.clear()
    rig.stream.put(0)
    looking = asyncio.create_task(rig.look())
    await turns()
    rig.log.start.set()
    await looking
    rig.stream.put(0, 1)
    await settled(lambda: rig.due() == {FIRST: 2})
    assert rig.offsets == [0, 1]


async def test_brokers_that_do_not_answer_begin_the_silence_anew(rig: Rig) -> None:
    """While they are away nothing comes, and nothing is lost."""
    await rig.look()
    rig.log.is_down = True
    with pytest.raises(KafkaConnectionError):
        await rig.look()
    rig.log.is_down = False
    await rig.look()
    assert rig.sought == []


async def test_a_partition_of_somebody_else_is_not_sought(rig: Rig) -> None:
    """It was taken away between the question what is assigned and the look."""
    lost = TP("conversations", 5)
    for _ in range(3):
        rig.now_s += LOOK_EVERY_S
        await rig.watch.look({lost})
    assert rig.sought == []


async def test_the_watch_goes_on_after_an_error_of_the_brokers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again and again, until it is cancelled."""
    monkeypatch.setattr(silence_watch, "LOOK_EVERY_S", 0)
    rig.log.is_down = True
    asked = 0

    def assigned() -> set[TP]:
        nonlocal asked
        asked += 1
        rig.log.is_down = asked < 3
        return rig.assigned

    watching = asyncio.create_task(rig.watch.run(assigned))
    await settled(lambda: rig.sought == [0])
    watching.cancel()
    await asyncio.wait({watching})
    assert (watching.cancelled(), asked >= 4) == (True, True)
