"""The ledger: which letters have been replayed, kept in a compacted topic of its own beside the letters.

Why there, and not in Postgres: a replay then needs the brokers alone, which it needs anyway, and no table, migration or
right of a database; ledger and letters are backed up, restored and lost together. Not in `conversations.dlq` itself,
whose every record is a dead letter, to people and to other readers. Not as a group's offset either: with filters the
replayed letters are no unbroken run.

A letter is marked after its record is confirmed in `conversations`, so that a kill in between sends it again rather
than never. That is harmless: the same id is the same row, and its text's answer stands in the table. Two replays at the
same time, or a lost ledger, cost no more than that.

A mark names the letter's own time stamp too: when the dead letters' topic is deleted and made anew, its offsets begin
again, and new letters must not count as replayed.
"""

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.errors import Fatal
from schemas.instant import Instant
from schemas.topics import Origin, Topic
from streams.dlq.letter import Letter, LetterId, parse_letter_id
from streams.dlq.reading import batches, topics_of
from streams.topic_scan import bounds

LEDGER_TOPIC = "conversations.dlq.replayed"
_CONFIG = {"cleanup.policy": "compact"}


class Mark(msgspec.Struct, frozen=True):
    """One replayed letter: the letter's time stamp, when it was replayed, and where its record stands now."""

    written_ms: int
    replayed_at: Instant
    sent_to: Origin


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Mark)


def mark_record(letter: Letter, replayed_at: datetime, sent_to: Origin) -> tuple[bytes, bytes]:
    """Key and value of the mark's record in the ledger."""
    return str(letter.id).encode(), _encoder.encode(Mark(letter.written_ms, replayed_at, sent_to))


class Ledger:
    """What has been replayed; a few hundred bytes of memory for each letter."""

    def __init__(self) -> None:
        self._marks: dict[LetterId, Mark] = {}

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """One record of the ledger's topic, in the topic's order; a record without value takes a mark back."""
        letter_id = parse_letter_id((key or b"").decode(errors="replace"))
        if letter_id is None:
            return
        self._marks.pop(letter_id, None)
        if value is not None:
            try:
                self._marks[letter_id] = _decoder.decode(value)
            except msgspec.DecodeError:
                return  # not written by us: a letter too many is harmless, a letter that is left out is not

    def mark_of(self, letter: Letter) -> Mark | None:
        """The letter's mark, or None where it has not been replayed."""
        mark = self._marks.get(letter.id)
        return mark if mark is not None and mark.written_ms == letter.written_ms else None


async def read_ledger(client_options: Mapping[str, Any]) -> Ledger:
    """As it is now; empty where nothing has ever been replayed. Raises KafkaError, or Fatal when the broker stalls."""
    ledger = Ledger()
    if LEDGER_TOPIC not in await topics_of(client_options):
        return ledger
    wanted = await bounds(client_options, [LEDGER_TOPIC])
    async with aclosing(batches(client_options, wanted)) as found:
        async for records in found:
            for record in records:
                ledger.add(record.key, record.value)
    return ledger


async def make_ledger(client_options: Mapping[str, Any]) -> None:
    """Makes the ledger's topic where it is missing, with as many partitions and replicas as the letters' has.

    Made here and not by whoever writes first: a topic that the broker makes by itself forgets after a week, while
    letters wait for three months. Raises KafkaError, and Fatal when the broker refuses.
    """
    if LEDGER_TOPIC in await topics_of(client_options):
        return  # also for a user who may not make topics
    admin = AIOKafkaAdminClient(**client_options)
    try:
        await admin.start()
        [letters] = await admin.describe_topics([Topic.DEAD_LETTERS])
        partitions = letters["partitions"]
        replicas = len(partitions[0]["replicas"])
        new = NewTopic(LEDGER_TOPIC, len(partitions), replicas, topic_configs=dict(_CONFIG))
        [(_, code, *message)] = (await admin.create_topics([new])).topic_errors
    finally:
        await admin.close()
    error = for_code(code)
    if code != 0 and error is not TopicAlreadyExistsError:
        why = f"{error.__name__}: {message[0] if message and message[0] else 'no reason given'}"
        hint = "make it by hand, with cleanup.policy=compact, or give this user the right to"
        raise Fatal(f"the topic {LEDGER_TOPIC} cannot be made", why, hint)
