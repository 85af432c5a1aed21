"""Every way in which records, rows, events and dead letters disagree, and every way in which they only seem to."""

import tracemalloc
from contextlib import closing
from itertools import chain

from schemas.kafka import Origin
from schemas.outcome import OUTCOME_NAMES
from streams.operations.audit.findings import ELSEWHERE, Reconciliation, group_progress
from streams.operations.audit.observations import ExternalSort, Kind, Observation, conversation_key
from streams.operations.audit.reconcile import NEVER, CompleteSince, ReadSpan, Reconciler
from tests.support.topics import TOPICS

#: The audit read offsets 10 to 99 of partition 0; up to 109 were written meanwhile.
SPANS = {("conversations", 0): ReadSpan(10, 100, 110), ("conversations.rehomed", 0): ReadSpan(0, 0, 0)}
LATE_US = 1_000


def observation(kind: Kind, offset: int, *, key: str = "a", **fields: int) -> Observation:
    return Observation(conversation_key("t", key), kind, "conversations", 0, offset, **fields)


def record(
    offset: int = 20, *, key: str = "a", due: bool = True, occurred_us: int = 0, written_us: int = 0
) -> Observation:
    return observation(Kind.RECORD, offset, key=key, state=due, occurred_us=occurred_us, made_us=written_us)


def copy(offset: int = 20, *, due: bool = True) -> Observation:
    return observation(Kind.COPY, offset, state=due)


def row(outcome: str, offset: int = 20, *, key: str = "a", occurred_us: int = 0) -> Observation:
    state = OUTCOME_NAMES.index(outcome)
    return observation(Kind.ROW, offset, key=key, state=state, occurred_us=occurred_us, made_us=LATE_US)


def dead_letter(offset: int = 20, *, rowless: bool = False, at_us: int = LATE_US + 1) -> Observation:
    return observation(Kind.DEAD_LETTER, offset, state=rowless, made_us=at_us)


def event(offset: int = 20, *, key: str = "a") -> Observation:
    return observation(Kind.EVENT, offset, key=key)


def without_id(kind: Kind, offset: int = 20, *, state: int = 1) -> Observation:
    return Observation(b"\xffconversations/0/%d" % offset, kind, "conversations", 0, offset, state)


def reconciled(
    *observations: Observation, strict: bool = False, complete: CompleteSince | None = None, show: int = 20
) -> Reconciliation:
    """Returns the result for these observations after checking that its own sums add up."""
    result = Reconciliation(TOPICS.inputs, show, strict=strict)
    for found in observations:
        if found.kind == Kind.RECORD:
            result.counts(found.topic, found.partition).records += 1
        result.rows["read"] += found.kind == Kind.ROW
    with closing(ExternalSort()) as external_sort:
        external_sort.add(list(observations))
        Reconciler(result, SPANS, complete or CompleteSince()).reconcile(external_sort.sorted())
    result.check()
    return result


def statuses(result: Reconciliation) -> dict[str, int]:
    return {str(what): count for what, count in result.total.by.items() if count}


def whys(result: Reconciliation) -> list[str]:
    return [finding.why for finding in result.findings]


def test_every_outcome_is_reconciled() -> None:
    """A row with its event, a dead row with its dead letter, and a dead letter alone for a record without an id."""
    answered = chain.from_iterable(
        (record(offset, key=name), row(name, offset, key=name), event(offset, key=name))
        for offset, name in ((11, "analysed"), (12, "cached"), (13, "filtered"))
    )
    dead = (record(), row("dead"), dead_letter())
    result = reconciled(*answered, *dead, without_id(Kind.RECORD, 30), without_id(Kind.DEAD_LETTER, 30))
    assert not result.problems
    assert statuses(result) == {"analysed": 1, "cached": 1, "filtered": 1, "dead": 2}
    assert result.ids == {"distinct": 4, "repeats": 0, "without_id": 1}


def test_a_due_record_without_an_outcome_is_missing() -> None:
    """The finding has its id and origin."""
    [finding] = reconciled(record(42)).findings
    assert finding[:4] == ("missing", "t", "a", Origin("conversations", 0, 42))


def test_a_record_that_is_not_committed_is_pending_whatever_outcome_it_has() -> None:
    """It will be read again; only a strict audit fails on it."""
    assert statuses(reconciled(record(due=False), row("dead"), event())) == {"pending": 1}
    assert not reconciled(record(due=False)).problems
    assert reconciled(record(due=False), strict=True).problems == {"pending": 1}


def test_a_record_whose_row_was_deleted_is_missing() -> None:
    """Its event or dead letter alone is not an outcome."""
    assert whys(reconciled(record(), event())) == ["an event, but no row"]
    assert whys(reconciled(record(), dead_letter())) == ["a dead letter, but no row"]


def test_a_dead_letter_is_enough_where_there_can_be_no_row() -> None:
    """Postgres refused the row, or the record could not be decoded."""
    assert statuses(reconciled(record(), dead_letter(rowless=True))) == {"dead": 1}


