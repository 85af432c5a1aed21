"""Counts and the newest letters, in memory that the limit bounds."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

from schemas.dead_letter import DeadLetterReason
from schemas.kafka import Origin
from streams.dlq.filters import Filters
from streams.dlq.ledger import Ledger, mark_record
from streams.dlq.letter import Letter, read_letter
from streams.dlq.selection import Selection
from streams.dlq.survey import Newest, survey_of
from tests.fakes.analysis import NOON
from tests.unit.dlq.factories import letter, record

ALL = Filters()


async def each(letters: Iterable[Letter]) -> AsyncIterator[Letter]:
    for one in letters:
        yield one


def ledger_of(*letters: Letter) -> Ledger:
    ledger = Ledger()
    for one in letters:
        ledger.add(*mark_record(one, NOON, Origin("conversations", 0, 0)))
    return ledger


def died_after(minutes: int) -> Letter:
    return letter(offset=minutes, at=NOON + timedelta(minutes=minutes))


def test_the_newest_are_kept_newest_first() -> None:
    """In whatever order they come."""
    newest = Newest(3)
    for minutes in (1, 5, 2, 4, 3):
        newest.add(died_after(minutes), None)
    assert [entry.letter.id.offset for entry in newest.entries()] == [5, 4, 3]


def test_a_listed_letter_holds_no_conversation() -> None:
    """Neither what it says nor its headers, only how large it is."""
    newest = Newest(1)
    newest.add(letter(value=b"a secret", headers=[("a", b"b")]), None)
    [entry] = newest.entries()
    assert (entry.letter.value, entry.letter.headers, entry.size_bytes) == (None, [], 8)


async def test_letters_are_counted_by_reason_and_the_replayed_apart() -> None:
    """Foreign ones wait too, but no replay would send them."""
    invalid = letter(offset=8, reason=DeadLetterReason.INVALID)
    found = [letter(), invalid, letter(offset=9), read_letter(record(offset=10))]
    newest = Newest(10)
    survey = await survey_of(each(found), Selection(ALL, ledger_of(found[2])), newest)
    assert survey.unresolved == {"refused": 1, "invalid": 1, "unknown": 1}
    assert (survey.replayed, survey.foreign, survey.to_send.total()) == (1, 1, 2)
    assert {entry.letter.id.offset for entry in newest.entries()} == {7, 8, 10}


async def test_replayed_letters_are_listed_where_they_are_wanted() -> None:
    """With their mark; filters hold for them as well."""
    newest = Newest(10)
    other = letter(offset=8, reason=DeadLetterReason.INVALID)
    selection = Selection(Filters(frozenset({"refused"})), ledger_of(letter(), other))
    survey = await survey_of(each([letter(), other]), selection, newest, with_replayed=True)
    [entry] = newest.entries()
    assert entry.mark is not None
    assert (survey.replayed, survey.unresolved.total(), survey.filtered) == (1, 0, 1)
