"""A dead letter is read back as it was written, and a replay sends the original record."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from schemas.errors import Unprocessable
from schemas.kafka import Header, Origin
from streams.operations.dlq.dead_letter import (
    REPLAY_COUNT,
    REPLAYED_DEAD_LETTER,
    DeadLetterId,
    original_value,
    parse_id,
    read_dead_letter,
    replay_record,
)
from tests.support.factories import NOON
from tests.unit.operations.dlq.factories import EARLIER, WRITTEN_MS, dead_letter, record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3:17", DeadLetterId(3, 17)),
        ("0:0", DeadLetterId(0, 0)),
        ("3", None),
        ("a:1", None),
        ("-1:2", None),
        ("1:2:3", None),
    ],
)
def test_an_id_is_partition_and_offset(text: str, expected: DeadLetterId | None) -> None:
    """And nothing else."""
    assert parse_id(text) == expected
    assert expected is None or str(expected) == text


def test_what_the_sink_wrote_is_read_back() -> None:
    """Reason, detail, origin, time and original key, and the record's own headers without ours."""
    read = dead_letter(headers=[("tenant", b"acme"), ("x", b"\xff"), ("none", None)], extra=[("dlq.new", b"?")])
    assert (read.id, read.reason, read.detail) == (DeadLetterId(3, 7), "refused", "the provider refused")
    assert (read.origin, read.at, read.original_key) == (Origin("conversations", 1, 2), NOON, b"key")
    assert read.headers == [("tenant", b"acme"), ("x", b"\xff"), ("none", None)]


@pytest.mark.parametrize(
    ("named", "value", "expected"),
    [
        ("c-7", b'{"id":"c-7","te', "c-7"),
        (None, b'{"id":7,"text":5}', "7"),
        (None, b'{"text":"where is my parcel"}', None),
        (None, b"c-1", None),
        (None, None, None),
    ],
)
def test_the_conversation_is_that_of_the_header_or_the_value(
    named: str | None, value: bytes | None, expected: str | None
) -> None:
    """Earlier versions wrote no such header. The key is not read: it may be the producer's own."""
    assert dead_letter(conversation_id=named, value=value).conversation_id == expected


def test_a_foreign_record_is_read_with_what_it_has() -> None:
    """Any program may write to the topic: missing or malformed headers stop no list."""
    broken = [("dlq.partition", b"x"), ("dlq.at", b"\xff"), ("dlq.topic", None), ("dlq.truncated_from_bytes", b"1e3")]
    for headers in ([], broken):
        read = read_dead_letter(record(headers=headers))  # type: ignore[arg-type]
        assert (read.origin, read.reason, read.truncated_from_bytes) == (None, "unknown", None)
        assert read.at == datetime.fromtimestamp(WRITTEN_MS / 1000, UTC)


def test_the_tenant_is_the_one_that_the_worker_reads() -> None:
    """The last header of that name, or the default."""
    assert dead_letter().tenant == "default"
    assert dead_letter(headers=[("tenant", b"old"), ("tenant", b"acme")]).tenant == "acme"


def test_a_replay_sends_the_original_key_value_and_headers() -> None:
    """It adds the dead letter's id, and replaces the one of an earlier replay."""
    before = [("tenant", b"acme"), (Header.TIME, EARLIER.isoformat().encode()), (REPLAYED_DEAD_LETTER, b"0:0")]
    sent = replay_record(dead_letter(headers=before), b"value")
    assert (sent.key, sent.value) == (b"key", b"value")
    assert sent.headers == [*before[:2], (REPLAYED_DEAD_LETTER, b"3:7"), (REPLAY_COUNT, b"1")]


def test_replays_are_counted_in_the_record() -> None:
    """A header that is not a number counts as none."""
    again = dead_letter(headers=[(REPLAY_COUNT, b"2")])
    assert again.replays == 2
    assert dict(replay_record(again, b"").headers)[REPLAY_COUNT] == b"3"
    assert dead_letter(headers=[(REPLAY_COUNT, b"-1")]).replays == 0


@pytest.mark.parametrize("stated", [[], [(Header.TIME, b"yesterday")], [(Header.TIME, b"9999-01-01T00:00:00Z")]])
def test_a_replay_makes_no_conversation_newer(stated: list[tuple[str, bytes]]) -> None:
    """A newer record of the same id may have arrived between receipt and death: it must win all the same."""
    sent = replay_record(dead_letter(headers=stated), b"")
    assert dict(sent.headers)[Header.TIME] == EARLIER.isoformat().encode()


def test_a_record_with_neither_key_nor_value_can_be_sent() -> None:
    """Kafka's clients refuse such a record; an empty value dies the same death."""
    assert replay_record(dead_letter(key=None, value=None), None)[:2] == (None, b"")
    assert replay_record(dead_letter(value=None), None)[:2] == (b"key", None)


WHOLE = b"a value that was too large"


class Log:
    """Holds one record of the origin's partition, or none."""

    def __init__(self, **fields: Any) -> None:
        values = {"offset": 2, "key": b"key", "value": WHOLE, **fields}
        self.record = ConsumerRecord(
            "conversations", 1, values["offset"], 0, 0, values["key"], values["value"], None, 0, len(WHOLE), ()
        )

    async def first_records(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, ConsumerRecord | None]:
        assert offsets == {TopicPartition("conversations", 1): 2}
        return dict.fromkeys(offsets, self.record if self.record.offset >= 0 else None)


async def replayed_value(log: Log) -> bytes | None:
    size = [("dlq.truncated_from_bytes", b"%d" % len(WHOLE))]
    return await original_value(log, dead_letter(value=WHOLE[:7], extra=size))  # type: ignore[arg-type]


async def test_a_truncated_dead_letter_is_replayed_from_its_original() -> None:
    """Found by origin, key and size, and because it begins with what the dead letter holds."""
    assert await replayed_value(Log()) == WHOLE


@pytest.mark.parametrize(
    "other", [{"offset": -1}, {"offset": 3}, {"key": b"k"}, {"value": WHOLE + b"!"}, {"value": WHOLE[::-1]}]
)
async def test_another_record_in_its_place_is_not_replayed(other: dict[str, Any]) -> None:
    """A recreated topic holds other records at the same offsets; retention moves the first record on."""
    with pytest.raises(Unprocessable, match="7 of 26 bytes"):
        await replayed_value(Log(**other))


async def test_an_untruncated_dead_letter_needs_no_broker() -> None:
    """Its own value is the record's."""
    assert await original_value(None, dead_letter(value=b"whole")) == b"whole"  # type: ignore[arg-type]
