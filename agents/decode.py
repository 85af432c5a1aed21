"""Step 1, decode: a Kafka record becomes a checked conversation, or gets the reason why it is dead."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from agents.text_key import canonical_text, text_key
from schemas.call import PaidCall
from schemas.conversation import FIRST_YEAR, LAST_YEAR, Conversation, Repair, Repairs, decode_conversation, readable_id
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Rejected, Unprocessable
from schemas.kafka import DEFAULT_TENANT, Header, Origin
from schemas.outcome import Outcome
from schemas.result import ConversationResult

#: Headers that a record carries to its owner partition: where it was first read, and the key it had there.
REHOMED_TOPIC = "rehomed.topic"
REHOMED_PARTITION = "rehomed.partition"
REHOMED_OFFSET = "rehomed.offset"
REHOMED_KEY = "rehomed.key"
_REHOMED_PREFIX = "rehomed."
_CHARACTERS_REPLACED = Repair.CHARACTERS_REPLACED.encode()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How far a producer's clock may be ahead of the one that stamped its record. Kafka's stamps are whole milliseconds.
MAX_CLOCK_SKEW = timedelta(seconds=1)
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REASON_OF_STATUS = {400: DeadLetterReason.UNDECODABLE, 413: DeadLetterReason.TOO_LARGE}

Headers = list[tuple[str, bytes]]


class KafkaRecord(Protocol):
    """What a consumer delivers, such as aiokafka's ConsumerRecord; `timestamp` is in milliseconds."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Tracker(Protocol):
    """The offsets of one partition in one assignment; see streams.worker.offsets."""

    partition: int
    is_revoked: bool

    def admit(self, offsets: Sequence[int]) -> None:
        """Opens offsets, in order, before anything is awaited for their records."""

    def finish(self, offset: int) -> None:
        """The record at `offset` is durable in every sink."""


class Record:
    """One record of an input topic, and what was decoded from it.

    `origin`, `key` and `headers` are those of the first reading, also for a record that was rehomed; `received_at` is
    the same however often the record is read. `text` and `text_key` are there once it is decoded; `repairs` is what was
    changed in it. `id`, with `tenant` and `occurred_at`, is also there in a record that fails its check, if it can be
    read all the same; otherwise it is None.
    """

    __slots__ = (
        *("conversation", "id", "occurred_at", "origin", "received_at", "repairs", "source", "tenant", "text"),
        *("text_key", "was_rehomed"),
    )

    occurred_at: datetime
    tenant: str
    text: str
    text_key: str

    def __init__(self, source: KafkaRecord, *, was_rehomed: bool) -> None:
        self.source = source
        self.was_rehomed = was_rehomed
        self.conversation: Conversation | None = None
        self.id: str | None = None
        self.repairs: Repairs = ()
        headers = dict(source.headers) if source.headers else {}
        own = Origin(source.topic, source.partition, source.offset)
        # Only in the topic that workers alone write are these headers ours; elsewhere they may be anyone's.
        self.origin = (_first_origin(headers) or own) if was_rehomed else own
        self.received_at = _received_at(headers, source.timestamp)

    @property
    def key(self) -> bytes | None:
        """The key at the first reading."""
        if self.was_rehomed and self.origin.topic != self.source.topic:
            return dict(self.source.headers).get(REHOMED_KEY)
        return self.source.key

    @property
    def headers(self) -> Headers:
        """The record's headers without those of the rehoming."""
        return [(name, value) for name, value in self.source.headers or () if not name.startswith(_REHOMED_PREFIX)]

    def header(self, name: str) -> str | None:
        """The last header of that name, or None where there is none or it is not UTF-8."""
        return header_text(self.source.headers, name)

    def rehoming_headers(self) -> Headers:
        """Headers for the way to the owner partition: its own, the time of receipt, its first origin and key."""
        headers = [(name, value) for name, value in self.headers if name != Header.TIME]
        headers += [
            (Header.TIME, self.received_at.isoformat().encode()),
            (REHOMED_TOPIC, self.origin.topic.encode()),
            (REHOMED_PARTITION, b"%d" % self.origin.partition),
            (REHOMED_OFFSET, b"%d" % self.origin.offset),
        ]
        if self.key is not None:
            headers.append((REHOMED_KEY, self.key))
        return headers


