"""Entry: one finding of the audit, whichever of the topics or rows it came from. Pure; does no I/O."""

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from agents.decode import Record, decode
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from schemas.kafka import Header, Origin
from schemas.outcome import OUTCOME_NAMES, OutcomeName
from streams.dlq.letter import read_letter

#: What a letter says of a record whose id could not be read, or whose row Postgres refuses: no row is due then.
ROWLESS_REASONS = frozenset(
    {
        DeadLetterReason.UNDECODABLE,
        DeadLetterReason.TOO_LARGE,
        DeadLetterReason.INVALID,
        DeadLetterReason.BAD_TENANT,
        DeadLetterReason.UNSTORABLE,
    }
)
#: No UTF-8 text starts with it, so no conversation's key does.
_NAMELESS = b"\xff"
_MAX_NUMBER = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Kind(IntEnum):
    """In the order in which the findings of one conversation are looked at."""

    ROW = 0
    RECORD = 1
    COPY = 2  # of a record, on its way home
    LETTER = 3
    EVENT = 4


class Entry(NamedTuple):
    """`key` is the conversation's, or one of its own where no id can be read; the place is that of the origin.

    `state`: of a row the index of its outcome, of a record or copy 1 when it is due, of a letter 1 when it needs no
    row. `occurred_us` and `made_us` are microseconds since 1970, 0 where they mean nothing: when the conversation
    took place, and when the record, copy, row or letter was made.
    """

    key: bytes
    kind: int
    topic: str
    partition: int
    offset: int
    state: int = 0
    occurred_us: int = 0
    made_us: int = 0

    @property
    def place(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset)


def conversation_key(tenant: str, conversation_id: str) -> bytes:
    """One key for each row that may be: neither a tenant nor an id holds a NUL."""
    return f"{tenant}\0{conversation_id}".encode()


def name_of(key: bytes) -> tuple[str, str] | None:
    """Tenant and id of a key, None for what has no id that can be read."""
    if key.startswith(_NAMELESS):
        return None
    tenant, _, conversation_id = key.decode().partition("\0")
    return tenant, conversation_id


def row_entry(
    tenant: str, conversation_id: str, outcome: OutcomeName, occurred_at: datetime, analysed_at: datetime, place: Origin
) -> Entry:
    """Of one row of `insights`."""
    return Entry(
        conversation_key(tenant, conversation_id),
        Kind.ROW,
        place.topic,
        place.partition,
        place.offset,
        OUTCOME_NAMES.index(outcome),
        _microseconds(occurred_at),
        _microseconds(analysed_at),
    )


def record_entry(found: ConsumerRecord, *, is_due: bool, is_rehomed: bool = False) -> Entry:
    """Of a record of an input topic: a COPY where it stands for a record of another place."""
    record = Record(found, was_rehomed=is_rehomed)
    place = record.origin if _is_storable(record.origin) else _own_place(found)
    key, occurred_us = _opened(record, place)
    kind = Kind.RECORD if place == _own_place(found) else Kind.COPY
    return Entry(key, kind, place.topic, place.partition, place.offset, int(is_due), occurred_us, stamp_us(found))


def stamp_us(found: ConsumerRecord) -> int:
    """When the record was written, by its own time stamp: a producer may have stamped it with any number."""
    stamp_ms: int = found.timestamp
    return min(max(0, stamp_ms), _MAX_NUMBER // 1_000) * 1_000


def letter_entry(found: ConsumerRecord) -> Entry:
    """Of a dead letter, which is opened as its record was; one that names no origin stands for itself."""
    letter = read_letter(found)
    if letter.origin is None:
        return _nameless(_own_place(found), Kind.LETTER)
    place = letter.origin
    key, _ = _opened(Record(found, was_rehomed=False), place)
    is_rowless = letter.reason in ROWLESS_REASONS
    return Entry(
        key, Kind.LETTER, place.topic, place.partition, place.offset, int(is_rowless), 0, _microseconds(letter.at)
    )


def event_entry(found: ConsumerRecord) -> Entry:
    """Of an event; one that names no conversation or no origin stands for itself."""
    named = dict(found.headers)
    source = (named.get(Header.SOURCE) or b"").split(b"/")
    place = _place(*source[1:]) if len(source) == 4 and not source[0] else None
    tenant, conversation_id = _text(named.get(Header.TENANT)), _text(found.key)
    if place is None or tenant is None or conversation_id is None:
        return _nameless(_own_place(found), Kind.EVENT)
    return Entry(conversation_key(tenant, conversation_id), Kind.EVENT, place.topic, place.partition, place.offset)


def _opened(record: Record, place: Origin) -> tuple[bytes, int]:
    """Key and time of what a record holds, by the same reading as the worker's."""
    try:
        decode(record)
    except Unprocessable:
        return _nameless_key(place), 0
    return conversation_key(record.tenant, record.id), _microseconds(record.occurred_at)


def _nameless(place: Origin, kind: Kind) -> Entry:
    return Entry(_nameless_key(place), kind, place.topic, place.partition, place.offset)


def _nameless_key(place: Origin) -> bytes:
    return _NAMELESS + f"{place.topic}/{place.partition}/{place.offset}".encode()


def _own_place(found: ConsumerRecord) -> Origin:
    return Origin(found.topic, found.partition, found.offset)


def _place(topic: bytes | None, partition: bytes | None, offset: bytes | None) -> Origin | None:
    if topic is None or partition is None or offset is None:
        return None
    try:
        place = Origin(topic.decode(), int(partition), int(offset))
    except ValueError:
        return None
    return place if _is_storable(place) else None


def _is_storable(place: Origin) -> bool:
    """Headers may hold numbers of any size."""
    return 0 <= place.partition <= _MAX_NUMBER and 0 <= place.offset <= _MAX_NUMBER


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
