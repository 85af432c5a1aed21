"""Record: one Kafka record as the pipeline sees it, whichever of the input topics it came by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.conversation import FIRST_YEAR, LAST_YEAR
from schemas.kafka import Header, Origin

#: Headers that a record carries on the way to its home partition: where it stood first and what key it had there.
REHOMED_TOPIC = "rehomed.topic"
REHOMED_PARTITION = "rehomed.partition"
REHOMED_OFFSET = "rehomed.offset"
REHOMED_KEY = "rehomed.key"
_REHOMED_PREFIX = "rehomed."

Headers = list[tuple[str, bytes]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Record:
    """`origin`, `key` and `headers` are those of the first reading; `partition` is where it is being read now."""

    partition: int
    origin: Origin
    key: bytes | None
    value: bytes | None
    headers: Headers
    was_rehomed: bool
    received_at: datetime

    def header(self, name: str) -> str | None:
        """The last header of that name, or None where there is none or it is not UTF-8."""
        for key, value in reversed(self.headers):
            if key == name:
                return _text(value)
        return None


def read_record(
    origin: Origin,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] | None,
    timestamp_s: float | None,
    is_rehomed: bool = False,
) -> Record:
    """A record as it was read at `origin`; one that had been sent home gets its first origin, key and headers back.

    `is_rehomed` says that it was read in the topic of rehomed records: only there are the headers ours.
    `received_at` is `ce_time` where that is a time, else the record's own time stamp: both stay the same however
    often the record is read.
    """
    given = list(headers or [])
    first, first_key = _first_reading(given, origin, key) if is_rehomed else (origin, key)
    kept = [(name, content) for name, content in given if not name.startswith(_REHOMED_PREFIX)]
    return Record(
        partition=origin.partition,
        origin=first,
        key=first_key,
        value=value,
        headers=kept,
        was_rehomed=is_rehomed,
        received_at=_received_at(kept, timestamp_s),
    )


def headers_home(record: Record) -> Headers:
    """Headers for the way home: the record's own, its time of receipt, and its first origin and key."""
    headers = [(name, value) for name, value in record.headers if name != Header.TIME]
    headers += [
        (Header.TIME, record.received_at.isoformat().encode()),
        (REHOMED_TOPIC, record.origin.topic.encode()),
        (REHOMED_PARTITION, b"%d" % record.origin.partition),
        (REHOMED_OFFSET, b"%d" % record.origin.offset),
    ]
    if record.key is not None:
        headers.append((REHOMED_KEY, record.key))
    return headers


def _first_reading(headers: Headers, origin: Origin, key: bytes | None) -> tuple[Origin, bytes | None]:
    """As the headers of a rehomed record say; its own place where they do not."""
    named = dict(headers)
    try:
        first = Origin(
            topic=named[REHOMED_TOPIC].decode(),
            partition=int(named[REHOMED_PARTITION]),
            offset=int(named[REHOMED_OFFSET]),
        )
    except (KeyError, ValueError):
        return origin, key
    return first, named.get(REHOMED_KEY)


def _received_at(headers: Headers, timestamp_s: float | None) -> datetime:
    stated = _text(dict(headers).get(Header.TIME))
    if stated is not None:
        try:
            time = datetime.fromisoformat(stated)
        except ValueError:
            pass  # a foreign producer's own idea of a time: the broker's time stamp is used instead
        else:
            if FIRST_YEAR <= time.year <= LAST_YEAR:
                return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return _as_time(timestamp_s)


def _as_time(timestamp_s: float | None) -> datetime:
    """A producer may stamp its records with any 64-bit number; what is no time of ours counts as the epoch, so that it
    stays the same however often the record is read."""
    try:
        time = datetime.fromtimestamp(timestamp_s or 0.0, UTC)
    except (ValueError, OverflowError, OSError):
        return EPOCH
    return time if FIRST_YEAR <= time.year <= LAST_YEAR else EPOCH


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
