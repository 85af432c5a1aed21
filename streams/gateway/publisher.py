"""Sends conversations to their topic, each confirmed by all in-sync replicas, within a deadline."""

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from schemas.errors import Rejected
from streams.gateway.parts import BrokerUnavailable
from streams.gateway.record import ConversationRecord
from streams.kafka.producer import ReconnectingProducer

#: How long a client waits at most for the broker's confirmation.
CONFIRM_TIMEOUT_S = 10.0
RETRY_AFTER_S = 5.0
#: Bodies that wait for their confirmation; with a dead broker this is what bounds the memory.
MAX_UNCONFIRMED_BYTES = 64 * 1024 * 1024


class KafkaPublisher:
    """Publishes to `topic`; starts without a broker.

    `new_producer` is told whether the producer is to be idempotent.
    """

    def __init__(
        self,
        new_producer: Callable[[bool], AIOKafkaProducer],
        topic: str,
        *,
        confirm_timeout_s: float = CONFIRM_TIMEOUT_S,
    ) -> None:
        self._kept = ReconnectingProducer(new_producer, [topic])
        self._topic = topic
        self._confirm_timeout_s = confirm_timeout_s
        self._unconfirmed_bytes = 0

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._kept.start()

    async def close(self) -> None:
        """Send what is buffered, within a second, and disconnect. Safe to call again and before start()."""
        await self._kept.close()

    async def publish(self, record: ConversationRecord) -> None:
        """See Publisher. A record whose confirmation is late may still be stored: its id makes a repeat harmless."""
        if self._unconfirmed_bytes + len(record.value) > MAX_UNCONFIRMED_BYTES:
            raise BrokerUnavailable("too much waits for the broker already", retry_after_s=RETRY_AFTER_S)
        self._unconfirmed_bytes += len(record.value)
        try:
            await self._send(record)
        finally:
            self._unconfirmed_bytes -= len(record.value)

    async def _send(self, record: ConversationRecord) -> None:
        producer = self._kept.current
        if producer is None:
            raise BrokerUnavailable("there is no connection to the broker", retry_after_s=RETRY_AFTER_S)
        is_sent = False
        try:
            async with asyncio.timeout(self._confirm_timeout_s):
                confirmation = await producer.send(self._topic, record.value, key=record.key, headers=record.headers)
                is_sent = True
                await confirmation
        except TimeoutError as error:
            raise BrokerUnavailable("the broker did not confirm in time", retry_after_s=RETRY_AFTER_S) from error
        except KafkaError as error:
            # What the client itself refused never had a sequence number, so it left no hole.
            if is_sent and not error.retriable:
                self._kept.replace(producer, error)
            raise self._judged(error) from error

    def _judged(self, error: KafkaError) -> BrokerUnavailable | Rejected:
        if isinstance(error, MessageSizeTooLargeError):
            return Rejected("too_large", "the broker takes no record of this size", status=413)
        return BrokerUnavailable("the broker did not take the record", retry_after_s=RETRY_AFTER_S)

    async def check(self) -> None:
        """Passes when the broker answers now and has the topic; raises BrokerUnavailable otherwise."""
        producer = self._kept.current
        if producer is None:
            raise BrokerUnavailable("there is no connection to the broker")
        if not await producer.client.force_metadata_update():
            raise BrokerUnavailable("the broker does not answer")
        if not producer.client.cluster.partitions_for_topic(self._topic):
            raise BrokerUnavailable(f"the topic {self._topic} is missing: run `grok-insights topics`")
