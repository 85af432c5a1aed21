"""Observations: rows, records, dead letters and events, reduced to what the audit compares and sorted on disk."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from aiokafka.structs import ConsumerRecord

from agents.decode import Record, decode
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Fatal, Unprocessable
from schemas.kafka import Header, Origin
from schemas.outcome import OUTCOME_NAMES, OutcomeName
from streams.operations.dlq.dead_letter import read_dead_letter

#: A record that died of one of these needs no row: its id could not be read, or Postgres refuses the row.
ROWLESS_REASONS = frozenset(
    {
        DeadLetterReason.UNDECODABLE,
        DeadLetterReason.TOO_LARGE,
        DeadLetterReason.INVALID,
        DeadLetterReason.BAD_TENANT,
        DeadLetterReason.UNSTORABLE,
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
_TABLE = """\
CREATE TABLE observations (
    key BLOB, kind INTEGER, topic TEXT, partition INTEGER, offset INTEGER, state INTEGER, occurred_us INTEGER,
    made_us INTEGER
)"""
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
    """Names a conversation by `key`, or a record where no id can be read, and its origin by the next three fields.

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


def observe_row(
    tenant: str,
    conversation_id: str,
    outcome: OutcomeName,
    occurred_at: datetime,
    analysed_at: datetime,
    origin: Origin,
) -> Observation:
    """Observes one row of `insights`."""
    return _observation(
        conversation_key(tenant, conversation_id),
        Kind.ROW,
        origin,
        OUTCOME_NAMES.index(outcome),
        _microseconds(occurred_at),
        _microseconds(analysed_at),
    )


def observe_record(found: ConsumerRecord, *, is_due: bool, is_rehomed: bool = False) -> Observation:
    """Observes a record of an input topic: a COPY where it came from another place."""
    record = Record(found, was_rehomed=is_rehomed)
    origin = record.origin if _is_storable(record.origin) else _own_origin(found)
    key, occurred_us = _key_and_time(record, origin)
    kind = Kind.RECORD if origin == _own_origin(found) else Kind.COPY
    return _observation(key, kind, origin, int(is_due), occurred_us, timestamp_us(found))


def timestamp_us(found: ConsumerRecord) -> int:
    """Returns the record's own time stamp, which a producer may set to any 64-bit number."""
    timestamp_ms: int = found.timestamp
    return min(max(0, timestamp_ms), _MAX_NUMBER // 1_000) * 1_000


def observe_dead_letter(found: ConsumerRecord) -> Observation:
    """Observes a dead letter under the key of its record; one without an origin is its own origin."""
    dead_letter = read_dead_letter(found)
    if dead_letter.origin is None:
        return _without_id(_own_origin(found), Kind.DEAD_LETTER)
    key, _ = _key_and_time(Record(found, was_rehomed=False), dead_letter.origin)
    is_rowless = dead_letter.reason in ROWLESS_REASONS
    return _observation(
        key, Kind.DEAD_LETTER, dead_letter.origin, int(is_rowless), made_us=_microseconds(dead_letter.at)
    )


def observe_event(found: ConsumerRecord) -> Observation:
    """Observes an event; one that names no conversation or no origin is its own origin."""
    headers = dict(found.headers)
    source = (headers.get(Header.SOURCE) or b"").split(b"/")
    origin = _parse_origin(*source[1:]) if len(source) == 4 and not source[0] else None
    tenant, conversation_id = _text(headers.get(Header.TENANT)), _text(found.key)
    if origin is None or tenant is None or conversation_id is None:
        return _without_id(_own_origin(found), Kind.EVENT)
    return _observation(conversation_key(tenant, conversation_id), Kind.EVENT, origin)


def _observation(
    key: bytes, kind: Kind, origin: Origin, state: int = 0, occurred_us: int = 0, made_us: int = 0
) -> Observation:
    return Observation(key, kind, origin.topic, origin.partition, origin.offset, state, occurred_us, made_us)


def _key_and_time(record: Record, origin: Origin) -> tuple[bytes, int]:
    """Decodes the record as the worker does."""
    try:
        decode(record)
    except Unprocessable:
        return _without_id(origin, Kind.RECORD).key, 0
    return conversation_key(record.tenant, record.id), _microseconds(record.occurred_at)


def _without_id(origin: Origin, kind: Kind) -> Observation:
    key = _NO_ID + f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
    return _observation(key, kind, origin)


def _own_origin(found: ConsumerRecord) -> Origin:
    return Origin(found.topic, found.partition, found.offset)


def _parse_origin(topic: bytes, partition: bytes, offset: bytes) -> Origin | None:
    try:
        origin = Origin(topic.decode(), int(partition), int(offset))
    except ValueError:
        return None
    return origin if _is_storable(origin) else None


def _is_storable(origin: Origin) -> bool:
    """Headers may hold numbers of any size."""
    return 0 <= origin.partition <= _MAX_NUMBER and 0 <= origin.offset <= _MAX_NUMBER


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


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
        for setting in (
            "temp_store = FILE",
            f"cache_size = -{SORT_CACHE_KIB}",
            "journal_mode = OFF",
            "synchronous = OFF",
        ):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(_TABLE)
        self.count = 0

    def close(self) -> None:
        """Removes the temporary database."""
        self._database.close()

    def add(self, observations: list[Observation]) -> None:
        """Adds some more, in any order."""
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
        hint = "set TMPDIR to a folder with more room: about 1 GB for a million records"
        raise Fatal("the audit's temporary file cannot be used", str(error), hint) from error
