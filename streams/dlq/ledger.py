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

from schemas.instant import Instant
from schemas.kafka import Origin, Topics
from streams.dlq.letter import Letter, LetterId, parse_letter_id
from streams.kafka.scan import bounds, scan


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

    def before(self, begins: Mapping[int, int]) -> list[LetterId]:
        """The marked letters that stand before the given begin of their partition."""
        return [letter_id for letter_id in self._marks if letter_id.offset < begins.get(letter_id.partition, 0)]


async def read_ledger(client_options: Mapping[str, Any], topics: Topics) -> Ledger:
    """As it is now. Raises KafkaError when no broker answers."""
    ledger = Ledger()
    wanted = await bounds(client_options, topics, [topics.replay_ledger])
    async with aclosing(scan(client_options, wanted)) as found:
        async for records in found:
            for record in records:
                ledger.add(record.key, record.value)
    return ledger
