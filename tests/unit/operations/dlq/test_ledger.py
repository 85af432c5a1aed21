"""The ledger knows which dead letters were replayed, and nothing else."""

import pytest

from schemas.kafka import Origin
from streams.operations.dlq.dead_letter import DeadLetterId, read_dead_letter
from streams.operations.dlq.ledger import ReplayLedger, mark_record
from tests.support.factories import NOON
from tests.unit.operations.dlq.factories import SENT_TO, WRITTEN_MS, dead_letter, ledger_of, record


def test_a_mark_says_when_and_where_to_a_dead_letter_was_replayed() -> None:
    """It is read back as written."""
    assert ReplayLedger().mark_of(dead_letter()) is None
    ledger = ledger_of(dead_letter())
    mark = ledger.mark_of(dead_letter())
    assert mark is not None
    assert (mark.replayed_at, mark.sent_to) == (NOON, SENT_TO)
    assert ledger.mark_of(dead_letter(offset=8)) is None


def test_the_latest_mark_counts() -> None:
    """Two concurrent replays leave two of them."""
    ledger = ledger_of(dead_letter())
    ledger.add(*mark_record(dead_letter(), NOON, Origin("conversations", 0, 1))[:2])
    mark = ledger.mark_of(dead_letter())
    assert mark is not None
    assert mark.sent_to == Origin("conversations", 0, 1)


def test_a_dead_letter_of_a_recreated_topic_is_not_mistaken_for_the_old_one() -> None:
    """The offsets start again: without the time stamp, new dead letters would be left out."""
    assert ledger_of(dead_letter()).mark_of(read_dead_letter(record(written_ms=WRITTEN_MS + 1))) is None


@pytest.mark.parametrize("value", [b"", b"{}", b"not json", b'{"written_ms": "soon"}'])
def test_a_foreign_record_marks_nothing(value: bytes) -> None:
    """Replaying a dead letter once more is harmless; leaving one out is not."""
    ledger = ReplayLedger()
    ledger.add(b"3:7", value)
    ledger.add(None, value)
    ledger.add(b"\xff", mark_record(dead_letter(), NOON, SENT_TO).value)
    assert ledger.mark_of(dead_letter()) is None


def test_a_record_without_a_value_removes_a_mark() -> None:
    """As in every compacted topic."""
    ledger = ledger_of(dead_letter())
    ledger.add(b"3:7", None)
    assert ledger.mark_of(dead_letter()) is None


def test_marks_below_the_beginning_offset_are_found() -> None:
    """Their dead letters are gone; a partition that is not named keeps its marks."""
    ledger = ledger_of(dead_letter(offset=6), dead_letter(offset=7))
    assert ledger.before({3: 7}) == [DeadLetterId(3, 6)]
    assert ledger.before({2: 7}) == []