class Job(Record):
    """A record from its admission to its last confirmation."""

    __slots__ = ("call", "is_finished", "outcome", "result", "size_bytes", "tracker")

    outcome: Outcome
    result: ConversationResult

    def __init__(self, tracker: Tracker, source: KafkaRecord, *, was_rehomed: bool) -> None:
        super().__init__(source, was_rehomed=was_rehomed)
        self.tracker = tracker
        self.is_finished = False
        #: The paid call that gave its answer, to be stored with its row.
        self.call: PaidCall | None = None
        headers = sum(len(name) + len(value or b"") for name, value in source.headers or ())
        #: The size of the record as it was read; what is decoded from it takes about twice as much again.
        self.size_bytes = len(source.value or b"") + len(source.key or b"") + headers

    @property
    def is_wanted(self) -> bool:
        """False once it is finished, or its partition was revoked: the next owner reads the record again."""
        return not (self.is_finished or self.tracker.is_revoked)


def decode(record: Record) -> None:
    """Sets conversation, id, tenant, text, text key, time of occurrence and repairs.

    Raises Unprocessable with the dead letter's reason; the detail names the field and never quotes the value. Then only
    a readable id is set, with the tenant and the time of receipt.
    """
    source = record.source
    headers = dict(source.headers) if source.headers else {}
    tenant = _text(headers.get(Header.TENANT)) or DEFAULT_TENANT
    if tenant != DEFAULT_TENANT and not _TENANT.fullmatch(tenant):
        allowed = "1 to 64 ASCII letters, digits, dots, dashes or underscores, and begin with a letter or digit"
        raise Unprocessable(DeadLetterReason.BAD_TENANT, f"the header `tenant` must have {allowed}")
    try:
        conversation, record.repairs = decode_conversation(source.value or b"", from_topic=True)
    except Rejected as error:
        record.id, record.tenant, record.occurred_at = readable_id(source.value or b""), tenant, record.received_at
        reason = _REASON_OF_STATUS.get(error.status, DeadLetterReason.INVALID)
        raise Unprocessable(reason, f"{error.detail} ({error.code})") from error
    if headers.get(Header.REPAIRED) == _CHARACTERS_REPLACED and Repair.CHARACTERS_REPLACED not in record.repairs:
        record.repairs = (*record.repairs, Repair.CHARACTERS_REPLACED)
    assert conversation.id is not None, "decode_conversation(from_topic=True) refuses a record without an id"
    record.text = canonical_text(conversation)
    record.text_key = text_key(tenant, record.text)
    record.tenant, record.id, record.conversation = tenant, conversation.id, conversation
    occurred_at = conversation.occurred_at or _latest_message_at(conversation)
    if occurred_at is None:
        record.occurred_at = record.received_at
    elif _is_in_future(occurred_at, record.received_at):
        record.occurred_at = record.received_at
        record.repairs = (*record.repairs, Repair.OCCURRED_AT_CLAMPED)
    else:
        record.occurred_at = occurred_at


def _latest_message_at(conversation: Conversation) -> datetime | None:
    """A conversation that grew and is sent again is newer by its last message. A default date of year 1 is none."""
    if conversation.messages is None:
        return None
    times = [message.at for message in conversation.messages if message.at is not None]
    return max((at for at in times if at.year >= FIRST_YEAR), default=None)


def _is_in_future(occurred_at: datetime, received_at: datetime) -> bool:
    """Compares with the time of receipt, which stays the same when the record is read again; the clock does not."""
    if received_at == _EPOCH:  # the record has no time stamp that is a time
        return occurred_at.year > LAST_YEAR
    return occurred_at - received_at > MAX_CLOCK_SKEW


def header_text(headers: Sequence[tuple[str, bytes]] | None, name: str) -> str | None:
    """The last header of that name, or None where there is none or it is not UTF-8."""
    return _text(dict(headers or ()).get(name))


def as_time(timestamp_ms: int | None) -> datetime:
    """The time of a record's time stamp, which a producer may set to any 64-bit number.

    A time out of our range counts as the epoch, so that it stays the same however often the record is read.
    """
    try:
        time = datetime.fromtimestamp((timestamp_ms or 0) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return _EPOCH
    return time if FIRST_YEAR <= time.year <= LAST_YEAR else _EPOCH


def _first_origin(headers: Mapping[str, bytes]) -> Origin | None:
    try:
        return Origin(
            topic=headers[REHOMED_TOPIC].decode(),
            partition=int(headers[REHOMED_PARTITION]),
            offset=int(headers[REHOMED_OFFSET]),
        )
    except (KeyError, ValueError, AttributeError, TypeError):  # the last two: a header without a value
        return None


def _received_at(headers: Mapping[str, bytes], timestamp_ms: int) -> datetime:
    """`ce_time` where that is a time, else the record's own time stamp."""
    stated = _text(headers.get(Header.TIME))
    if stated is not None:
        try:
            time = datetime.fromisoformat(stated)
        except ValueError:
            pass  # a foreign producer's own idea of a time: the broker's time stamp is used instead
        else:
            if FIRST_YEAR <= time.year <= LAST_YEAR:
                return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return as_time(timestamp_ms)


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None
