"""Step 1: what a record must be; origin, key and time of receipt survive every reading and rehoming."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from agents.decode import (
    MAX_CLOCK_SKEW,
    REHOMED_OFFSET,
    REHOMED_PARTITION,
    REHOMED_TOPIC,
    Record,
    as_time,
    decode,
)
from schemas.conversation import MAX_RECORD_BYTES, Repair
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from schemas.kafka import Origin
from tests.support.factories import NOON, WRITTEN_AT, WRITTEN_AT_MS, a_job, a_record, value_of
from tests.support.topics import TOPICS

Headers = Sequence[tuple[str, bytes]]


def record_of(value: bytes | None = value_of(), *, headers: Headers = ()) -> Record:
    return Record(a_record(value, headers=headers), was_rehomed=False)


def rehomed(first: Record, *, key: bytes = b"text key", timestamp: int = WRITTEN_AT_MS + 9_000) -> Record:
    """The record as it is read from the topic of rehomed records."""
    source = a_record(
        first.source.value,
        topic=TOPICS.rehomed,
        partition=5,
        offset=7,
        key=key,
        headers=first.rehoming_headers(),
        timestamp=timestamp,
    )
    return Record(source, was_rehomed=True)


def test_a_plain_record_is_decoded() -> None:
    """Tenant and time have defaults: the default tenant, the time of receipt."""
    record = record_of(value_of("hello  there friend"))
    decode(record)
    assert (record.tenant, record.id, record.text) == ("default", "c-1", "hello there friend")
    assert record.occurred_at == WRITTEN_AT


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (None, [], DeadLetterReason.UNDECODABLE),
        (b"not json", [], DeadLetterReason.UNDECODABLE),
        (b"\xff", [], DeadLetterReason.UNDECODABLE),
        (b'{"text":"no id"}', [], DeadLetterReason.INVALID),
        (value_of(colour="red"), [], DeadLetterReason.INVALID),
        (b" " * (MAX_RECORD_BYTES + 1), [], DeadLetterReason.TOO_LARGE),
        (value_of(), [("tenant", b"../etc")], DeadLetterReason.BAD_TENANT),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(value: bytes | None, headers: Headers, reason: DeadLetterReason) -> None:
    """One of the closed list; the detail names the field and never quotes the value."""
    with pytest.raises(Unprocessable) as caught:
        decode(record_of(value, headers=headers))
    assert caught.value.reason == reason
    assert "etc" not in caught.value.detail


def test_the_detail_of_a_refused_tenant_says_what_is_allowed() -> None:
    """With the name of the header."""
    with pytest.raises(Unprocessable) as caught:
        decode(record_of(value_of(), headers=[("tenant", b"../etc")]))
    assert caught.value.detail == (
        "the header `tenant` must have 1 to 64 ASCII letters, digits, dots, dashes or underscores, "
        "and begin with a letter or digit"
    )


@pytest.mark.parametrize(
    ("value", "tenant", "id_"),
    [
        (value_of(id=7, colour="red"), b"acme", "7"),
        (b'{"id":[7],"text":"x"}', b"acme", None),
        (b"not json", b"acme", None),
        (value_of(colour="red"), b"../etc", None),
    ],
)
def test_a_record_that_fails_its_check_has_its_id_if_that_can_be_read(value: bytes, tenant: bytes, id_: str) -> None:
    """With its tenant, and the time of receipt. An id of no tenant names nothing."""
    record = record_of(value, headers=[("tenant", tenant)])
    with pytest.raises(Unprocessable):
        decode(record)
    assert (record.id, record.conversation) == (id_, None)
    assert id_ is None or (record.tenant, record.occurred_at) == ("acme", WRITTEN_AT)


@pytest.mark.parametrize(
    ("stated", "received_at"),
    [
        (b"2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (b"2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (b"soon", WRITTEN_AT),
        (b"0001-01-01T00:00:00+14:00", WRITTEN_AT),
        (b"\xff", WRITTEN_AT),
    ],
)
def test_the_time_of_receipt_is_the_headers_or_else_the_brokers(stated: bytes, received_at: datetime) -> None:
    """Either stays the same when the record is read again, so a replay writes the same row."""
    assert record_of(headers=[("ce_time", stated)]).received_at == received_at


def occurred(timestamp: int = WRITTEN_AT_MS, **fields: object) -> tuple[datetime, tuple[Repair, ...]]:
    record = Record(a_record(value_of(**fields), timestamp=timestamp), was_rehomed=False)
    decode(record)
    return record.occurred_at, record.repairs


def messages_at(*times: str) -> dict[str, object]:
    return {"text": None, "messages": [{"role": "user", "text": "hello there", "at": at} for at in times]}


def test_a_conversation_without_a_time_has_that_of_its_latest_message() -> None:
    """One that has grown and is sent again replaces the shorter one. Its own time comes first, and a default date of
    year 1 counts for nothing."""
    times = ("2026-01-31T11:00:00Z", "2026-01-31T14:00:00+02:00", "0001-01-01T00:00:00Z")
    assert occurred(**messages_at(*times)) == (NOON, ())
    assert occurred(occurred_at="2026-01-30T00:00:00Z", **messages_at(*times))[0].day == 30
    assert occurred(**messages_at("0001-01-01T00:00:00+14:00")) == (WRITTEN_AT, ())


@pytest.mark.parametrize(
    "fields",
    [
        {"occurred_at": (WRITTEN_AT + timedelta(seconds=2)).isoformat()},
        {"occurred_at": "9999-12-31T23:59:59-12:00"},
        messages_at("2026-01-31T11:00:00Z", "2999-01-01T00:00:00Z"),
    ],
)
def test_a_time_in_the_future_becomes_the_time_of_receipt(fields: dict[str, object]) -> None:
    """Otherwise no later record of that id could ever replace the row. The mark is in row and event."""
    assert occurred(**fields) == (WRITTEN_AT, (Repair.OCCURRED_AT_CLAMPED,))


def test_clocks_that_differ_by_a_little_are_no_future() -> None:
    """Kafka's own time stamps are whole milliseconds, so that nearly every producer would be ahead of them."""
    ahead = WRITTEN_AT + MAX_CLOCK_SKEW
    assert occurred(occurred_at=ahead.isoformat()) == (ahead, ())


