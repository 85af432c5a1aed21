"""Counts of dead letters, and the newest of them, in bounded memory."""

from datetime import timedelta

from schemas.dead_letter import DeadLetterReason
from streams.operations.dlq.dead_letter import StoredDeadLetter
from streams.operations.dlq.selection import Eligibility, Filters, Newest, Selection, survey
from tests.support.factories import NOON
from tests.unit.operations.dlq.factories import dead_letter, each, foreign, ledger_of


def died_after(minutes: int) -> StoredDeadLetter:
    return dead_letter(offset=minutes, at=NOON + timedelta(minutes=minutes))


def listed(newest: Newest) -> list[int]:
    return [one.id.offset for one, _ in newest.newest_first()]


def test_the_newest_are_kept_newest_first() -> None:
    """In whatever order they come."""
    newest = Newest(3)
    for minutes in (1, 5, 2, 4, 3):
        newest.add(died_after(minutes), None)
    assert listed(newest) == [5, 4, 3]


def test_a_listed_dead_letter_holds_no_conversation() -> None:
    """Neither its value nor its headers, only its size."""
    newest = Newest(1)
    newest.add(dead_letter(value=b"a secret", headers=[("a", b"b")]), None)
    [(one, _)] = newest.newest_first()
    assert (one.value, one.headers, one.size_bytes) == (None, [], 8)


async def test_unresolved_dead_letters_are_counted_by_reason() -> None:
    """Foreign ones are unresolved too, but a replay would not send them."""
    replayed = dead_letter(offset=9)
    found = [dead_letter(), dead_letter(offset=8, reason=DeadLetterReason.INVALID), replayed, foreign(offset=10)]
    newest = Newest(10)
    counts = await survey(each(found), Selection(Filters(), ledger_of(replayed)), newest)
    assert counts.unresolved == {"refused": 1, "invalid": 1, "unknown": 1}
    assert counts.by == {Eligibility.ELIGIBLE: 2, Eligibility.REPLAYED: 1, Eligibility.FOREIGN: 1}
    assert counts.eligible.total() == 2
    assert set(listed(newest)) == {7, 8, 10}


async def test_replayed_dead_letters_are_listed_on_request() -> None:
    """With their mark; filters apply to them too."""
    newest = Newest(10, with_replayed=True)
    other = dead_letter(offset=8, reason=DeadLetterReason.INVALID)
    selection = Selection(Filters(frozenset({"refused"})), ledger_of(dead_letter(), other))
    counts = await survey(each([dead_letter(), other]), selection, newest)
    [(_, mark)] = newest.newest_first()
    assert mark is not None
    assert counts.by == {Eligibility.REPLAYED: 1, Eligibility.FILTERED: 1}
    assert not counts.unresolved
