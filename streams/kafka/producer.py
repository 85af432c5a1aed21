"""Producers: one that keeps itself connected, and one on top of it whose sends are confirmed batches.

aiokafka's idempotent producer has two habits that are dealt with here and by its callers. It retries indefinitely, so a
wait that must end needs its own deadline. And after an error that is not worth a retry its sequence numbers have a gap:
the broker then refuses all that follows, so such a producer is replaced by a new one.

A broker without producer ids (Tansu refuses the request in aiokafka's version of it) gets a producer that is not
idempotent. That can cost a record that is in the log twice, and two records with one id are one conversation.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerClosed, UnknownError
from aiokafka.structs import RecordMetadata

from agents.text_key import owner_partition
from schemas.dead_letter import DeadLetterReason
from schemas.errors import Retryable, Unprocessable
from streams.kafka.clients import describe_broker_error
from streams.kafka.unreachable_brokers import addresses, check_silent, latest_unreachable_node

START_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 1.0
#: A broker that comes back is found within a second; asking more often would not find it sooner.
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
#: One produce batch; well below the default max.message.bytes of a topic (1 MiB).
MAX_BATCH_BYTES = 256 * 1024

#: aiokafka measures before it compresses: what the broker takes is the broker's to say.
MAX_REQUEST_BYTES = 64 * 1024 * 1024

Headers = Sequence[tuple[str, bytes]]

log = structlog.get_logger()


class Outgoing(NamedTuple):
    """A record to be sent; without a partition it goes where Kafka's default partitioner puts its key."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


#: The offset that a record was given, or why it was not taken: for now, or for good.
Delivery = int | Retryable | Unprocessable


def errors_of(deliveries: Sequence[Delivery]) -> list[Retryable | Unprocessable | None]:
    """What kept each record from being taken; None for those that were."""
    return [None if isinstance(delivery, int) else delivery for delivery in deliveries]


class ReconnectingProducer:
    """Starts without a broker, and finds it again by itself.

    `new_producer` receives whether the producer is to be idempotent; metadata of `topics` is fetched before it is used.
    """

    def __init__(self, new_producer: Callable[[bool], AIOKafkaProducer], topics: Sequence[str] = ()) -> None:
        self._new_producer = new_producer
        self._topics = topics
        self._is_idempotent = True
        #: Whether the log says so: it then also says when that is over.
        self._was_unreachable = False
        #: Why there is no connected producer: of the latest attempt to connect, or of the producer that was replaced.
        self.failure = "not tried yet"
        #: The connected producer, or None.
        self.current: AIOKafkaProducer | None = None
        self._is_connected = asyncio.Event()
        self._is_broken = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins to connect, in the background."""
        self._keeper = asyncio.create_task(self._keep_connected(), name="producer-keeper")

    async def close(self) -> None:
        """Sends what is buffered, within FLUSH_TIMEOUT_S, and disconnects. Safe to call again and before start().

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

    async def connected(self) -> AIOKafkaProducer:
        """The producer, however long it takes to connect."""
        while self.current is None:
            await self._is_connected.wait()
        return self.current

    def replace(self, producer: AIOKafkaProducer, error: KafkaError) -> None:
        """Retires a producer that `error` broke; nothing happens when another one has replaced it already."""
        if producer is self.current:
            log.warning("producer_replaced", error=type(error).__name__)
            self.failure = describe_broker_error(error)
            self._was_unreachable = True
            self.current = None
            self._is_connected.clear()
            self._is_broken.set()

    async def _keep_connected(self) -> None:
        while not self._is_closing.is_set():
            self._is_broken.clear()
            producer = await self._connect()
            if producer is None:
                return
            self.current = producer
            self._is_connected.set()
            log.log(logging.INFO if self._was_unreachable else logging.DEBUG, "broker_connected")
            self._was_unreachable = False
            await self._is_broken.wait()
            self._is_connected.clear()
            self.current = None
            # What waits for other partitions has a moment to be delivered by the old one, beside the new one.
            retiring = asyncio.create_task(_stop(producer), name="producer-retiring")
            self._retired.add(retiring)
            retiring.add_done_callback(self._retired.discard)

    async def _connect(self) -> AIOKafkaProducer | None:
        """A started producer, however long that takes; None when close() came first."""
        backoff_s = FIRST_BACKOFF_S
        while not self._is_closing.is_set():
            was_idempotent = self._is_idempotent
            producer = await self._attempt()
            if producer is not None:
                return producer
            if backoff_s == FIRST_BACKOFF_S and self._is_idempotent == was_idempotent:
                log.warning("broker_unreachable", why=self.failure)
                self._was_unreachable = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
        return None

    async def _attempt(self) -> AIOKafkaProducer | None:
        """One attempt; None when it failed, with nothing left open."""
        producer = self._new_producer(self._is_idempotent)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await producer.start()
                for topic in self._topics:
                    await producer.client.add_topic(topic)
            return producer
        except asyncio.CancelledError:
            await _stop(producer)
            raise
        except UnknownError:
            # While a producer starts, only the request for a producer id is answered so.
            log.debug("broker_without_producer_ids")
            self._is_idempotent = False
        except Exception as error:  # the edge of the loop: whatever went wrong, the next attempt is a new producer
            self.failure = _describe(error, producer)
            log.debug("broker_connection_failed", why=self.failure)
        await _stop(producer)
        return None


