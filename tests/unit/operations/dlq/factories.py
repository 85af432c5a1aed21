"""Dead letters as stored in the topic, and a producer in memory."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord, RecordMetadata

from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.kafka import Origin
from streams.kafka.producer import Headers
from streams.operations.dlq.dead_letter import StoredDeadLetter, read_dead_letter
from streams.operations.dlq.ledger import ReplayLedger, mark_record
from tests.support.factories import NOON
from tests.support.topics import TOPICS

WRITTEN_MS = 1_790_000_000_000
EARLIER = NOON - timedelta(hours=1)
SENT_TO = Origin("conversations", 0, 99)


def record(
    value: bytes | None = b"{}", *, headers: Headers | None = None, offset: int = 7, written_ms: int = WRITTEN_MS
) -> ConsumerRecord:
    """A record of the dead-letter topic, partition 3."""
    return ConsumerRecord(
        TOPICS.dead_letters, 3, offset, written_ms, 0, b"c-1", value, None, 0, len(value or b""), tuple(headers or ())
    )


def dead_letter(*, offset: int = 7, extra: Headers | None = None, **fields: Any) -> StoredDeadLetter:
    """Returns a dead letter read back as DeadLetterSink wrote it, with `extra` headers after its own."""
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
    written = DeadLetter(**{**values, **fields})
    headers = [*written.headers_out(), *(extra or [])]
    return read_dead_letter(record(written.value, headers=headers, offset=offset))


def foreign(*, offset: int = 7) -> StoredDeadLetter:
    """Returns a dead letter that another program wrote."""
    return read_dead_letter(record(offset=offset))


def ledger_of(*replayed: StoredDeadLetter) -> ReplayLedger:
    """Returns a ledger with a mark for each."""
    ledger = ReplayLedger()
    for one in replayed:
        ledger.add(*mark_record(one, NOON, SENT_TO)[:2])
    return ledger


async def each(dead_letters: Iterable[StoredDeadLetter]) -> AsyncIterator[StoredDeadLetter]:
    for one in dead_letters:
        yield one


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
