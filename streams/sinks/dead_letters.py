"""Sends dead letters to their topic: the original record with the reason in its headers."""

import structlog

from schemas.dead_letter import DeadLetter
from schemas.errors import Unprocessable
from streams.sinks.producer import ConfirmedProducer, Headers

#: What is kept of a value that the topic does not take whole. The record itself stands at its origin as long as its
#: topic keeps it.
TRUNCATED_BYTES = 512 * 1024
TRUNCATED = "dlq.truncated_from_bytes"

log = structlog.get_logger()


class DeadLetterSink:
    """Keyed by conversation id where one could be read, else by the original key.

    `producer` compresses: a record that came compressed may be many times the topic's largest size.
    """

    def __init__(self, producer: ConfirmedProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, letter: DeadLetter, conversation_id: str | None) -> None:
        """Returns when the brokers have it. Raises Retryable.

        A value that does not fit even compressed is cut, and its size told in the header dlq.truncated_from_bytes: one
        record must neither be lost without a trace nor stop its partition.
        """
        key = letter.key if conversation_id is None else conversation_id.encode()
        # A record of neither key nor value cannot be produced, though a foreign producer may have made one.
        value = b"" if key is None and letter.value is None else letter.value
        headers = letter.headers_out()
        try:
            await self._send(key, value, headers)
        except Unprocessable:
            size_bytes = len(value or b"")
            log.error("dead_letter_truncated", partition=letter.origin.partition, size_bytes=size_bytes)
            await self._send(key, (value or b"")[:TRUNCATED_BYTES], [*headers, (TRUNCATED, b"%d" % size_bytes)])

    async def _send(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        await self._producer.send(self._topic, key=key, value=value, headers=headers)
