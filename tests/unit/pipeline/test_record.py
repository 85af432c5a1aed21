"""Records keep their first place, key and time, however often they are read or sent on."""

from datetime import UTC, datetime

from streams.pipeline.record import headers_home, read_record

from schemas.kafka import Origin
from tests.support.topics import TOPICS
from tests.unit.pipeline.factories import READ_AT, READ_AT_S, a_record, value_of


def test_time_of_receipt_is_the_headers_or_else_the_records() -> None:
    """Both stay the same when the record is read again, so a replay writes the same row."""
    assert a_record(value_of()).received_at == READ_AT
    stated = a_record(value_of(), headers=[("ce_time", b"2026-01-31T12:00:00Z")])
    assert stated.received_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert a_record(value_of(), headers=[("ce_time", b"soon")]).received_at == READ_AT
    assert a_record(value_of(), headers=[("ce_time", b"0001-01-01T00:00:00+14:00")]).received_at == READ_AT
    assert a_record(value_of(), headers=[("ce_time", b"\xff")]).received_at == READ_AT


def test_a_record_that_went_home_remembers_where_it_stood() -> None:
    """Origin, key, headers and time of receipt come through the detour unchanged."""
    first = a_record(value_of(), partition=3, key=b"foreign", headers=[("tenant", b"acme")])
    at = Origin(TOPICS.rehomed, 5, 7)
    second = read_record(
        at, key=b"text key", value=first.value, headers=headers_home(first), timestamp_s=READ_AT_S + 9, is_rehomed=True
    )
    assert (second.origin, second.key, second.received_at) == (first.origin, b"foreign", READ_AT)
    assert (second.partition, second.was_rehomed, second.header("tenant")) == (5, True, "acme")
    assert not [name for name, _ in second.headers if name.startswith("rehomed.")]


def test_a_record_without_a_key_has_none_after_the_detour() -> None:
    """None is not an empty key."""
    first = a_record(value_of(), key=None)
    second = read_record(
        Origin(TOPICS.rehomed, 5, 7),
        key=b"t",
        value=first.value,
        headers=headers_home(first),
        timestamp_s=1.0,
        is_rehomed=True,
    )
    assert second.key is None


def test_a_foreign_producer_cannot_claim_an_origin() -> None:
    """In the open topic, headers of ours are anybody's words."""
    claimed = headers_home(a_record(value_of(), partition=3))
    record = a_record(value_of(), partition=1, headers=claimed)
    assert (record.origin.partition, record.was_rehomed) == (1, False)