def test_a_record_without_an_id_needs_its_dead_letter() -> None:
    """Nothing else proves that it was processed."""
    result = reconciled(without_id(Kind.RECORD))
    assert result.problems == {"missing": 1}
    assert result.findings[0].id is None


def test_a_row_without_a_record_is_orphaned() -> None:
    """Also where its origin holds a record of another id."""
    assert reconciled(row("analysed", 20), event(20)).problems == {"orphaned": 2}
    other = (record(20, key="b"), row("analysed", 20, key="b"), event(20, key="b"))
    result = reconciled(*other, row("analysed", 20, key="c"))
    assert [(finding.what, finding.id) for finding in result.findings] == [("orphaned", "c")]


def test_a_row_whose_record_retention_removed_is_not_checked() -> None:
    """Nor one of a record that was written after the audit began; one beyond the log's end is orphaned."""
    result = reconciled(
        row("analysed", 9, key="old"), row("analysed", 105, key="new"), row("analysed", 110, key="never")
    )
    assert (result.rows["beyond_retention"], result.rows["later"]) == (1, 1)
    assert [finding.id for finding in result.findings] == ["never"]


def test_partitions_that_do_not_exist_share_their_counts() -> None:
    """Foreign rows and headers may name any number of them."""
    rows = [row("analysed", key=str(n))._replace(partition=n) for n in range(7, 10)]
    copies = [copy()._replace(topic=f"[red]{n}", partition=n, key=conversation_key("t", str(n))) for n in range(9)]
    for observations in (rows, copies):
        result = reconciled(*observations)
        assert [partition for partition, _ in result.partitions] == [ELSEWHERE]
        assert result.problems["orphaned"] == len(observations)


def test_a_dead_row_without_its_dead_letter_is_incomplete() -> None:
    """The record itself would be lost; where retention removed dead letters it cannot be said."""
    assert reconciled(record(), row("dead")).problems == {"incomplete": 1}
    result = reconciled(record(), row("dead"), complete=CompleteSince(dead_letters_us=NEVER))
    assert (result.problems, result.total.by["unverifiable"]) == ({}, 1)


def test_a_row_without_its_event_is_incomplete() -> None:
    """Consumers of events miss the conversation; where retention removed events it cannot be said."""
    assert reconciled(record(), row("cached")).problems == {"incomplete": 1}
    result = reconciled(record(), row("cached"), complete=CompleteSince(events_us=NEVER))
    assert (result.problems, result.total.by["unverifiable"]) == ({}, 1)


def test_an_absence_proves_something_only_of_records_later_than_the_oldest_event_and_dead_letter() -> None:
    """Older ones count as unverifiable; a strict audit lists their ids."""
    cut = CompleteSince(dead_letters_us=500, events_us=500)
    for kept in (row("cached"), row("dead")):
        assert reconciled(record(written_us=501), kept, complete=cut).problems == {"incomplete": 1}
        result = reconciled(record(written_us=500), kept, complete=cut)
        assert (result.problems, result.total.by["unverifiable"]) == ({}, 1)
        strict = reconciled(record(written_us=500), kept, complete=cut, strict=True)
        assert (strict.problems, [finding.id for finding in strict.findings]) == ({"unverifiable": 1}, ["a"])
    assert reconciled(without_id(Kind.RECORD), complete=cut).total.by["unverifiable"] == 1
    other = (row("cached", 21), record(21), event(21))
    assert reconciled(record(written_us=501), *other, complete=cut).problems == {"missing": 1}
    assert reconciled(record(written_us=500), *other, complete=cut).total.by["unverifiable"] == 1


def test_a_record_stamped_with_a_time_in_the_future_causes_no_finding() -> None:
    """Its row shows by when it was finished; a copy is written after its record."""
    cut = CompleteSince(events_us=LATE_US + 1)
    assert reconciled(record(written_us=2**62), row("cached"), complete=cut).total.by["unverifiable"] == 1
    late_copy = copy()._replace(made_us=900)
    result = reconciled(record(), late_copy, row("cached"), complete=CompleteSince(events_us=500))
    assert result.total.by["unverifiable"] == 1


def test_the_groups_offsets_are_part_of_the_result() -> None:
    """Lost records and offsets of another log are findings, without an id."""
    result = Reconciliation(TOPICS.inputs, 20)
    for partition, offsets in enumerate((group_progress(10, 7, 90), group_progress(0, 95, 90))):
        result.add_progress("conversations", partition, offsets)
    result.add_progress("conversations", 2, group_progress(10, None, 90))
    result.check()
    assert (result.problems, result.total.by["unverifiable"]) == ({"lost": 3, "ahead": 5}, 10)
    found = [(finding.what, finding.id, finding.origin.partition) for finding in result.findings]
    assert found == [("lost", None, 0), ("ahead", None, 1)]


def test_a_dead_letter_after_a_row_contradicts_it() -> None:
    """Replaying it would ask again for an answer that exists."""
    assert reconciled(record(), row("analysed"), event(), dead_letter()).problems == {"contradictory": 1}


