"""Each way in which books can be wrong, and each in which they only look it."""

import tracemalloc
from collections.abc import Iterable
from itertools import chain

from schemas.kafka import Origin
from schemas.outcome import OUTCOME_NAMES
from streams.audit.books import Books, End
from streams.audit.entries import Entry, Kind, conversation_key
from streams.audit.holdings import Holdings, Span
from streams.audit.judge import Judge
from streams.audit.standing import Standing
from streams.audit.wholeness import NEVER, Whole
from streams.audit.workbook import Workbook
from tests.support.topics import TOPICS

#: Of partition 0: 10 to 99 are held, up to 109 came while the audit looked.
HOLDINGS = Holdings({("conversations", 0): Span(10, 100, 110), ("conversations.rehomed", 0): Span(0, 0, 0)})
LATE_US = 1_000


def entry(kind: Kind, offset: int, *, key: str = "a", **fields: int) -> Entry:
    return Entry(conversation_key("t", key), kind, "conversations", 0, offset, **fields)


def record(offset: int = 20, *, key: str = "a", due: bool = True, occurred_us: int = 0, written_us: int = 0) -> Entry:
    return entry(Kind.RECORD, offset, key=key, state=due, occurred_us=occurred_us, made_us=written_us)


def copy(offset: int = 20, *, due: bool = True) -> Entry:
    return entry(Kind.COPY, offset, state=due)


def row(outcome: str, offset: int = 20, *, key: str = "a", occurred_us: int = 0) -> Entry:
    state = OUTCOME_NAMES.index(outcome)
    return entry(Kind.ROW, offset, key=key, state=state, occurred_us=occurred_us, made_us=LATE_US)


def letter(offset: int = 20, *, rowless: bool = False, at_us: int = LATE_US + 1) -> Entry:
    return entry(Kind.LETTER, offset, state=rowless, made_us=at_us)


def event(offset: int = 20, *, key: str = "a") -> Entry:
    return entry(Kind.EVENT, offset, key=key)


def nameless(kind: Kind, offset: int = 20, *, state: int = 1) -> Entry:
    return Entry(b"\xffconversations/0/%d" % offset, kind, "conversations", 0, offset, state)


def judged(*entries: Entry, strict: bool = False, whole: Whole | None = None, show: int = 20) -> Books:
    """Books of these findings, whose own sums add up."""
    books = Books(TOPICS.inputs, show, strict=strict)
    for found in entries:
        if found.kind == Kind.RECORD:
            books.line(found.topic, found.partition).read += 1
        books.rows["read"] += found.kind == Kind.ROW
    with Workbook() as workbook:
        workbook.add(entries)
        Judge(books, HOLDINGS, whole or Whole()).judge(workbook.in_order())
    books.check()
    return books


def ends(books: Books) -> dict[str, int]:
    return {str(end): count for end, count in books.total.ends.items() if count}


def whys(books: Books) -> list[str]:
    return [fault.why for fault in books.faults]


def test_every_kind_of_end_balances() -> None:
    """A living row with its event, a dead row with its letter, and a letter alone for what has no id."""
    living = chain.from_iterable(
        (record(offset, key=name), row(name, offset, key=name), event(offset, key=name))
        for offset, name in ((11, "analysed"), (12, "cached"), (13, "filtered"))
    )
    books = judged(*living, record(), row("dead"), letter(), nameless(Kind.RECORD, 30), nameless(Kind.LETTER, 30))
    assert books.balance
    assert ends(books) == {"analysed": 1, "cached": 1, "filtered": 1, "dead": 2}
    assert books.ids == {"distinct": 4, "repeats": 0, "nameless": 1}


def test_a_due_record_that_left_nothing_behind_is_missing() -> None:
    """With its id and where it stands."""
    books = judged(record(42))
    [fault] = books.faults
    assert (fault.what, fault.tenant, fault.id, fault.place) == ("missing", "t", "a", Origin("conversations", 0, 42))


def test_a_record_that_is_not_committed_is_pending_whatever_it_left_behind() -> None:
    """It will be read again; only the strict call that wrong."""
    assert ends(judged(record(due=False), row("dead"), event())) == {"pending": 1}
    assert judged(record(due=False)).balance
    assert judged(record(due=False), strict=True).wrong == {"pending": 1}


def test_a_record_whose_row_was_deleted_is_missing() -> None:
    """Its event or letter alone is no end."""
    assert whys(judged(record(), event())) == ["an event, but no row"]
    assert whys(judged(record(), letter())) == ["a letter, but no row"]


def test_a_letter_is_enough_where_there_can_be_no_row() -> None:
    """Postgres refused the row, or the record could not be opened when it died."""
    assert ends(judged(record(), letter(rowless=True))) == {"dead": 1}