class ConfirmedProducer:
    """Sends single records or whole batches; a send ends once all in-sync replicas have the record.

    While there is no broker it waits for one.
    """

    def __init__(
        self, client_options: Mapping[str, Any], *, compression: str | None = None, linger_ms: int = 0
    ) -> None:
        def new_producer(is_idempotent: bool) -> AIOKafkaProducer:
            return AIOKafkaProducer(
                **client_options,
                acks="all",
                enable_idempotence=is_idempotent,
                max_batch_size=MAX_BATCH_BYTES,
                max_request_size=MAX_REQUEST_BYTES,
                linger_ms=linger_ms,
                compression_type=compression,
            )

        self._connection = ReconnectingProducer(new_producer)

    async def start(self) -> None:
        """Returns when a broker is connected."""
        self._connection.start()
        await self._connection.connected()

    async def stop(self) -> None:
        """Sends what is buffered, within a second, then closes."""
        await self._connection.close()

    async def send(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> RecordMetadata:
        """Returns the record's place in the log.

        Raises Retryable when the broker does not take it now, Unprocessable when it takes no record of this size.
        """
        producer = await self._connection.connected()
        try:
            confirmation = await producer.send(topic, value=value, key=key, headers=headers, partition=partition)
            return await confirmation
        except KafkaError as error:
            raise self._failure(producer, error, topic) from error

    async def send_all(self, topic: str, records: Sequence[Outgoing]) -> list[Delivery]:
        """Sends one produce batch for each partition; returns what became of each record, in the order given."""
        producer = await self._connection.connected()
        try:
            places = await self._by_partition(producer, topic, records)
        except KafkaError as error:
            return [self._failure(producer, error, topic)] * len(records)
        sent = await asyncio.gather(
            *(self._send_to(producer, topic, partition, [records[at] for at in of]) for partition, of in places.items())
        )
        deliveries: list[Delivery] = [_NOT_SENT] * len(records)
        for of_partition, results in zip(places.values(), sent, strict=True):
            for place, result in zip(of_partition, results, strict=True):
                deliveries[place] = result
        return deliveries

    async def _by_partition(
        self, producer: AIOKafkaProducer, topic: str, records: Sequence[Outgoing]
    ) -> dict[int, list[int]]:
        """Partition -> indexes of the records that go there."""
        count = 0
        if any(record.partition is None for record in records):
            count = len(await producer.partitions_for(topic))
        places: dict[int, list[int]] = {}
        for index, record in enumerate(records):
            partition = record.partition
            if partition is None:
                key = record.key
                partition = owner_partition(key, count) if key is not None else random.randrange(count)  # noqa: S311
            places.setdefault(partition, []).append(index)
        return places

    async def _send_to(
        self, producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Outgoing]
    ) -> list[Delivery]:
        """Sends the records of one partition; returns what became of each."""
        sent: list[tuple[list[Outgoing], asyncio.Future[RecordMetadata]]] = []
        try:
            # A topic that was given more partitions: aiokafka would learn of them later, and fail an assertion until
            # then.
            if partition not in await producer.partitions_for(topic):
                await producer.client.force_metadata_update()
                if partition not in await producer.partitions_for(topic):
                    return [_NOT_SENT] * len(records)
            for batch, of_batch in _batches(producer, records):
                sent.append((of_batch, await producer.send_batch(batch, topic, partition=partition)))
        except KafkaError as error:  # a producer whose sender has died says so here
            self._failure(producer, error, topic)
        deliveries: list[Delivery] = []
        for of_batch, confirmation in sent:
            try:
                first = (await confirmation).offset
            except MessageSizeTooLargeError as error:
                failure = self._failure(producer, error, topic)
                deliveries += [failure] if len(of_batch) == 1 else await self._send_alone(topic, partition, of_batch)
            except KafkaError as error:
                deliveries += [self._failure(producer, error, topic)] * len(of_batch)
            else:
                deliveries += range(first, first + len(of_batch))
        return deliveries + [_NOT_SENT] * (len(records) - len(deliveries))

    async def _send_alone(self, topic: str, partition: int, records: Sequence[Outgoing]) -> list[Delivery]:
        """One of the records is too large for the topic: only that one is refused."""
        deliveries: list[Delivery] = []
        for record in records:
            deliveries += await self._send_to(await self._connection.connected(), topic, partition, [record])
        return deliveries

    def _failure(self, producer: AIOKafkaProducer, error: KafkaError, topic: str) -> Retryable | Unprocessable:
        """What the sender does about it. A producer whose sender has died says so at each send."""
        if not error.retriable:
            self._connection.replace(producer, error)
        if isinstance(error, MessageSizeTooLargeError):
            return Unprocessable(DeadLetterReason.TOO_LARGE, f"too large for the topic {topic}")
        log.warning("send_failed", topic=topic, error=type(error).__name__)
        failure = Retryable(f"Kafka: {type(error).__name__}")
        failure.__cause__ = error
        return failure