def test_a_dead_letter_before_a_row_is_from_an_attempt_before_a_crash() -> None:
    """It is counted, and not a finding."""
    result = reconciled(record(), row("analysed"), event(), dead_letter(at_us=LATE_US - 1))
    assert (result.problems, result.dead_letters["overtaken"]) == ({}, 1)


def test_an_event_contradicts_a_dead_row() -> None:
    """Dead records have no events."""
    assert reconciled(record(), row("dead"), dead_letter(), event()).problems == {"contradictory": 1}


def test_an_event_without_record_and_row_is_orphaned() -> None:
    """Even where retention may have removed the record: the row would exist."""
    assert reconciled(event(5)).problems == {"orphaned": 1}
    assert not reconciled(event(5), row("analysed", 5)).problems


def test_an_event_or_dead_letter_without_a_record_is_orphaned() -> None:
    """Though another record of the same id has its row."""
    good = (record(20), row("analysed", 20), event(20))
    assert reconciled(*good, event(30)).problems == {"orphaned": 1}
    assert reconciled(*good, dead_letter(30)).problems == {"orphaned": 1}


def test_what_a_crash_repeats_is_counted_and_not_a_finding() -> None:
    """Events, dead letters and copies are delivered at least once."""
    result = reconciled(record(), copy(), copy(), row("analysed"), event(), event(), event())
    assert not result.problems
    assert (result.events["repeated"], result.copies["repeated"]) == (2, 1)
    assert reconciled(record(), row("dead"), dead_letter(), dead_letter()).dead_letters["repeated"] == 1


def test_an_id_that_comes_again_has_one_row() -> None:
    """Each record has an event; the row belongs to the newest."""
    found = (record(20, occurred_us=1), record(21, occurred_us=2), event(20), event(21))
    result = reconciled(*found, row("cached", 21, occurred_us=2))
    assert statuses(result) == {"duplicate": 1, "cached": 1}
    assert result.ids == {"distinct": 1, "repeats": 1, "without_id": 0}


def test_a_duplicate_without_event_and_dead_letter_is_missing() -> None:
    """The other record's row does not prove its outcome."""
    result = reconciled(record(20), record(21), event(21), row("cached", 21))
    assert [(finding.what, finding.origin.offset) for finding in result.findings] == [("missing", 20)]


def test_a_record_that_is_newer_than_the_row_of_its_id_is_missing() -> None:
    """As after the database was restored from a backup."""
    found = (record(20, occurred_us=1), record(21, occurred_us=2), event(20), event(21))
    assert reconciled(*found, row("cached", 20, occurred_us=1)).problems == {"missing": 1}


def test_a_rehomed_record_is_due_once_its_copy_is() -> None:
    """The original is committed as soon as the copy is confirmed."""
    assert statuses(reconciled(record(), copy(due=False))) == {"pending": 1}
    assert statuses(reconciled(record(), copy())) == {"missing": 1}
    assert statuses(reconciled(record(), copy(), row("analysed"), event())) == {"analysed": 1}


def test_a_copy_proves_the_record_that_retention_removed() -> None:
    """It needs an outcome like the record; a copy of a record that never existed is orphaned."""
    assert statuses(reconciled(copy(9))) == {"missing": 1}
    assert not reconciled(copy(9), row("analysed", 9), event(9)).problems
    assert reconciled(copy(20), row("analysed", 20), event(20)).problems == {"orphaned": 1}


def test_a_replayed_dead_letter_is_resolved_by_the_row_of_the_replay() -> None:
    """The first record keeps its dead letter."""
    result = reconciled(record(20), dead_letter(20), record(50), event(50), row("analysed", 50))
    assert (result.problems, statuses(result)) == ({}, {"duplicate": 1, "analysed": 1})


def test_a_replay_that_dies_again_leaves_the_row_dead() -> None:
    """Two dead letters, one row."""
    result = reconciled(record(20), dead_letter(20), row("dead", 20), record(50), dead_letter(50))
    assert (result.problems, statuses(result)) == ({}, {"duplicate": 1, "dead": 1})


def test_an_id_that_comes_very_often_takes_no_memory() -> None:
    """The reconciler holds the evidence of one origin at a time."""
    count = 5_000
    result = Reconciliation(TOPICS.inputs, 20)
    found = chain.from_iterable((record(offset), event(offset)) for offset in range(count))
    tracemalloc.start()
    Reconciler(result, SPANS, CompleteSince()).reconcile(chain([row("cached", count - 1)], found))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert statuses(result) == {"duplicate": count - 1, "cached": 1}
    assert peak_bytes < 256 * 1024


def test_the_number_of_findings_is_bounded_and_all_are_counted() -> None:
    """The worst come first; memory does not grow with the number of problems."""
    many = (record(20 + number, key=str(number)) for number in range(50))
    result = reconciled(row("analysed", 99, key="x"), *many, show=3)
    assert result.problems == {"missing": 50, "orphaned": 1}
    assert [finding.what for finding in result.findings] == ["missing"] * 3
