"""Letter: a dead letter as it stands in the topic `conversations.dlq`, and the record that a replay makes of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from agents.decode import Headers, as_time, header_text
from schemas.kafka import DEFAULT_TENANT, Header, Origin
from streams.sinks.dead_letters import TRUNCATED

#: Names the letter that a record in `conversations` was made of. Nothing acts on it: it is there for whoever looks.
REPLAY_LETTER = "replay.letter"
#: How often the record has been replayed; it stays with it, also through another death.
REPLAY_COUNT = "replay.count"
_OURS = "dlq."
_LETTER_ID = re.compile(r"(\d{1,9}):(\d{1,18})")


class LetterId(NamedTuple):
    """A letter's place in the topic, written partition:offset."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


def parse_letter_id(text: str) -> LetterId | None:
    """None where the text is no partition:offset."""
    found = _LETTER_ID.fullmatch(text)
    return LetterId(int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True, slots=True)
class Letter:
    """`key` is the conversation's id where one could be read, else the original key; `headers` are the original ones.

    `replays` is how often the record was replayed before this death. `origin` is None for a record that somebody else
    put into the topic: it is shown, but there is nothing to replay.
    """

    id: LetterId
    written_ms: int
    reason: str
    detail: str
    origin: Origin | None
    received_at: datetime
    at: datetime
    key: bytes | None
    original_key: bytes | None
    tenant: str
    replays: int
    value: bytes | None
    headers: Headers
    truncated_from_bytes: int | None

    @property
    def size_bytes(self) -> int:
        """Of the value as it stands in the letter."""
        return len(self.value or b"")


def read_letter(record: ConsumerRecord) -> Letter:
    """Takes any record: what is missing or broken in it is left empty."""
    given = dict(record.headers)
    key = record.key
    headers = [(name, value) for name, value in record.headers if not name.startswith(_OURS)]
    return Letter(
        id=LetterId(record.partition, record.offset),
        written_ms=record.timestamp,
        reason=_text(given, "dlq.reason") or "unknown",
        detail=_text(given, "dlq.detail"),
        origin=_origin(given),
        received_at=_time(given, "dlq.received_at", record.timestamp),
        at=_time(given, "dlq.at", record.timestamp),
        key=key,
        original_key=given.get("dlq.key"),
        tenant=_tenant(headers),
        replays=_number(given, REPLAY_COUNT) or 0,
        value=record.value,
        headers=headers,
        truncated_from_bytes=_number(given, TRUNCATED),
    )


class Outgoing(NamedTuple):
    """What a replay sends to `conversations`."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def outgoing(letter: Letter, value: bytes | None) -> Outgoing:
    """The original record: its key, `value` (the whole one) and its headers, the letter's name, the count of replays.

    The time of receipt is stated in `ce_time`, as on the way home: the conversation must not become newer by a replay,
    for the newest one wins.
    """
    assert letter.origin is not None, "only our own letters are replayed"
    ours = {
        Header.TIME: letter.received_at.isoformat(),
        REPLAY_LETTER: str(letter.id),
        REPLAY_COUNT: str(letter.replays + 1),
    }
    headers = [(name, content) for name, content in letter.headers if name not in ours]
    headers += [(name, content.encode()) for name, content in ours.items()]
    # A record of neither key nor value cannot be produced.
    is_nothing = letter.original_key is None and value is None
    return Outgoing(letter.original_key, b"" if is_nothing else value, headers)


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    return (headers.get(name) or b"").decode(errors="replace")


def _number(headers: Mapping[str, bytes | None], name: str) -> int | None:
    text = _text(headers, name)
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _origin(headers: Mapping[str, bytes | None]) -> Origin | None:
    topic, partition, offset = (
        _text(headers, "dlq.topic"),
        _number(headers, "dlq.partition"),
        _number(headers, "dlq.offset"),
    )
    if not topic or partition is None or offset is None:
        return None
    return Origin(topic, partition, offset)


def _tenant(headers: Headers) -> str:
    """As a worker reads it, but for its check."""
    return header_text(headers, Header.TENANT) or DEFAULT_TENANT


def _time(headers: Mapping[str, bytes | None], name: str, timestamp_ms: int) -> datetime:
    """The time that the header tells; of a foreign record, when it was written."""
    try:
        at = datetime.fromisoformat(_text(headers, name))
    except ValueError:
        return as_time(timestamp_ms)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
