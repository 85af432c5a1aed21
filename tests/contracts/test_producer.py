"""The fake producer fails and confirms like aiokafka's, on which KeptProducer and the publisher rely."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaConnectionError, MessageSizeTooLargeError, UnknownError
from aiokafka.structs import RecordMetadata

from schemas.errors import Retryable
from streams.dev.local.kafka import Kafka
from streams.dev.local.ports import free_port
from streams.dev.local.tansu import Tansu
from streams.kafka.admin import create_topics
from streams.kafka.producer import ConfirmedProducer
from tests.fakes.producer import FakeProducer
from tests.support.topics import TOPICS

Producer = Any  # aiokafka tells no types
MIB = 1024 * 1024


def real_producer(bootstrap_servers: str, *, is_idempotent: bool = False) -> Producer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        enable_idempotence=is_idempotent,
        max_request_size=4 * MIB,
    )


@pytest.fixture(params=["fake", "aiokafka"])
async def started(request: pytest.FixtureRequest, tansu: Tansu) -> AsyncIterator[Producer]:
    await create_topics({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS, 2, 1)
    producer = FakeProducer() if request.param == "fake" else real_producer(tansu.bootstrap_servers)
    await producer.start()
    yield producer
    await producer.stop()


async def send(producer: Producer, value: bytes = b"value") -> "asyncio.Future[Any]":
    confirmation: asyncio.Future[Any] = await producer.send(
        TOPICS.conversations, value, key=b"key", headers=[("a", b"b")]
    )
    return confirmation


async def test_a_record_is_sent_first_and_confirmed_later(started: Producer) -> None:
    """A send gives a future; the topic can be looked up before."""
    await started.client.add_topic(TOPICS.conversations)
    confirmation = await send(started)
    assert isinstance(confirmation, asyncio.Future)
    async with asyncio.timeout(10):
        await confirmation


async def test_a_producer_can_be_stopped_twice(started: Producer) -> None:
    """Whoever gives one up need not know what it has been through."""
    await started.stop()
    await started.stop()


@pytest.mark.parametrize("is_fake", [True, False])
async def test_without_a_broker_the_start_fails(is_fake: bool) -> None:
    """And what could not start can be stopped."""
    fake = FakeProducer(start_error=KafkaConnectionError())
    producer = fake if is_fake else real_producer(f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()


@pytest.mark.parametrize("is_fake", [True, False])
async def test_without_producer_ids_an_idempotent_start_is_an_unknown_error(is_fake: bool, tansu: Tansu) -> None:
    """This is how a broker that needs a plain producer is told; once Tansu knows them, the plain one can go."""
    fake = FakeProducer(start_error=UnknownError())
    producer = fake if is_fake else real_producer(tansu.bootstrap_servers, is_idempotent=True)
    with pytest.raises(UnknownError):
        await producer.start()
    await producer.stop()


@pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_refused_record_fails_its_confirmation(broker: Kafka) -> None:
    """The send itself has passed; the error comes with the answer of the broker, who has a limit of its own."""
    await create_topics({"bootstrap_servers": broker.bootstrap_servers}, TOPICS, 2, 1)
    fake = FakeProducer(send_error=MessageSizeTooLargeError())
    for producer in (fake, real_producer(broker.bootstrap_servers, is_idempotent=True)):
        await producer.start()
        confirmation = await send(producer, b"x" * 2 * MIB)
        with pytest.raises(MessageSizeTooLargeError):
            await confirmation
        await producer.stop()


async def test_a_silent_broker_leaves_the_confirmation_open(started: Producer, tansu: Tansu) -> None:
    """Giving up the wait is the caller's decision; it does not break the producer."""
    await (await send(started))
    assert tansu.pid is not None
    os.kill(tansu.pid, signal.SIGSTOP)
    try:
        started.is_silent = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await (await send(started))
    finally:
        os.kill(tansu.pid, signal.SIGCONT)
    started.is_silent = False
    async with asyncio.timeout(10):
        await (await send(started))


async def test_a_producer_whose_sender_has_died_is_replaced(producer: ConfirmedProducer) -> None:
    """aiokafka refuses every further send then, with the error that the sender died of."""
    broken = await producer._connection.connected()
    broken._message_accumulator.fail_all(InvalidProducerEpoch())
    with pytest.raises(Retryable):
        await send_confirmed(producer)
    async with asyncio.timeout(10):
        while producer._connection.current is broken:
            await asyncio.sleep(0)
        assert (await send_confirmed(producer)).topic == TOPICS.conversations


async def send_confirmed(producer: ConfirmedProducer) -> RecordMetadata:
    return await producer.send(TOPICS.conversations, key=None, value=b"value", headers=[])