def test_what_has_no_id_needs_its_letter() -> None:
    """Else nobody knows of it."""
    books = judged(nameless(Kind.RECORD))
    assert books.wrong == {"missing": 1}
    assert books.faults[0].id is None


def test_a_row_of_no_record_is_invented() -> None:
    """Also where a record of another id stands at its origin."""
    assert judged(row("analysed", 20), event(20)).wrong == {"invented": 2}
    other = (record(20, key="b"), row("analysed", 20, key="b"), event(20, key="b"))
    books = judged(*other, row("analysed", 20, key="c"))
    assert [(fault.what, fault.id) for fault in books.faults] == [("invented", "c")]


def test_a_row_whose_record_retention_took_is_not_judged() -> None:
    """Nor one of a record that came after the audit began to look; one beyond the log's end is invented."""
    books = judged(row("analysed", 9, key="old"), row("analysed", 105, key="new"), row("analysed", 110, key="never"))
    assert (books.rows["beyond_retention"], books.rows["later"]) == (1, 1)
    assert [fault.id for fault in books.faults] == ["never"]


def test_a_row_of_no_partition_is_invented_elsewhere() -> None:
    """However many partitions foreign rows claim, they share one line."""
    strange = [row("analysed", key=str(number))._replace(partition=number) for number in range(7, 10)]
    books = judged(*strange)
    assert books.lines.keys() == {("elsewhere", -1)}
    assert books.wrong == {"invented": 3}


def test_a_dead_row_without_its_letter_is_incomplete() -> None:
    """The record itself would be lost to people; with letters gone by retention it cannot be said."""
    assert judged(record(), row("dead")).wrong == {"incomplete": 1}
    books = judged(record(), row("dead"), whole=Whole(letters_from_us=NEVER))
    assert (books.balance, books.unchecked) == (True, 1)


def test_a_living_row_without_its_event_is_incomplete() -> None:
    """Consumers of events never hear of it."""
    assert judged(record(), row("cached")).wrong == {"incomplete": 1}
    books = judged(record(), row("cached"), whole=Whole(events_from_us=NEVER))
    assert (books.balance, books.unchecked) == (True, 1)


def test_an_absence_proves_something_of_records_later_than_the_oldest_event_and_letter() -> None:
    """Those that are older are counted as unchecked, with their ids for the strict."""
    cut = Whole(letters_from_us=500, events_from_us=500)
    for kept in (row("cached"), row("dead")):
        assert judged(record(written_us=501), kept, whole=cut).wrong == {"incomplete": 1}
        books = judged(record(written_us=500), kept, whole=cut)
        assert (books.wrong, books.unchecked) == ({}, 1)
        strict = judged(record(written_us=500), kept, whole=cut, strict=True)
        assert (strict.wrong, [fault.id for fault in strict.faults]) == ({"unchecked": 1}, ["a"])
    assert judged(nameless(Kind.RECORD), whole=cut).unchecked == 1
    assert judged(record(written_us=501), row("cached", 21), record(21), event(21), whole=cut).wrong == {"missing": 1}
    assert judged(record(written_us=500), row("cached", 21), record(21), event(21), whole=cut).unchecked == 1


def test_a_record_that_was_stamped_with_a_time_to_come_raises_no_alarm() -> None:
    """Its row tells when it ended at the latest; a copy was written after its record."""
    cut = Whole(events_from_us=LATE_US + 1)
    assert judged(record(written_us=2**62), row("cached"), whole=cut).unchecked == 1
    late_copy = copy()._replace(made_us=900)
    assert judged(record(), late_copy, row("cached"), whole=Whole(events_from_us=500)).unchecked == 1


def test_copies_of_places_that_there_are_not_share_one_line() -> None:
    """Whatever foreign headers say."""
    strange = [copy()._replace(topic=f"[red]{n}", partition=n, key=conversation_key("t", str(n))) for n in range(9)]
    books = judged(*strange)
    assert books.lines.keys() == {("elsewhere", -1)}
    assert (books.total.read, books.wrong["invented"]) == (9, 9)


def test_where_the_group_stands_is_part_of_the_books() -> None:
    """Per partition, beside what the log still holds."""
    books = Books(TOPICS.inputs, show=20)
    for partition, standing in enumerate((Standing(10, 7, 90), Standing(0, 95, 90), Standing(10, None, 90))):
        books.stands("conversations", partition, standing)
    books.check()
    assert (books.wrong, books.unchecked) == ({"lost": 3, "ahead": 5}, 10)
    assert [(fault.what, fault.id, fault.place.partition) for fault in books.faults] == [
        ("lost", None, 0),
        ("ahead", None, 1),
    ]


def test_a_letter_after_a_living_row_contradicts_it() -> None:
    """Whoever replays the letter asks again for what there is."""
    assert judged(record(), row("analysed"), event(), letter()).wrong == {"contradictory": 1}


