"""What the group's offsets and the oldest records of a topic prove."""

from aiokafka.structs import ConsumerRecord

from streams.operations.audit.findings import group_progress
from streams.operations.audit.reconcile import ALWAYS, CLOCK_SKEW_US, NEVER, complete_since_us
from tests.support.topics import TOPICS


def test_records_below_the_committed_offset_are_due() -> None:
    """At both edges of the log nothing is wrong."""
    for committed in (10, 40, 90):
        offsets = group_progress(10, committed, 90)
        assert (offsets.due_below, offsets.lost, offsets.ahead, offsets.unverifiable) == (committed, 0, 0, 0)


def test_records_that_were_removed_before_they_were_committed_are_lost() -> None:
    """Workers restart at the log's beginning."""
    assert group_progress(10, 7, 90).lost == 3
    assert group_progress(10, 0, 90).lost == 10


def test_committed_offsets_beyond_the_log_belong_to_another_log() -> None:
    """Workers read all of this one again, so nothing is due."""
    offsets = group_progress(10, 95, 90)
    assert (offsets.ahead, offsets.lost, offsets.due_below) == (5, 0, 10)


def test_removed_records_are_unverifiable_while_nothing_is_committed() -> None:
    """Workers may have read them or not."""
    offsets = group_progress(10, None, 90)
    assert (offsets.unverifiable, offsets.lost, offsets.ahead, offsets.due_below) == (10, 0, 0, 0)


def oldest(timestamp_ms: int) -> ConsumerRecord:
    return ConsumerRecord(TOPICS.insights, 0, 9, timestamp_ms, 0, None, b"", None, 0, 0, ())


def test_a_topic_that_retention_did_not_touch_is_complete() -> None:
    """Also for records stamped before 1970."""
    assert complete_since_us([]) == ALWAYS < 0


def test_a_topic_is_complete_since_the_latest_of_its_truncated_partitions() -> None:
    """An event may be in any of them, and clocks may differ."""
    assert complete_since_us([oldest(5_000), oldest(9_000), oldest(1_000)]) == 9_000_000 + CLOCK_SKEW_US


def test_a_topic_with_an_emptied_partition_proves_nothing() -> None:
    """Whatever the others hold."""
    assert complete_since_us([oldest(5_000), None]) == NEVER > 2**63
