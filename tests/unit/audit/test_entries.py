"""A record of each topic, as the worker leaves it, becomes the finding it is."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from aiokafka.structs import ConsumerRecord
from streams.pipeline.record import Headers, headers_home, read_record

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Header, Origin
from streams.audit.entries import (
    Kind,
    conversation_key,
    event_entry,
    letter_entry,
    name_of,
    record_entry,
    row_entry,
)
from tests.support.topics import TOPICS

AT = datetime(2026, 3, 1, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000
GOOD = b'{"id":"c1","text":"where is my order","occurred_at":"2026-03-01T00:00:00Z"}'
PLACE = Origin(TOPICS.conversations, 2, 7)


def found(
    topic: str = TOPICS.conversations,
    *,
    value: bytes | None = GOOD,
    key: bytes | None = b"k",
    headers: Headers | None = None,
    partition: int = 2,
    offset: int = 7,
) -> ConsumerRecord:
    size = len(value or b"")
    return ConsumerRecord(topic, partition, offset, 0, 0, key, value, None, 0, size, tuple(headers or ()))


def letter(value: bytes | None, reason: DeadLetterReason, headers: Headers | None = None) -> ConsumerRecord:
    out = DeadLetter(b"k", value, headers or [], reason, "", PLACE, AT, AT).headers_out()
    return found(TOPICS.dead_letters, value=value, headers=out, offset=0)


def test_a_record_is_known_by_tenant_and_id() -> None:
    """And by where it stands."""
    entry = record_entry(found(headers=[(Header.TENANT, b"acme")]), is_due=True)
    assert (name_of(entry.key), entry.kind, entry.place) == (("acme", "c1"), Kind.RECORD, PLACE)
    assert (entry.state, entry.occurred_us) == (1, AT_US)


def test_a_records_time_stamp_may_be_any_number() -> None:
    """A producer sets it; the workbook takes 63 bits."""
    for stamp_ms, made_us in ((-1, 0), (5, 5_000), (2**63 - 1, (2**63 - 1) // 1_000 * 1_000)):
        assert record_entry(replace(found(), timestamp=stamp_ms), is_due=True).made_us == made_us


def test_records_without_an_id_are_each_their_own() -> None:
    """They share no key with each other, nor with any conversation."""
    broken = [record_entry(found(value=b"{", offset=offset), is_due=True) for offset in (1, 2)]
    assert [name_of(entry.key) for entry in broken] == [None, None]
    assert broken[0].key != broken[1].key


def test_a_copy_stands_for_the_record_that_was_sent_home() -> None:
    """With the original's place and time."""
    value = json.dumps({"id": "c1", "text": "x y z"}).encode()
    original = read_record(PLACE, key=b"k", value=value, headers=[], timestamp_s=5.0)
    copied = found(TOPICS.rehomed, value=value, headers=headers_home(original), offset=90)
    copy = record_entry(copied, is_due=False, is_rehomed=True)
    assert (copy.kind, copy.place, copy.state, copy.occurred_us) == (Kind.COPY, PLACE, 0, 5_000_000)


def test_a_foreign_record_in_the_topic_of_copies_stands_for_itself() -> None:
    """Also where its headers name a place that no log has."""
    absurd = [("rehomed.topic", b"x"), ("rehomed.partition", b"1"), ("rehomed.offset", b"9" * 30)]
    for headers in ([], absurd):
        entry = record_entry(found(TOPICS.rehomed, headers=headers), is_due=True, is_rehomed=True)
        assert (entry.kind, entry.place) == (Kind.RECORD, Origin(TOPICS.rehomed, 2, 7))


def test_a_letter_meets_the_record_that_it_holds() -> None:
    """By the same key, whether or not there is an id to read."""
    tenant: Headers = [(Header.TENANT, b"acme")]
    for value in (GOOD, b"{", None):
        record = record_entry(found(value=value, headers=tenant), is_due=True)
        entry = letter_entry(letter(value, DeadLetterReason.REFUSED, tenant))
        assert (entry.key, entry.place, entry.kind) == (record.key, PLACE, Kind.LETTER)
        assert entry.made_us == AT_US


def test_a_letters_reason_says_whether_a_row_is_due() -> None:
    """None is, where the record could not be opened or its row not be stored."""
    rowless = {reason for reason in DeadLetterReason if letter_entry(letter(GOOD, reason)).state}
    assert set(DeadLetterReason) - rowless == {
        DeadLetterReason.REFUSED,
        DeadLetterReason.BAD_ANSWER,
        DeadLetterReason.INTERNAL_ERROR,
    }


def test_an_event_tells_its_conversation_and_origin() -> None:
    """By key and headers, without reading the value."""
    headers = [(Header.SOURCE, b"/conversations/2/7"), (Header.TENANT, b"acme")]
    entry = event_entry(found(TOPICS.insights, key=b"c1", headers=headers, value=None))
    assert (entry.key, entry.place, entry.kind) == (conversation_key("acme", "c1"), PLACE, Kind.EVENT)


def test_foreign_letters_and_events_stand_for_themselves() -> None:
    """Whatever is in them; no record will be found there."""
    own = Origin(TOPICS.insights, 2, 7)
    for source in (b"/gateway", b"/a/b/c", b"conversations/2/7", b"/conversations/2/" + b"9" * 30, b"/\xff/1/1"):
        assert (
            event_entry(found(TOPICS.insights, headers=[(Header.SOURCE, source), (Header.TENANT, b"t")])).place == own
        )
    assert letter_entry(found(TOPICS.dead_letters)).place == Origin(TOPICS.dead_letters, 2, 7)


def test_a_row_meets_its_record() -> None:
    """By key, place and time."""
    record = record_entry(found(), is_due=True)
    row = row_entry("default", "c1", "cached", AT, AT, PLACE)
    assert (row.key, row.place, row.occurred_us) == (record.key, record.place, record.occurred_us)
