"""Conversations into the topic, each confirmed by all in-sync replicas; keeps itself connected.

aiokafka's idempotent producer has two habits that are dealt with here. It retries for ever, so every wait has our own
deadline. And after an error that is not worth a retry its sequence numbers have a hole: the broker then refuses all
that follows, so such a producer is replaced by a new one.

A broker without producer ids (Tansu refuses the request in aiokafka's version of it) gets a producer that is not
idempotent. What that can cost is a record that is stored twice, and two records with one id are one conversation.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, UnknownError

from schemas.errors import Rejected
from schemas.topics import Topic
from streams.gateway.parts import BrokerUnavailable
from streams.gateway.record import ConversationRecord

#: How long a client waits at most for the broker's confirmation.
CONFIRM_TIMEOUT_S = 10.0
START_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 1.0
RETRY_AFTER_S = 5.0
#: A broker that comes back is found within a second; asking more often than that would help nobody.
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
#: Bodies that wait for their confirmation; with a dead broker this is what bounds the memory.
MAX_UNCONFIRMED_BYTES = 64 * 1024 * 1024

_log = structlog.get_logger()


class KafkaPublisher:
    """Publishes to the topic `conversations`. Starts without a broker and finds it, and finds it again, by itself.

    `new_producer` is told whether the producer is to be idempotent.
    """

    def __init__(
        self, new_producer: Callable[[bool], AIOKafkaProducer], *, confirm_timeout_s: float = CONFIRM_TIMEOUT_S
    ) -> None:
        self._new_producer = new_producer
        self._confirm_timeout_s = confirm_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._is_idempotent = True
        self._is_broken = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._unconfirmed_bytes = 0
        self._keeper: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect, in the background."""
        self._keeper = asyncio.create_task(self._keep_connected(), name="publisher-keeper")

    async def close(self) -> None:
        """Send what is buffered, within FLUSH_TIMEOUT_S, and disconnect. Safe to call again and before start().

        An attempt to connect gets the same time to end by itself: cancelled half-way, aiokafka leaves one open.
        """
        self._is_closing.set()
        self._is_broken.set()
        if self._keeper is not None:
            await asyncio.wait([self._keeper], timeout=FLUSH_TIMEOUT_S)
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._retired:
            await asyncio.wait(self._retired)

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
        producer = self._producer
        if producer is None:
            raise BrokerUnavailable("there is no connection to the broker", retry_after_s=RETRY_AFTER_S)
        try:
            async with asyncio.timeout(self._confirm_timeout_s):
                await (await producer.send(Topic.CONVERSATIONS, record.value, key=record.key, headers=record.headers))
        except TimeoutError as error:
            raise BrokerUnavailable("the broker did not confirm in time", retry_after_s=RETRY_AFTER_S) from error
        except KafkaError as error:
            raise self._judged(error, producer) from error

    def _judged(self, error: KafkaError, producer: AIOKafkaProducer) -> BrokerUnavailable | Rejected:
        if not error.retriable and producer is self._producer:
            _log.warning("producer_replaced", error=type(error).__name__)
            self._is_broken.set()
        if isinstance(error, MessageSizeTooLargeError):
            return Rejected("too_large", "the broker takes no record of this size", status=413)
        return BrokerUnavailable("the broker did not take the record", retry_after_s=RETRY_AFTER_S)

    async def check(self) -> None:
        """Passes when the broker answers now and has the topic; raises BrokerUnavailable otherwise."""
        producer = self._producer
        if producer is None:
            raise BrokerUnavailable("there is no connection to the broker")
        if not await producer.client.force_metadata_update():
            raise BrokerUnavailable("the broker does not answer")
        if not producer.client.cluster.partitions_for_topic(Topic.CONVERSATIONS):
            raise BrokerUnavailable("the topic conversations is missing: run `grok-insights topics`")

    async def _keep_connected(self) -> None:
        while not self._is_closing.is_set():
            self._is_broken.clear()
            producer = await self._connected()
            if producer is None:
                return
            self._producer = producer
            _log.info("broker_connected")
            await self._is_broken.wait()
            self._producer = None
            # What waits for other partitions may still be delivered by the old one, beside the new one.
            retiring = asyncio.create_task(_stop(producer), name="producer-retiring")
            self._retired.add(retiring)
            retiring.add_done_callback(self._retired.discard)

    async def _connected(self) -> AIOKafkaProducer | None:
        """A started producer, however long that takes; None when close() came first."""
        backoff_s = FIRST_BACKOFF_S
        while not self._is_closing.is_set():
            producer = await self._started()
            if producer is not None:
                return producer
            if backoff_s == FIRST_BACKOFF_S:
                _log.warning("broker_unreachable")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
        return None

    async def _started(self) -> AIOKafkaProducer | None:
        """One attempt; None when it failed, with nothing left open."""
        producer = self._new_producer(self._is_idempotent)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
                await producer.client.add_topic(Topic.CONVERSATIONS)
            return producer
        except asyncio.CancelledError:
            await _stop(producer)
            raise
        except UnknownError:
            # While a producer starts, only the request for a producer id is answered so.
            _log.warning("broker_without_producer_ids")
            self._is_idempotent = False
        except Exception as error:  # the edge of the loop: whatever went wrong, the next attempt is a new producer
            _log.debug("broker_connection_failed", error=type(error).__name__)
        await _stop(producer)
        return None


async def _stop(producer: AIOKafkaProducer) -> None:
    """With a dead broker an idempotent producer would flush for ever."""
    with contextlib.suppress(TimeoutError, KafkaError, OSError):
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await producer.stop()
