"""The whole value of a letter that was cut: read where its record first stood, if it still stands there."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Unprocessable
from schemas.kafka import Topics
from streams.dlq.letter import Letter
from streams.kafka.offset_reader import OffsetReader


class Originals:
    """Connects when the first cut letter comes: most replays have none."""

    def __init__(self, client_options: Mapping[str, Any], topics: Topics) -> None:
        self._client_options = client_options
        self._topics = topics
        self._reader: OffsetReader | None = None
        self._lock = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnects; safe when nothing was connected."""
        if self._reader is not None:
            await self._reader.stop()

    async def value_of(self, letter: Letter) -> bytes | None:
        """What the record held.

        Raises Unprocessable when the letter was cut and its original is gone, KafkaError when no broker answers.
        """
        if letter.truncated_from_bytes is None:
            return letter.value
        original = await self._original(letter)
        if original is None or not is_original(letter, original):
            kept = f"{letter.size_bytes} of {letter.truncated_from_bytes} bytes"
            raise Unprocessable(DeadLetterReason.TOO_LARGE, f"the letter holds {kept}, and the record is gone")
        value: bytes | None = original.value
        return value

    async def _original(self, letter: Letter) -> ConsumerRecord | None:
        assert letter.origin is not None, "only our own letters are replayed"
        partition = TopicPartition(letter.origin.topic, letter.origin.partition)
        reader = await self._connected()
        return (await reader.first_records({partition: letter.origin.offset})).get(partition)

    async def _connected(self) -> OffsetReader:
        async with self._lock:
            if self._reader is None:
                reader = OffsetReader(self._client_options, self._topics)
                await reader.start()
                self._reader = reader
            return self._reader


def is_original(letter: Letter, record: ConsumerRecord) -> bool:
    """Whether the letter is a piece of this record: a topic that was made anew holds others at the same offsets."""
    value = record.value or b""
    return (
        letter.origin is not None
        and record.offset == letter.origin.offset
        and record.key == letter.original_key
        and len(value) == letter.truncated_from_bytes
        and value.startswith(letter.value or b"")
    )
