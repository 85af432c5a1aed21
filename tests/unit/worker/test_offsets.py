"""The offsets of one partition by examples; test_tracker_model.py tries every order of events."""

import pytest

from tests.support.factories import a_tracker


def test_offset_is_held_until_earlier_record_finishes() -> None:
    """Later finished work does not move the offset past earlier unfinished work."""
    tracker = a_tracker(start=5)
    tracker.admit([5, 6, 7])
    tracker.finish(6)
    assert tracker.due() is None
    tracker.finish(5)
    assert tracker.due() == 7
    tracker.finish(7)
    assert tracker.due() == 8


def test_a_gap_of_the_log_is_passed() -> None:
    """Records were compacted away, or are markers of transactions: the reader delivers the rest in order."""
    tracker = a_tracker(start=5)
    tracker.admit([8, 20])
    tracker.finish(20)
    assert tracker.due() is None
    tracker.finish(8)
    assert (tracker.due(), tracker.next) == (21, 21)


@pytest.mark.parametrize("offsets", [[4], [5, 5], [6, 5]])
def test_offsets_are_admitted_once_and_in_order(offsets: list[int]) -> None:
    """A record that is worked on twice would be finished twice."""
    with pytest.raises(ValueError, match="in order"):
        a_tracker(start=5).admit(offsets)


@pytest.mark.parametrize("offset", [4, 7, 8, 5])
def test_only_an_open_offset_can_be_finished(offset: int) -> None:
    """Anything else is a defect, and changes nothing."""
    tracker = a_tracker(start=5)
    tracker.admit([5, 6, 7])
    tracker.finish(5)
    tracker.finish(7)
    with pytest.raises(ValueError, match=f"offset {offset} is not open"):
        tracker.finish(offset)
    assert tracker.due() == 6


def test_what_the_broker_took_is_not_due_again() -> None:
    """And what it did not take is."""
    tracker = a_tracker(start=5)
    tracker.admit([5, 6])
    tracker.finish(5)
    assert (tracker.due(), tracker.due()) == (6, 6)
    tracker.committed = 6
    assert tracker.due() is None
    tracker.finish(6)
    assert tracker.due() == 7


def test_a_revoked_tracker_commits_and_admits_nothing() -> None:
    """The partition may be another worker's by then; late work does no harm."""
    tracker = a_tracker(start=5)
    tracker.admit([5, 6])
    tracker.finish(5)
    tracker.revoke()
    tracker.finish(6)
    assert tracker.due() is None
    with pytest.raises(ValueError, match="offset 7"):
        tracker.admit([7])
