"""The ledger knows what was replayed, and nothing that was not."""

import pytest

from schemas.kafka import Origin
from streams.dlq.ledger import Ledger, mark_record
from streams.dlq.letter import LetterId, read_letter
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import WRITTEN_MS, letter, record

SENT_TO = Origin("conversations", 0, 99)


def test_a_marked_letter_is_known_with_its_new_place() -> None:
    """What was written is read back."""
    ledger = Ledger()
    assert ledger.mark_of(letter()) is None
    ledger.add(*mark_record(letter(), NOON, SENT_TO))
    mark = ledger.mark_of(letter())
    assert mark is not None
    assert (mark.replayed_at, mark.sent_to) == (NOON, SENT_TO)
    assert ledger.mark_of(letter(offset=8)) is None


def test_marking_twice_is_marking_once() -> None:
    """Two replays at the same time leave two records; the later one counts."""
    ledger = Ledger()
    ledger.add(*mark_record(letter(), NOON, Origin("conversations", 0, 1)))
    ledger.add(*mark_record(letter(), NOON, SENT_TO))
    mark = ledger.mark_of(letter())
    assert mark is not None
    assert mark.sent_to == SENT_TO


def test_a_letter_of_a_topic_made_anew_is_not_taken_for_the_old_one() -> None:
    """Its offsets begin again: the letter's own time tells them apart, or new letters would be lost."""
    ledger = Ledger()
    ledger.add(*mark_record(letter(), NOON, SENT_TO))
    assert ledger.mark_of(read_letter(record(written_ms=WRITTEN_MS + 1))) is None


@pytest.mark.parametrize("value", [b"", b"{}", b"not json", b'{"written_ms": "soon"}'])
def test_what_is_no_mark_marks_nothing(value: bytes) -> None:
    """A letter that is replayed once more is harmless; one that is left out is not."""
    ledger = Ledger()
    ledger.add(b"3:7", value)
    ledger.add(None, value)
    ledger.add(b"\xff", mark_record(letter(), NOON, SENT_TO)[1])
    assert ledger.mark_of(letter()) is None


def test_a_record_without_value_takes_a_mark_back() -> None:
    """As everywhere in a compacted topic."""
    ledger = Ledger()
    key, value = mark_record(letter(), NOON, SENT_TO)
    ledger.add(key, value)
    ledger.add(key, None)
    assert ledger.mark_of(letter()) is None


def test_marks_before_the_begin_are_known() -> None:
    """Their letters are gone; a partition of which nothing is known keeps its marks."""
    ledger = Ledger()
    for offset in (6, 7):
        ledger.add(*mark_record(letter(offset=offset), NOON, SENT_TO))
    assert ledger.before({3: 7}) == [LetterId(3, 6)]
    assert ledger.before({2: 7}) == []
