"""How the publisher reacts to the producer's errors; the real producer is in the integration tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    UnknownError,
)

from schemas.errors import Rejected
from streams.gateway import publisher as module
from streams.gateway.publisher import BrokerUnavailable, KafkaPublisher
from streams.kafka.producer import Outgoing
from tests.fakes.producer import FakeProducer
from tests.support.topics import TOPICS

RECORD = Outgoing(b"key", b"value", [])


@asynccontextmanager
async def _publishing(*producers: FakeProducer, confirm_timeout_s: float = 5.0) -> AsyncIterator[KafkaPublisher]:
    """A publisher that is given these producers one after the other."""
    coming = iter(producers)
    publisher = KafkaPublisher(lambda _: next(coming), TOPICS.conversations, confirm_timeout_s=confirm_timeout_s)
    publisher.start()
    try:
        yield publisher
    finally:
        await publisher.close()


async def _becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def _published(publisher: KafkaPublisher, producer: FakeProducer) -> None:
    """Publishes until `producer` has got the record."""
    async with asyncio.timeout(5):
        while not producer.sent:
            try:
                await publisher.publish(RECORD)
            except BrokerUnavailable:
                await asyncio.sleep(0.005)


async def test_before_the_connection_records_are_refused() -> None:
    """Nothing is buffered: the client keeps the record and learns when to retry."""
    publisher = KafkaPublisher(lambda _: FakeProducer(), TOPICS.conversations)
    with pytest.raises(BrokerUnavailable) as caught:
        await publisher.publish(RECORD)
    assert caught.value.retry_after_s == 5
    await publisher.close()


async def test_a_failed_start_is_tried_again_with_a_new_producer() -> None:
    """The one that failed is closed."""
    broken, working = FakeProducer(start_error=KafkaConnectionError()), FakeProducer()
    async with _publishing(broken, working) as publisher:
        await _published(publisher, working)
        assert broken.is_stopped
    assert working.is_stopped


async def test_a_broker_without_producer_ids_gets_a_plain_producer() -> None:
    """The first attempt is idempotent, those after the refusal are not."""
    asked: list[bool] = []
    coming = iter([FakeProducer(start_error=UnknownError()), FakeProducer()])

    def new_producer(is_idempotent: bool) -> FakeProducer:
        asked.append(is_idempotent)
        return next(coming)

    publisher = KafkaPublisher(new_producer, TOPICS.conversations)
    publisher.start()
    await _becomes(lambda: len(asked) == 2)
    await publisher.close()
    assert asked == [True, False]


async def test_a_gap_in_the_sequence_numbers_replaces_the_producer() -> None:
    """The record is refused; the next producer sends the next one."""
    holed, fresh = FakeProducer(send_error=OutOfOrderSequenceNumber()), FakeProducer()
    async with _publishing(holed, fresh) as publisher:
        await _becomes(lambda: publisher._connection.current is holed)
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(RECORD)
        await _published(publisher, fresh)
        await _becomes(lambda: holed.is_stopped)


async def test_a_passing_error_keeps_the_producer() -> None:
    """The producer would retry such an error itself."""
    only = FakeProducer(send_error=NotLeaderForPartitionError())
    async with _publishing(only) as publisher:
        await _becomes(lambda: publisher._connection.current is only)
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(RECORD)
        only.send_error = None
        await publisher.publish(RECORD)


async def test_a_record_that_the_broker_finds_too_large_is_413() -> None:
    """The client can change that, waiting cannot."""
    async with _publishing(FakeProducer(send_error=MessageSizeTooLargeError()), FakeProducer()) as publisher:
        await _becomes(lambda: publisher._connection.current is not None)
        with pytest.raises(Rejected) as caught:
            await publisher.publish(RECORD)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


async def test_waiting_for_a_confirmation_ends_at_the_deadline() -> None:
    """Without a confirmation in time there is no 202."""
    silent = FakeProducer()
    silent.is_silent = True
    async with _publishing(silent, confirm_timeout_s=0.01) as publisher:
        await _becomes(lambda: publisher._connection.current is silent)
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(RECORD)


async def test_unconfirmed_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a frozen broker the memory does not grow with the clients; requests that end make room."""
    monkeypatch.setattr(module, "MAX_UNCONFIRMED_BYTES", len(RECORD.value))
    producer = FakeProducer()
    producer.is_silent = True
    async with _publishing(producer) as publisher:
        await _becomes(lambda: publisher._connection.current is producer)
        waiting = asyncio.create_task(publisher.publish(RECORD))
        await _becomes(lambda: bool(producer.sent))
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(RECORD)
        waiting.cancel()
        await asyncio.wait([waiting])
        producer.is_silent = False
        await publisher.publish(RECORD)
