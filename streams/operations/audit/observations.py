"""Observations: rows, records, dead letters and events, reduced to what the audit compares and sorted on disk."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

import asyncpg
from aiokafka.structs import ConsumerRecord

from agents.decode import Record, decode, header_text
from schemas.dead_letter import CONVERSATION_ID, DeadLetterReason
from schemas.errors import Fatal, Unprocessable
from schemas.kafka import Header, Origin
from schemas.outcome import OUTCOME_NAMES
from streams.operations.dlq.dead_letter import read_dead_letter

#: A record that died of one of these needs no row unless its dead letter names the conversation: no id could be read,
#: or an earlier version did not look for it.
FAILED_CHECK_REASONS = frozenset(
    {
        DeadLetterReason.UNDECODABLE,
        DeadLetterReason.TOO_LARGE,
        DeadLetterReason.INVALID,
        DeadLetterReason.BAD_TENANT,
    }
)
#: Starts the key of a record without a readable id. No UTF-8 text starts with it, so no conversation's key does.
_NO_ID = b"\xff"
_MAX_NUMBER = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Bounds both the pages that SQLite keeps in memory and the size of a sorted run.
SORT_CACHE_KIB = 16 * 1024
_FETCH_ROWS = 1_000
#: The row comes first, since everything else is compared with it; the rest follows by origin.
_SORTED = "SELECT * FROM observations ORDER BY key, kind <> 0, topic, partition, offset"


class Kind(IntEnum):
    """What was observed."""

    ROW = 0
    RECORD = 1
    COPY = 2  # a record that was sent on to its owner partition
    DEAD_LETTER = 3
    EVENT = 4


class Observation(NamedTuple):
    """Something that was read, with the conversation's `key` (or the record's, without a readable id) and its origin.

    `state` is the index of a row's outcome, 1 for a record or copy that is due, and 1 for a dead letter that needs no
    row. `occurred_us` (when the conversation took place) and `made_us` (when the record, copy, row or dead letter was
    written) are microseconds since 1970, 0 where they have no meaning.
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
    def origin(self) -> Origin:
        return Origin(self.topic, self.partition, self.offset)


def conversation_key(tenant: str, conversation_id: str) -> bytes:
    """Returns the key of a conversation; neither a tenant nor an id holds a NUL."""
    return f"{tenant}\0{conversation_id}".encode()


def tenant_and_id(key: bytes) -> tuple[str, str] | None:
    """Returns the tenant and id of a key, None for a record without a readable id."""
    if key.startswith(_NO_ID):
        return None
    tenant, _, conversation_id = key.decode().partition("\0")
    return tenant, conversation_id


def observe_row(row: asyncpg.Record) -> Observation:
    """Observes one row of `insights`."""
    return Observation(
        conversation_key(row["tenant"], row["conversation_id"]),
        Kind.ROW,
        row["origin_topic"],
        row["origin_partition"],
        row["origin_offset"],
        OUTCOME_NAMES.index(row["outcome"]),
        _microseconds(row["occurred_at"]),
        _microseconds(row["analysed_at"]),
    )


def observe_record(found: ConsumerRecord, *, is_due: bool, is_rehomed: bool = False) -> Observation:
    """Observes a record of an input topic: a COPY if it was rehomed."""
    record, own_origin = Record(found, was_rehomed=is_rehomed), _own_origin(found)
    origin = record.origin if _is_storable(record.origin) else own_origin
    key, occurred_us = _key_and_time(record, origin)
    kind = Kind.RECORD if origin == own_origin else Kind.COPY
    return Observation(
        key, kind, origin.topic, origin.partition, origin.offset, int(is_due), occurred_us, timestamp_us(found)
    )


