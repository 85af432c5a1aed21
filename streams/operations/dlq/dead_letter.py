"""A dead letter as stored in the topic `conversations.dlq`, and the record that a replay makes of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from agents.decode import Headers, as_time, header_text
from schemas.conversation import readable_id
from schemas.dead_letter import CONVERSATION_ID, DeadLetterReason
from schemas.errors import Unprocessable
from schemas.kafka import DEFAULT_TENANT, Header, Origin
from streams.kafka.offset_reader import OffsetReader
from streams.kafka.producer import Outgoing
from streams.sinks.dead_letters import TRUNCATED

#: Header of a replayed record: the id of its dead letter, for people; no code uses it.
REPLAYED_DEAD_LETTER = "replay.letter"
#: Header of a replayed record: how often it was replayed. It stays when the record dies again.
REPLAY_COUNT = "replay.count"
_OUR_PREFIX = "dlq."
_ID = re.compile(r"(\d{1,9}):(\d{1,18})")


class DeadLetterId(NamedTuple):
    """A dead letter's place in its topic, written PARTITION:OFFSET."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def parse_id(text: str) -> DeadLetterId | None:
    """Returns None where the text is not PARTITION:OFFSET."""
    found = _ID.fullmatch(text)
    return DeadLetterId(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter read back; `key` is that of the dead letter itself, `headers` are the record's own.

    `conversation_id` is None where it can be read neither from the dead letter's header nor from its value. `replays`
    counts the replays before this death. `origin` is None for a foreign record, written to the topic by another
    program: it is listed, but cannot be replayed.
    """

    id: DeadLetterId
    written_ms: int
    reason: str
    detail: str
    origin: Origin | None
    received_at: datetime
    at: datetime
    conversation_id: str | None
    key: bytes | None
    original_key: bytes | None
    tenant: str
    replays: int
    value: bytes | None
    headers: Headers
    size_bytes: int
    truncated_from_bytes: int | None


def read_dead_letter(record: ConsumerRecord) -> StoredDeadLetter:
    """Reads any record of the topic; fields that are missing or malformed stay empty."""
    given = dict(record.headers)
    headers = [(name, value) for name, value in record.headers if not name.startswith(_OUR_PREFIX)]
    return StoredDeadLetter(
        id=DeadLetterId(record.partition, record.offset),
        written_ms=record.timestamp,
        reason=_text(given, "dlq.reason") or "unknown",
        detail=_text(given, "dlq.detail"),
        origin=_origin(given),
        received_at=_time(given, "dlq.received_at", record.timestamp),
        at=_time(given, "dlq.at", record.timestamp),
        # Earlier versions and other programs write no such header.
        conversation_id=header_text(record.headers, CONVERSATION_ID) or readable_id(record.value or b""),
        key=record.key,
        original_key=given.get("dlq.key"),
        tenant=header_text(headers, Header.TENANT) or DEFAULT_TENANT,
        replays=_number(given, REPLAY_COUNT) or 0,
        value=record.value,
        headers=headers,
        size_bytes=len(record.value or b""),
        truncated_from_bytes=_number(given, TRUNCATED),
    )


def replay_record(dead_letter: StoredDeadLetter, value: bytes | None) -> Outgoing:
    """Returns the original record, plus the dead letter's id and the count of replays; `value` is the untruncated one.

    `ce_time` gets the time of receipt. A replay must not make the conversation newer, since the newest one wins.
    """
    ours = {
        Header.TIME: dead_letter.received_at.isoformat(),
        REPLAYED_DEAD_LETTER: str(dead_letter.id),
        REPLAY_COUNT: str(dead_letter.replays + 1),
    }
    headers = [(name, content) for name, content in dead_letter.headers if name not in ours]
    headers += [(name, content.encode()) for name, content in ours.items()]
    if dead_letter.original_key is None and value is None:
        value = b""  # Kafka's clients refuse a record with neither key nor value
    return Outgoing(dead_letter.original_key, value, headers)


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    return (headers.get(name) or b"").decode(errors="replace")


def _number(headers: Mapping[str, bytes | None], name: str) -> int | None:
    text = _text(headers, name)
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _origin(headers: Mapping[str, bytes | None]) -> Origin | None:
    topic = _text(headers, "dlq.topic")
    partition, offset = _number(headers, "dlq.partition"), _number(headers, "dlq.offset")
    return Origin(topic, partition, offset) if topic and partition is not None and offset is not None else None


def _time(headers: Mapping[str, bytes | None], name: str, timestamp_ms: int) -> datetime:
    """Returns the header's time, or that of the record where the header has none."""
    try:
        at = datetime.fromisoformat(_text(headers, name))
    except ValueError:
        return as_time(timestamp_ms)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


async def original_value(offset_reader: OffsetReader, dead_letter: StoredDeadLetter) -> bytes | None:
    """Returns the dead letter's value, or that of its original record where it was truncated.

    Raises Unprocessable when the original record is gone, KafkaError when no broker answers.
    """
    if dead_letter.truncated_from_bytes is None or dead_letter.origin is None:
        return dead_letter.value
    partition = TopicPartition(dead_letter.origin.topic, dead_letter.origin.partition)
    original = (await offset_reader.first_records({partition: dead_letter.origin.offset})).get(partition)
    if original is None or not _is_original(dead_letter, original):
        kept = f"{dead_letter.size_bytes} of {dead_letter.truncated_from_bytes} bytes"
        raise Unprocessable(
            DeadLetterReason.TOO_LARGE, f"the dead letter holds {kept}, and the original record is gone"
        )
    value: bytes | None = original.value
    return value


def _is_original(dead_letter: StoredDeadLetter, record: ConsumerRecord) -> bool:
    """Whether this is the dead letter's record: a recreated topic has other records at the same offsets."""
    value = record.value or b""
    return (
        dead_letter.origin is not None
        and record.offset == dead_letter.origin.offset
        and record.key == dead_letter.original_key
        and len(value) == dead_letter.truncated_from_bytes
        and value.startswith(dead_letter.value or b"")
    )
