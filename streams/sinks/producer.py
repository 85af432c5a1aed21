"""The worker's producer: rehomed records, results and the table's changelog share one; dead letters have their own."""

from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from streams.kafka_producer import KeptProducer

#: Records that arrive within this time travel in one request; below the time of a call it costs nobody anything.
LINGER_MS = 10
#: aiokafka measures before it compresses: what the broker takes is the broker's to say.
MAX_REQUEST_BYTES = 64 * 1024 * 1024

Headers = list[tuple[str, bytes]]

log = structlog.get_logger()


class ConfirmedProducer:
    """A send returns when all in-sync replicas have the record; while there is no broker it waits for one."""

    def __init__(self, client_options: Mapping[str, Any], *, compression: str | None = None) -> None:
        def new_producer(is_idempotent: bool) -> AIOKafkaProducer:
            return AIOKafkaProducer(
                **client_options,
                acks="all",
                enable_idempotence=is_idempotent,
                linger_ms=LINGER_MS,
                max_request_size=MAX_REQUEST_BYTES,
                compression_type=compression,
            )

        self._kept = KeptProducer(new_producer)

    async def start(self) -> None:
        """Returns when a broker is connected."""
        self._kept.start()
        await self._kept.available()

    async def stop(self) -> None:
        """Sends what is buffered, within a second, then closes."""
        await self._kept.close()

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> RecordMetadata:
        """Where the record stands in the log.

        Raises Retryable when the broker does not take it now, Unprocessable when it takes no record of this size.
        """
        producer = await self._kept.available()
        try:
            # An error of this first await comes from the client itself, before the record had a sequence number.
            confirmation = await producer.send(topic, value=value, key=key, headers=headers, partition=partition)
        except MessageSizeTooLargeError as error:
            raise _judged(error, topic) from error
        except KafkaError as error:
            # A producer whose sender has died says so here, for ever.
            raise self._failed(producer, error, topic) from error
        try:
            return await confirmation
        except KafkaError as error:
            raise self._failed(producer, error, topic) from error

    def _failed(self, producer: AIOKafkaProducer, error: KafkaError, topic: str) -> Retryable | Unprocessable:
        if not error.retriable:
            self._kept.replace(producer, error)
        return _judged(error, topic)


def _judged(error: KafkaError, topic: str) -> Retryable | Unprocessable:
    if isinstance(error, MessageSizeTooLargeError):
        return Unprocessable(DeadLetterReason.TOO_LARGE, f"too large for the topic {topic}")
    log.warning("send_failed", topic=topic, error=type(error).__name__)
    return Retryable(f"Kafka: {type(error).__name__}")