def timestamp_us(found: ConsumerRecord) -> int:
    """Returns the record's own time stamp, which a producer may set to any 64-bit number."""
    timestamp_ms: int = found.timestamp
    return min(max(0, timestamp_ms), _MAX_NUMBER // 1_000) * 1_000


def observe_dead_letter(found: ConsumerRecord) -> Observation:
    """Observes a dead letter under the key of its record; one without an origin is its own origin."""
    dead_letter = read_dead_letter(found)
    origin = dead_letter.origin
    if origin is None:
        return _foreign(found, Kind.DEAD_LETTER)
    conversation_id = header_text(found.headers, CONVERSATION_ID)
    if conversation_id is not None:  # the value may be truncated
        key = conversation_key(dead_letter.tenant, conversation_id)
    else:
        key, _ = _key_and_time(Record(found, was_rehomed=False), origin)
    is_rowless = conversation_id is None and dead_letter.reason in FAILED_CHECK_REASONS
    return Observation(
        key,
        Kind.DEAD_LETTER,
        origin.topic,
        origin.partition,
        origin.offset,
        state=int(is_rowless or dead_letter.reason == DeadLetterReason.UNSTORABLE),
        made_us=_microseconds(dead_letter.at),
    )


def observe_event(found: ConsumerRecord) -> Observation:
    """Observes an event; one that names no conversation or no origin is its own origin."""
    headers = dict(found.headers)
    try:
        root, topic, partition, offset = headers[Header.SOURCE].split(b"/")
        origin = Origin(topic.decode(), int(partition), int(offset))
        key = conversation_key(headers[Header.TENANT].decode(), found.key.decode())
    except (KeyError, AttributeError, ValueError):  # missing, null or malformed
        return _foreign(found, Kind.EVENT)
    if root or not _is_storable(origin):
        return _foreign(found, Kind.EVENT)
    return Observation(key, Kind.EVENT, origin.topic, origin.partition, origin.offset)


def _foreign(found: ConsumerRecord, kind: Kind) -> Observation:
    origin = _own_origin(found)
    return Observation(_key_without_id(origin), kind, origin.topic, origin.partition, origin.offset)


def _key_and_time(record: Record, origin: Origin) -> tuple[bytes, int]:
    """Decodes the record as the worker does. One that fails its check is in no order with others of its id."""
    occurred_us = 0
    with suppress(Unprocessable):
        decode(record)
        occurred_us = _microseconds(record.occurred_at)
    return _key_without_id(origin) if record.id is None else conversation_key(record.tenant, record.id), occurred_us


def _key_without_id(origin: Origin) -> bytes:
    return _NO_ID + f"{origin.topic}/{origin.partition}/{origin.offset}".encode()


def _own_origin(found: ConsumerRecord) -> Origin:
    return Origin(found.topic, found.partition, found.offset)


def _is_storable(origin: Origin) -> bool:
    """Headers may hold numbers of any size."""
    return 0 <= origin.partition <= _MAX_NUMBER and 0 <= origin.offset <= _MAX_NUMBER


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


class ExternalSort:
    """Sorts any number of observations in bounded memory; every method raises Fatal when the disk is full.

    SQLite's temporary database spills and sorts on disk. Its files are unlinked while open, so nothing is left behind
    however the process ends.
    """

    def __init__(self) -> None:
        # The empty name: a private database on disk, in TMPDIR or else /var/tmp.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            f"PRAGMA temp_store = FILE; PRAGMA cache_size = -{SORT_CACHE_KIB};"
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"CREATE TABLE observations ({', '.join(Observation._fields)})"
        )
        self.count = 0

    def close(self) -> None:
        self._database.close()

    def add(self, observations: list[Observation]) -> None:
        with _disk_errors():
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", observations)
            self._database.execute("COMMIT")
        self.count += len(observations)

    def sorted(self) -> Iterator[Observation]:
        """Yields all of them by conversation: its row first, then the rest by origin."""
        with _disk_errors():
            cursor = self._database.execute(_SORTED)
            while rows := cursor.fetchmany(_FETCH_ROWS):
                yield from map(Observation._make, rows)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        hint = "set TMPDIR to a folder with more free space: about 1 GB for a million records"
        raise Fatal("the audit's temporary file cannot be used", str(error), hint) from error
