"""One partition's offsets by examples; tests/unit/pipeline/test_tracker_model.py has every order of events."""

import pytest
from streams.pipeline.offsets import Tracker, Verdict


def test_offset_is_held_until_earlier_record_finishes() -> None:
    """Later work that is done does not move the offset past earlier work that is not."""
    tracker = Tracker(expected=5)
    first, second = tracker.admit(5, 1.0), tracker.admit(6, 2.0)
    tracker.finish(second)
    assert tracker.due() is None
    tracker.finish(first)
    assert tracker.due() == 7


def test_a_repeat_is_no_new_work() -> None:
    """What was admitted once is not admitted again."""
    tracker = Tracker(expected=5)
    tracker.admit(5, 1.0)
    assert tracker.judge(5) is Verdict.REPEAT


def test_a_jump_is_not_believed_without_the_log() -> None:
    """Records that were skipped on the way are read again; only a hole that the log has is passed."""
    tracker = Tracker(expected=5)
    assert tracker.judge(8) is Verdict.JUMP
    tracker.confirm_hole(8)
    assert tracker.judge(8) is Verdict.NEXT
    assert tracker.judge(9) is Verdict.JUMP
    tracker.admit(8, 1.0)
    assert tracker.judge(9) is Verdict.NEXT


def test_a_jump_cannot_be_admitted() -> None:
    """An illegal step raises and changes nothing."""
    tracker = Tracker(expected=5)
    with pytest.raises(ValueError, match="offset 7"):
        tracker.admit(7, 1.0)
    assert tracker.judge(5) is Verdict.NEXT


def test_a_late_finish_after_revoke_commits_nothing() -> None:
    """The partition may be another's by then."""
    tracker = Tracker(expected=5)
    slot = tracker.admit(5, 1.0)
    tracker.revoke()
    tracker.finish(slot)
    assert tracker.due() is None


def test_what_the_broker_took_is_not_due_again() -> None:
    """And what it did not take is."""
    tracker = Tracker(expected=5)
    tracker.finish(tracker.admit(5, 1.0))
    assert tracker.due() == 6
    assert tracker.due() == 6
    tracker.committed = 6
    assert tracker.due() is None


def test_the_oldest_open_record_is_the_one_that_holds_the_offset() -> None:
    """Its time stamp is what lag in seconds is about."""
    tracker = Tracker(expected=0)
    first, _ = tracker.admit(0, 10.0), tracker.admit(1, 20.0)
    assert tracker.oldest_open_timestamp_s == 10.0
    tracker.finish(first)
    assert tracker.oldest_open_timestamp_s == 20.0