_NOT_SENT = Retryable("Kafka: not sent")


def _batches(producer: AIOKafkaProducer, records: Sequence[Outgoing]) -> Iterator[tuple[Any, list[Outgoing]]]:
    """Yields produce batches of at most MAX_BATCH_BYTES, each with its records."""
    builder, of_batch = producer.create_batch(), list[Outgoing]()
    for record in records:
        # A builder takes its first record whatever its size: the limit is then the broker's to say.
        while builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers)) is None:
            yield builder, of_batch
            builder, of_batch = producer.create_batch(), []
        of_batch.append(record)
    yield builder, of_batch


def _describe(error: Exception, producer: AIOKafkaProducer) -> str:
    """Returns why the producer did not start."""
    if isinstance(error, TimeoutError):
        # An idempotent producer retries when it does not reach the address that the bootstrap server gave.
        if (unreachable := latest_unreachable_node(producer.client)) is not None:
            return describe_broker_error(unreachable)
        why = f"no answer from {', '.join(addresses(producer.client))} within {START_TIMEOUT_S:g} s"
        return f"{why}; {check_silent(producer.client._ssl_context)}"
    return describe_broker_error(error) if isinstance(error, KafkaError) else type(error).__name__


async def _stop(producer: AIOKafkaProducer) -> None:
    """Gives up after FLUSH_TIMEOUT_S: with a dead broker an idempotent producer would flush indefinitely.

    Fails what is left then: aiokafka would leave its confirmations open, and the senders that await them would hang.
    """
    try:
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await producer.stop()
    except Exception as error:  # also one that a half-started producer raises: another one takes its place
        log.debug("producer_not_stopped", error=type(error).__name__)
    with contextlib.suppress(AttributeError, TimeoutError, KafkaError, OSError):  # the first: it has never been started
        if producer._sender.sender_task is not None:
            producer._sender.sender_task.cancel()
        producer._message_accumulator.fail_all(ProducerClosed())
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await producer.client.close()
