"""From when on a topic holds all that was sent to it."""

from aiokafka.structs import ConsumerRecord

from streams.audit.wholeness import ALWAYS, CLOCKS_APART_US, NEVER, Whole, whole_from_us
from tests.support.topics import TOPICS


def oldest(timestamp_ms: int) -> ConsumerRecord:
    return ConsumerRecord(TOPICS.insights, 0, 9, timestamp_ms, 0, None, b"", None, 0, 0, ())


def test_a_topic_that_retention_has_not_cut_holds_everything() -> None:
    """Also what was stamped before 1970."""
    assert whole_from_us([]) == ALWAYS
    assert Whole().has_events_of(0)


def test_a_topic_is_whole_since_the_worst_of_its_cut_partitions() -> None:
    """An event may lie in any; clocks may differ."""
    since_us = whole_from_us([oldest(5_000), oldest(9_000), oldest(1_000)])
    assert since_us == 9_000_000 + CLOCKS_APART_US
    assert Whole(events_from_us=since_us).has_events_of(int(since_us) + 1)
    assert not Whole(events_from_us=since_us).has_events_of(int(since_us))


def test_a_topic_with_a_partition_that_was_emptied_proves_nothing() -> None:
    """Whatever the others hold."""
    assert whole_from_us([oldest(5_000), None]) == NEVER
    assert not Whole(letters_from_us=NEVER).has_letters_of(2**63 - 1)
