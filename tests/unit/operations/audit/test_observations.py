"""Records of each topic, as the worker writes them, become observations."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from aiokafka.structs import ConsumerRecord

from agents.decode import Headers, Record
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Header, Origin
from streams.operations.audit.observations import (
    Kind,
    conversation_key,
    observe_dead_letter,
    observe_event,
    observe_record,
    observe_row,
    tenant_and_id,
)
from tests.support.topics import TOPICS

AT = datetime(2026, 3, 1, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000
GOOD = b'{"id":"c1","text":"where is my order","occurred_at":"2026-03-01T00:00:00Z"}'
ORIGIN = Origin(TOPICS.conversations, 2, 7)


def found(
    topic: str = TOPICS.conversations,
    *,
    value: bytes | None = GOOD,
    key: bytes | None = b"k",
    headers: Headers | None = None,
    offset: int = 7,
    timestamp_ms: int = 0,
) -> ConsumerRecord:
    size = len(value or b"")
    return ConsumerRecord(topic, 2, offset, timestamp_ms, 0, key, value, None, 0, size, tuple(headers or ()))


def dead_letter(
    value: bytes | None, reason: DeadLetterReason, headers: Headers | None = None, conversation_id: str | None = None
) -> ConsumerRecord:
    written = DeadLetter(b"k", value, headers or [], reason, "", ORIGIN, AT, AT, conversation_id)
    return found(TOPICS.dead_letters, value=value, headers=written.headers_out(), offset=0)


def test_a_record_is_identified_by_tenant_id_and_origin() -> None:
    """It is due if the group has committed it."""
    observation = observe_record(found(headers=[(Header.TENANT, b"acme")]), is_due=True)
    assert tenant_and_id(observation.key) == ("acme", "c1")
    assert (observation.kind, observation.origin) == (Kind.RECORD, ORIGIN)
    assert (observation.state, observation.occurred_us) == (1, AT_US)


def test_a_records_time_stamp_may_be_any_number() -> None:
    """A producer sets it; SQLite takes 63 bits."""
    for timestamp_ms, made_us in ((-1, 0), (5, 5_000), (2**63 - 1, (2**63 - 1) // 1_000 * 1_000)):
        assert observe_record(replace(found(), timestamp=timestamp_ms), is_due=True).made_us == made_us


def test_records_without_an_id_share_no_key() -> None:
    """Neither with each other nor with a conversation."""
    broken = [observe_record(found(value=b"{", offset=offset), is_due=True) for offset in (1, 2)]
    assert [tenant_and_id(observation.key) for observation in broken] == [None, None]
    assert broken[0].key != broken[1].key


def test_a_rehomed_record_is_a_copy_of_its_original() -> None:
    """With the original's origin and time."""
    value = json.dumps({"id": "c1", "text": "x y z"}).encode()
    original = Record(found(value=value, timestamp_ms=5_000), was_rehomed=False)
    copied = found(TOPICS.rehomed, value=value, headers=original.rehoming_headers(), offset=90)
    copy = observe_record(copied, is_due=False, is_rehomed=True)
    assert (copy.kind, copy.origin, copy.state, copy.occurred_us) == (Kind.COPY, ORIGIN, 0, 5_000_000)


def test_a_foreign_record_in_the_topic_of_copies_is_its_own_origin() -> None:
    """This holds where its headers name an offset that no log has, too."""
    absurd = [("rehomed.topic", b"x"), ("rehomed.partition", b"1"), ("rehomed.offset", b"9" * 30)]
    for headers in ([], absurd):
        observation = observe_record(found(TOPICS.rehomed, headers=headers), is_due=True, is_rehomed=True)
        assert (observation.kind, observation.origin) == (Kind.RECORD, Origin(TOPICS.rehomed, 2, 7))


def test_a_dead_letter_has_the_key_of_its_record() -> None:
    """Whether or not it has a readable id."""
    tenant: Headers = [(Header.TENANT, b"acme")]
    for value in (GOOD, b"{", None):
        record = observe_record(found(value=value, headers=tenant), is_due=True)
        observation = observe_dead_letter(dead_letter(value, DeadLetterReason.REFUSED, tenant))
        assert (observation.key, observation.origin, observation.kind) == (record.key, ORIGIN, Kind.DEAD_LETTER)
        assert observation.made_us == AT_US


def test_a_dead_letter_of_a_record_that_fails_its_check_has_its_key() -> None:
    """By its header, where its value is truncated; both say nothing of when the conversation took place."""
    value = b'{"id":"c1","occurred_at":"2026-03-01T00:00:00Z","text":5}'
    record = observe_record(found(value=value), is_due=True)
    assert (tenant_and_id(record.key), record.occurred_us) == (("default", "c1"), 0)
    for stored, conversation_id in ((value, None), (value, "c1"), (value[:20], "c1")):
        written = dead_letter(stored, DeadLetterReason.INVALID, conversation_id=conversation_id)
        assert observe_dead_letter(written).key == record.key


def test_a_dead_letter_says_whether_a_row_is_needed() -> None:
    """None is, where the record failed its check and no id was read, or where its row could not be stored."""

    def needing_a_row(conversation_id: str | None) -> set[DeadLetterReason]:
        written = {reason: dead_letter(GOOD, reason, conversation_id=conversation_id) for reason in DeadLetterReason}
        return {reason for reason in written if not observe_dead_letter(written[reason]).state}

    assert needing_a_row(None) == {DeadLetterReason.REFUSED, DeadLetterReason.BAD_ANSWER}
    assert needing_a_row("c1") == set(DeadLetterReason) - {DeadLetterReason.UNSTORABLE}


def test_an_event_is_identified_by_key_and_headers() -> None:
    """Its value is not read."""
    headers = [(Header.SOURCE, b"/conversations/2/7"), (Header.TENANT, b"acme")]
    observation = observe_event(found(TOPICS.insights, key=b"c1", headers=headers, value=None))
    assert (observation.key, observation.origin, observation.kind) == (
        conversation_key("acme", "c1"),
        ORIGIN,
        Kind.EVENT,
    )


def test_foreign_dead_letters_and_events_are_their_own_origin() -> None:
    """Whatever they contain; no record is found there."""
    for source in (b"/gateway", b"/a/b/c", b"conversations/2/7", b"/conversations/2/" + b"9" * 30, b"/\xff/1/1"):
        event = found(TOPICS.insights, headers=[(Header.SOURCE, source), (Header.TENANT, b"t")])
        assert observe_event(event).origin == Origin(TOPICS.insights, 2, 7)
    headers = [(Header.SOURCE, b"/conversations/2/7"), (Header.TENANT, b"\xff")]
    assert observe_event(found(TOPICS.insights, headers=headers)).origin == Origin(TOPICS.insights, 2, 7)
    assert observe_dead_letter(found(TOPICS.dead_letters)).origin == Origin(TOPICS.dead_letters, 2, 7)


def test_a_row_matches_its_record() -> None:
    """By key, origin and time."""
    record = observe_record(found(), is_due=True)
    columns = {"tenant": "default", "conversation_id": "c1", "outcome": "cached", "occurred_at": AT, "analysed_at": AT}
    origin = {"origin_topic": ORIGIN.topic, "origin_partition": ORIGIN.partition, "origin_offset": ORIGIN.offset}
    row = observe_row({**columns, **origin})
    assert (row.key, row.origin, row.occurred_us) == (record.key, record.origin, record.occurred_us)