def test_a_letter_before_a_living_row_is_an_attempt_before_a_crash() -> None:
    """It is counted, and no fault."""
    books = judged(record(), row("analysed"), event(), letter(at_us=LATE_US - 1))
    assert (books.balance, books.letters["overtaken"]) == (True, 1)


def test_an_event_contradicts_a_dead_row() -> None:
    """Events are sent for the living only."""
    assert judged(record(), row("dead"), letter(), event()).wrong == {"contradictory": 1}


def test_an_event_without_record_and_row_is_invented() -> None:
    """Even where retention may have taken the record: the row would be there."""
    assert judged(event(5)).wrong == {"invented": 1}
    assert judged(event(5), row("analysed", 5)).balance


def test_an_event_or_letter_of_no_such_record_is_invented() -> None:
    """Though the conversation has its row, by another record."""
    good = (record(20), row("analysed", 20), event(20))
    assert judged(*good, event(30)).wrong == {"invented": 1}
    assert judged(*good, letter(30)).wrong == {"invented": 1}


def test_what_a_crash_repeats_is_counted_and_no_fault() -> None:
    """Events, letters and copies come at least once."""
    books = judged(record(), copy(), copy(), row("analysed"), event(), event(), event())
    assert books.balance
    assert (books.events["repeated"], books.copies["repeated"]) == (2, 1)
    assert judged(record(), row("dead"), letter(), letter()).letters["repeated"] == 1


def test_an_id_that_comes_again_has_one_row() -> None:
    """Each record leaves an event; the row tells of the newest."""
    found = (record(20, occurred_us=1), record(21, occurred_us=2), event(20), event(21))
    books = judged(*found, row("cached", 21, occurred_us=2))
    assert ends(books) == {"repeated": 1, "cached": 1}
    assert books.ids == {"distinct": 1, "repeats": 1, "nameless": 0}


def test_a_repeated_record_that_left_nothing_behind_is_missing() -> None:
    """The other record's row is not its own."""
    books = judged(record(20), record(21), event(21), row("cached", 21))
    assert [(fault.what, fault.place.offset) for fault in books.faults] == [("missing", 20)]


def test_a_row_that_tells_of_an_older_record_lost_the_newer_one() -> None:
    """As after a restore of the database."""
    found = (record(20, occurred_us=1), record(21, occurred_us=2), event(20), event(21))
    assert judged(*found, row("cached", 20, occurred_us=1)).wrong == {"missing": 1}


def test_a_record_sent_home_is_due_once_its_copy_is() -> None:
    """Its original is committed when the copy is confirmed."""
    assert ends(judged(record(), copy(due=False))) == {"pending": 1}
    assert ends(judged(record(), copy())) == {"missing": 1}
    assert ends(judged(record(), copy(), row("analysed"), event())) == {"analysed": 1}


def test_a_copy_stands_for_the_record_that_retention_took() -> None:
    """It must end as the record must; a copy of what never was is invented."""
    assert ends(judged(copy(9))) == {"missing": 1}
    assert judged(copy(9), row("analysed", 9), event(9)).balance
    assert judged(copy(20), row("analysed", 20), event(20)).wrong == {"invented": 1}


def test_a_replayed_letter_is_resolved_by_the_row_of_the_replay() -> None:
    """The first record stays told by its letter."""
    books = judged(record(20), letter(20), record(50), event(50), row("analysed", 50))
    assert (books.balance, ends(books)) == (True, {"repeated": 1, "analysed": 1})


def test_a_replay_that_dies_again_leaves_the_row_dead() -> None:
    """Two letters, one row."""
    books = judged(record(20), letter(20), row("dead", 20), record(50), letter(50))
    assert (books.balance, ends(books)) == (True, {"repeated": 1, "dead": 1})


def test_an_id_that_comes_very_often_takes_no_memory() -> None:
    """One origin's traces are held at a time: neither a conversation nor a bucket of them is collected."""
    count = 20_000
    books = Books(TOPICS.inputs, show=20)
    found = chain.from_iterable((record(offset), event(offset)) for offset in range(count))
    tracemalloc.start()
    Judge(books, HOLDINGS, Whole()).judge(chain([row("cached", count - 1)], found))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ends(books) == {"repeated": count - 1, "cached": 1}
    assert peak_bytes < 256 * 1024


def test_at_most_so_many_faults_are_kept_and_all_are_counted() -> None:
    """The worst first; memory does not grow with what is wrong."""
    many: Iterable[Entry] = (record(20 + number, key=str(number)) for number in range(50))
    books = judged(row("analysed", 99, key="x"), *many, show=3)
    assert books.wrong == {"missing": 50, "invented": 1}
    assert [fault.what for fault in books.faults] == ["missing"] * 3
    assert {end for end in books.total.ends if books.total.ends[end]} == {End.MISSING}
