"""Publishes conversations, each confirmed by all in-sync replicas within a deadline."""

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from agents.text_key import canonical_text, text_key
from schemas.conversation import Conversation, Repairs
from schemas.errors import Rejected, Retryable
from schemas.kafka import EventType, Header
from streams.kafka.producer import Outgoing, ReconnectingProducer

#: How long a client waits at most for the broker's confirmation.
CONFIRM_TIMEOUT_S = 10.0
RETRY_AFTER_S = 5.0
#: Bounds the memory for unconfirmed records while the broker does not answer.
MAX_UNCONFIRMED_BYTES = 64 * 1024 * 1024
#: Kafka's default limit. A conversation is smaller (512 KiB), which leaves room for key and headers.
MAX_REQUEST_BYTES = 1024 * 1024
#: aiokafka sends one batch per partition at a time, so larger batches carry more clients at once.
MAX_BATCH_BYTES = 128 * 1024
LINGER_MS = 1
#: aiokafka's default of 40 s would keep a connection to a frozen broker long after the clients have their responses.
REQUEST_TIMEOUT_MS = 10_000

_CONSTANT_HEADERS = (
    (Header.SPEC_VERSION, b"1.0"),
    (Header.TYPE, EventType.CONVERSATION.value.encode()),
    (Header.SOURCE, b"/gateway"),
    (Header.CONTENT_TYPE, b"application/json"),
)
#: W3C Trace Context, version 00. Later versions must start with the same 55 characters.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


class BrokerUnavailable(Retryable):
    """The broker did not confirm."""


class KafkaPublisher:
    """Publishes to `topic`. Starts without a broker and reconnects by itself.

    `new_producer` is given whether the producer is to be idempotent.
    """

    def __init__(
        self,
        new_producer: Callable[[bool], AIOKafkaProducer],
        topic: str,
        *,
        confirm_timeout_s: float = CONFIRM_TIMEOUT_S,
    ) -> None:
        self._connection = ReconnectingProducer(new_producer, [topic])
        self._topic = topic
        self._confirm_timeout_s = confirm_timeout_s
        self._unconfirmed_bytes = 0

    def start(self) -> None:
        """Connects in the background."""
        self._connection.start()

    async def close(self) -> None:
        """Sends what is buffered, within one second, and disconnects. Safe to call twice and before `start`."""
        await self._connection.close()

    async def publish(self, record: Outgoing) -> None:
        """Returns once all in-sync replicas have the record.

        Raises BrokerUnavailable when they do not confirm in time, although the record may have been stored: its
        conversation ID makes a second copy harmless. Raises Rejected when the broker refuses a record of that size.
        """
        size_bytes = len(record.value or b"")
        if self._unconfirmed_bytes + size_bytes > MAX_UNCONFIRMED_BYTES:
            raise BrokerUnavailable("too many records wait for the broker", retry_after_s=RETRY_AFTER_S)
        self._unconfirmed_bytes += size_bytes
        try:
            await self._send(record)
        finally:
            self._unconfirmed_bytes -= size_bytes

    async def check(self) -> None:
        """Checks that the broker answers and has the topic. Raises BrokerUnavailable otherwise."""
        producer = self._connection.current
        if producer is None:
            raise BrokerUnavailable(f"not connected to the broker: {self._connection.failure}")
        if not await producer.client.force_metadata_update():
            raise BrokerUnavailable("the broker does not answer")
        if not producer.client.cluster.partitions_for_topic(self._topic):
            raise BrokerUnavailable(f"the topic {self._topic} is missing: run `grok-insights topics`")

    async def _send(self, record: Outgoing) -> None:
        producer = self._connection.current
        if producer is None:
            raise BrokerUnavailable("not connected to the broker", retry_after_s=RETRY_AFTER_S)
        is_sent = False
        try:
            async with asyncio.timeout(self._confirm_timeout_s):
                confirmation = await producer.send(self._topic, record.value, key=record.key, headers=record.headers)
                is_sent = True
                await confirmation
        except TimeoutError as error:
            raise BrokerUnavailable("the broker did not confirm in time", retry_after_s=RETRY_AFTER_S) from error
        except KafkaError as error:
            # A record that the client itself refused had no sequence number yet, so the producer is still usable.
            if is_sent and not error.retriable:
                self._connection.replace(producer, error)
            if isinstance(error, MessageSizeTooLargeError):
                raise Rejected("too_large", "the broker does not accept a record of this size", status=413) from error
            raise BrokerUnavailable("the broker did not accept the record", retry_after_s=RETRY_AFTER_S) from error


def new_producer(client_options: Mapping[str, Any], is_idempotent: bool) -> AIOKafkaProducer:
    """Returns a producer for KafkaPublisher: acks=all, tuned for low latency."""
    return AIOKafkaProducer(
        **client_options,
        client_id="grok-insights-gateway",
        acks="all",
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        enable_idempotence=is_idempotent,
        linger_ms=LINGER_MS,
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
    )


def conversation_record(
    conversation: Conversation, tenant: str, now: datetime, traceparent: str | None, repairs: Repairs = ()
) -> Outgoing:
    """Returns the record of a conversation: text key, JSON and CloudEvents headers.

    The conversation has an ID. The key selects the owner partition of its text. `now` is timezone-aware; an
    invalid traceparent is left out. `repairs` are marked for the worker.
    """
    assert conversation.id is not None
    headers = [
        *_CONSTANT_HEADERS,
        (Header.ID, conversation.id.encode()),
        (Header.TIME, now.isoformat().encode()),
        (Header.TENANT, tenant.encode()),
    ]
    if traceparent is not None and _TRACEPARENT.fullmatch(traceparent):
        headers.append((Header.TRACEPARENT, traceparent.encode()))
    headers += [(Header.REPAIRED, repair.encode()) for repair in repairs]
    key = text_key(tenant, canonical_text(conversation)).encode()
    return Outgoing(key, conversation.encode(), headers)
