"""A letter is sent unless there is a reason not to."""

import pytest

from schemas.kafka import Origin
from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger, mark_record
from streams.dlq.letter import REPLAY_COUNT, Letter, read_letter
from streams.dlq.selection import Selection, Verdict
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import letter, record

MARKED = letter(offset=1)
TIRED = letter(offset=2, headers=[(REPLAY_COUNT, b"3")])


def selection(*, again: bool = False, filters: Filters | None = None) -> Selection:
    ledger = Ledger()
    ledger.add(*mark_record(MARKED, NOON, Origin("conversations", 0, 0)))
    return Selection(filters or Filters(), ledger, again)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (letter(), Verdict.WAITING),
        (letter(headers=[(REPLAY_COUNT, b"2")]), Verdict.WAITING),
        (MARKED, Verdict.REPLAYED),
        (TIRED, Verdict.TOO_OFTEN),
        (read_letter(record()), Verdict.FOREIGN),
    ],
)
def test_each_letter_gets_one_verdict(one: Letter, verdict: Verdict) -> None:
    """Marked ones are done, and records that died after three replays want a person."""
    assert selection().verdict(one) is verdict
    assert selection(filters=Filters(frozenset({"invalid"}))).verdict(one) is Verdict.FILTERED


def test_again_sends_what_was_sent_before() -> None:
    """Marked ones and those sent too often; not what somebody else wrote."""
    again = selection(again=True)
    assert {again.verdict(one) for one in (letter(), MARKED, TIRED)} == {Verdict.WAITING}
    assert again.verdict(read_letter(record())) is Verdict.FOREIGN
