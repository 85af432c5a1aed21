"""Letters as they stand in the topic, for tests; and a producer in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord, RecordMetadata
from streams.sinks.producer import Headers

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Origin
from streams.dlq.letter import Letter, read_letter
from tests.fakes.analysis import NOON
from tests.support.topics import TOPICS

WRITTEN_MS = 1_790_000_000_000
EARLIER = NOON - timedelta(hours=1)


def dead_letter(**fields: Any) -> DeadLetter:
    values = {
        "key": b"key",
        "value": b'{"id":"c-1","text":"where is my parcel"}',
        "headers": [],
        "reason": DeadLetterReason.REFUSED,
        "detail": "the provider refused",
        "origin": Origin(TOPICS.conversations, 1, 2),
        "received_at": EARLIER,
        "at": NOON,
    }
    return DeadLetter(**{**values, **fields})


def record(
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"c-1",
    headers: Headers | None = None,
    offset: int = 7,
    written_ms: int = WRITTEN_MS,
) -> ConsumerRecord:
    """A record of the dead letters' topic, partition 3."""
    return ConsumerRecord(
        TOPICS.dead_letters, 3, offset, written_ms, 0, key, value, None, 0, len(value or b""), tuple(headers or ())
    )


def letter(*, offset: int = 7, extra: Headers | None = None, **fields: Any) -> Letter:
    """Read back from the topic as DeadLetterSink wrote it, with `extra` headers after its own."""
    written = dead_letter(**fields)
    return read_letter(record(written.value, headers=[*written.headers_out(), *(extra or [])], offset=offset))


@dataclass(frozen=True)
class Sent:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class FakeSender:
    """Confirms at once and keeps what was sent, in order; `refuse` may raise instead."""

    def __init__(self, refuse: Callable[[Sent], None] = lambda _: None) -> None:
        self.sent: list[Sent] = []
        self._refuse = refuse

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> RecordMetadata:
        record = Sent(topic, key, value, headers)
        self._refuse(record)
        self.sent.append(record)
        return RecordMetadata(topic, 0, TopicPartition(topic, 0), len(self.sent) - 1, 0, 0, 0)

    def to(self, topic: str) -> list[Sent]:
        return [record for record in self.sent if record.topic == topic]