def test_without_a_time_of_receipt_only_an_impossible_time_is_in_the_future() -> None:
    """Some producers write no time stamp; the client's time is all there is then."""
    assert occurred(-1, occurred_at=NOON.isoformat()) == (NOON, ())
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert occurred(-1, occurred_at="9999-01-01T00:00:00Z") == (epoch, (Repair.OCCURRED_AT_CLAMPED,))


@pytest.mark.parametrize("timestamp_ms", [None, -1, 2**63 - 1, -(2**63)])
def test_an_impossible_time_stamp_has_a_fixed_meaning(timestamp_ms: int | None) -> None:
    """A foreign producer may set any 64-bit number."""
    assert as_time(timestamp_ms) == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_rehomed_record_keeps_origin_key_headers_and_time() -> None:
    """They are those of its first reading, however late it is read again."""
    first = Record(a_record(partition=3, key=b"foreign", headers=[("tenant", b"acme")]), was_rehomed=False)
    second = rehomed(first)
    assert (second.origin, second.key, second.received_at) == (first.origin, b"foreign", WRITTEN_AT)
    assert (second.source.partition, second.header("tenant")) == (5, "acme")
    assert not [name for name, _ in second.headers if name.startswith("rehomed.")]


def test_a_rehomed_record_without_a_key_still_has_none() -> None:
    """None is not an empty key."""
    assert rehomed(Record(a_record(key=None), was_rehomed=False)).key is None


def test_a_foreign_producer_cannot_claim_an_origin() -> None:
    """In the open topic, any producer can write our headers."""
    claimed = Record(a_record(partition=3), was_rehomed=False).rehoming_headers()
    record = Record(a_record(partition=1, headers=claimed), was_rehomed=False)
    assert record.origin.partition == 1
    assert record.headers == [("ce_time", WRITTEN_AT.isoformat().encode())]


@pytest.mark.parametrize("headers", [{}, {REHOMED_PARTITION: b"x"}, {REHOMED_TOPIC: None}, {REHOMED_OFFSET: None}])
def test_a_rehomed_record_without_a_usable_origin_has_its_own(headers: dict[str, bytes]) -> None:
    """Another program may have written to the topic; such a record must not end the worker."""
    ours = {REHOMED_TOPIC: b"conversations", REHOMED_PARTITION: b"1", REHOMED_OFFSET: b"2"}
    source = a_record(topic=TOPICS.rehomed, headers=list((ours | headers).items()) if headers else [])
    assert Record(source, was_rehomed=True).origin == Origin(TOPICS.rehomed, 0, 42)


@pytest.mark.parametrize("end", ["finished", "revoked"])
def test_a_job_is_wanted_until_it_is_finished_or_revoked(end: str) -> None:
    """Late work checks this before any visible effect."""
    job = a_job()
    assert job.is_wanted
    if end == "finished":
        job.is_finished = True
    else:
        job.tracker.is_revoked = True
    assert not job.is_wanted
