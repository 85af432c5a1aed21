"""The replay ledger: which dead letters were replayed, in the compacted topic `conversations.dlq.replayed`.

It is a topic and not a table, so that a replay needs the brokers alone, and ledger and dead letters are backed up,
restored and lost together. It is not part of `conversations.dlq`, whose every record is a dead letter to other readers.
It is not a committed offset, since filters replay dead letters out of sequence.

A dead letter is marked after its record is confirmed in `conversations`. A kill in between replays it once more, which
changes no row and makes no call. Concurrent replays and a lost ledger cost no more than that.

A mark holds the dead letter's time stamp: the offsets of a recreated topic start again, and its dead letters must not
count as replayed.
"""

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec

from schemas.instant import Instant
from schemas.kafka import Origin, Topics
from streams.kafka.producer import Outgoing
from streams.kafka.scan import bounds, scan
from streams.operations.dlq.dead_letter import DeadLetterId, StoredDeadLetter, parse_id


class ReplayMark(msgspec.Struct, frozen=True):
    """One replay: the dead letter's time stamp, when it was replayed, and the place of the replayed record."""

    written_ms: int
    replayed_at: Instant
    sent_to: Origin


def mark_record(dead_letter: StoredDeadLetter, replayed_at: datetime, sent_to: Origin) -> Outgoing:
    """Returns the ledger's record for one replay."""
    mark = ReplayMark(dead_letter.written_ms, replayed_at, sent_to)
    return Outgoing(str(dead_letter.id).encode(), msgspec.json.encode(mark), [])


class ReplayLedger:
    """The marks, in a few hundred bytes of memory each."""

    def __init__(self) -> None:
        self._marks: dict[DeadLetterId, ReplayMark] = {}

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Adds the topic's records in their order; a record without a value removes a mark."""
        dead_letter_id = parse_id((key or b"").decode(errors="replace"))
        if dead_letter_id is None:
            return
        self._marks.pop(dead_letter_id, None)
        if value is not None:
            try:
                self._marks[dead_letter_id] = msgspec.json.decode(value, type=ReplayMark)
            except msgspec.DecodeError:
                return  # a foreign record: replaying once too often is harmless, leaving a dead letter out is not

    def mark_of(self, dead_letter: StoredDeadLetter) -> ReplayMark | None:
        """Returns the dead letter's mark, None if it was not replayed."""
        mark = self._marks.get(dead_letter.id)
        return mark if mark is not None and mark.written_ms == dead_letter.written_ms else None

    def before(self, beginnings: Mapping[int, int]) -> list[DeadLetterId]:
        """Returns the marked dead letters below the beginning offset of their partition."""
        return [marked for marked in self._marks if marked.offset < beginnings.get(marked.partition, 0)]


async def read_ledger(client_options: Mapping[str, Any], topics: Topics) -> ReplayLedger:
    """Reads the ledger up to its current end. Raises KafkaError when no broker answers."""
    ledger = ReplayLedger()
    async with aclosing(scan(client_options, await bounds(client_options, topics, [topics.replay_ledger]))) as batches:
        async for records in batches:
            for record in records:
                ledger.add(record.key, record.value)
    return ledger
