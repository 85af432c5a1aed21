"""The worker's one producer: rehomed records, dead letters, results and the table's changelog share its batches."""

from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from schemas.errors import Retryable
from streams.kafka_producer import started_producer

#: Records that arrive within this time travel in one request; below the time of a call it costs nobody anything.
LINGER_MS = 10
#: A dead letter carries a record of the broker's largest size plus our headers.
MAX_REQUEST_BYTES = 2 * 1024 * 1024

Headers = list[tuple[str, bytes]]

log = structlog.get_logger()


class ConfirmedProducer:
    """A send returns when all in-sync replicas have the record."""

    def __init__(self, client_options: dict[str, Any]) -> None:
        self._client_options = client_options
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Raises aiokafka.errors.KafkaError when no broker answers."""
        self._producer = await started_producer(
            self._client_options, linger_ms=LINGER_MS, max_request_size=MAX_REQUEST_BYTES, request_timeout_ms=20_000
        )

    async def stop(self) -> None:
        """Sends what is buffered, then closes."""
        if self._producer is not None:
            await self._producer.stop()

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> RecordMetadata:
        """Where the record stands in the log. Raises Retryable when the broker does not confirm it."""
        assert self._producer is not None, "start() comes before send()"
        try:
            return await self._producer.send_and_wait(topic, value=value, key=key, headers=headers, partition=partition)
        except KafkaError as error:
            log.warning("send_failed", topic=topic, error=type(error).__name__)
            raise Retryable(f"Kafka: {type(error).__name__}") from error
