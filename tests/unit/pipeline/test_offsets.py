"""One partition's offsets: what may be committed is the end of the unbroken finished run, and nothing else."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.pipeline.offsets import Slot, Tracker, Verdict


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


class OffsetsMachine(RuleBasedStateMachine):
    """Any order of reading, finishing, committing and revoking, against a plain set of finished offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker(expected=0)
        self.open: list[Slot] = []
        self.read: list[int] = []
        self.finished: set[int] = set()

    @rule(hole=st.integers(0, 3))
    @precondition(lambda self: not self.tracker.dead)
    def read_next(self, hole: int) -> None:
        offset = self.tracker.expected + hole
        if hole:
            assert self.tracker.judge(offset) is Verdict.JUMP
            self.tracker.confirm_hole(offset)
        self.open.append(self.tracker.admit(offset, float(offset)))
        self.read.append(offset)

    @rule(choice=st.randoms(use_true_random=False))
    @precondition(lambda self: self.open)
    def finish_any(self, choice: object) -> None:
        slot = self.open.pop(choice.randrange(len(self.open)))  # type: ignore[attr-defined]
        self.tracker.finish(slot)
        if not self.tracker.dead:
            self.finished.add(slot.offset)

    @rule(is_taken=st.booleans())
    def commit(self, is_taken: bool) -> None:
        due = self.tracker.due()
        if due is not None and is_taken:
            self.tracker.committed = due

    @rule()
    @precondition(lambda self: len(self.read) > 20)
    def revoke(self) -> None:
        self.tracker.revoke()

    @invariant()
    def due_is_the_end_of_the_unbroken_run(self) -> None:
        run = []
        for offset in self.read:
            if offset not in self.finished:
                break
            run.append(offset)
        if self.tracker.dead:
            assert self.tracker.due() is None
        else:
            assert self.tracker.committable == (run[-1] + 1 if run else None)


TestOffsetsModel = OffsetsMachine.TestCase
TestOffsetsModel.settings = settings(
    max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
