"""The fake producer fails and confirms like aiokafka's, and confirmed batches report the result of each record."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import InvalidProducerEpoch, KafkaConnectionError, MessageSizeTooLargeError, UnknownError

from agents.text_key import owner_partition
from schemas.errors import Retryable, Unprocessable
from streams.dev.local.brokers import Kafka, Tansu
from streams.dev.local.ports import free_port
from streams.kafka.admin import create_topics
from streams.kafka.producer import ConfirmedProducer, Delivery, Outgoing
from tests.contracts.conftest import PARTITIONS, Cluster
from tests.fakes.producer import FakeProducer
from tests.support.process_tree import continue_tree, stop_tree
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS
from tests.support.waiting import eventually

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
    """The caller need not know whether it was stopped before."""
    await started.stop()
    await started.stop()


@pytest.mark.parametrize("is_fake", [True, False])
async def test_without_a_broker_the_start_fails(is_fake: bool) -> None:
    """A producer that could not start can be stopped."""
    fake = FakeProducer(start_error=KafkaConnectionError())
    producer = fake if is_fake else real_producer(f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()


@pytest.mark.parametrize("is_fake", [True, False])
async def test_without_producer_ids_an_idempotent_start_is_an_unknown_error(is_fake: bool, tansu: Tansu) -> None:
    """This is how the gateway detects a broker that needs a plain producer; once Tansu supports them, the plain one can
    go."""
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
    stop_tree(tansu.pid)
    try:
        started.is_silent = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await (await send(started))
    finally:
        continue_tree(tansu.pid)
    started.is_silent = False
    async with asyncio.timeout(10):
        await (await send(started))


async def test_a_producer_whose_sender_has_died_is_replaced(confirmed: ConfirmedProducer, cluster: Cluster) -> None:
    """aiokafka refuses every further send then, with the error that the sender died of."""
    broken = await confirmed._connection.connected()
    broken._message_accumulator.fail_all(InvalidProducerEpoch())
    topic = cluster.topics.conversations
    with pytest.raises(Retryable):
        await confirmed.send(topic, key=None, value=b"value", headers=[])
    assert confirmed._connection.failure == "InvalidProducerEpoch"
    async with asyncio.timeout(30):
        assert all(isinstance(delivery, int) for delivery in await confirmed.send_all(topic, outgoing(10)))
    assert (await confirmed.send(topic, key=None, value=b"value", headers=[])).topic == topic


async def test_every_record_of_a_batch_is_confirmed_with_its_offset(
    confirmed: ConfirmedProducer, cluster: Cluster
) -> None:
    """1,000 records over all partitions, in several produce batches; each is where its offset says."""
    records = outgoing(1_000, size=2_000)
    deliveries = await confirmed.send_all(cluster.topics.conversations, records)
    found = await records_of(cluster.bootstrap_servers, cluster.topics.conversations)
    at = {(record.partition, record.offset): record.value for record in found}
    places = [
        (owner_partition(record.key or b"", PARTITIONS), delivery)
        for record, delivery in zip(records, deliveries, strict=True)
    ]
    assert [at[place] for place in places] == [record.value for record in records]
    assert len(set(places)) == len(found) == 1_000


async def test_a_partition_that_is_named_gets_its_records_in_order(
    confirmed: ConfirmedProducer, cluster: Cluster
) -> None:
    """Whatever their keys say; key, headers and a missing value come through."""
    records = [Outgoing(b"%d" % n, None if n == 3 else b"v", [("n", b"%d" % n)], partition=2) for n in range(10)]
    assert await confirmed.send_all(cluster.topics.conversations, records) == list(range(10))
    found = await records_of(cluster.bootstrap_servers, cluster.topics.conversations)
    assert [Outgoing(at.key, at.value, list(at.headers), at.partition) for at in found] == records


async def test_a_batch_of_nothing_sends_nothing(confirmed: ConfirmedProducer, cluster: Cluster) -> None:
    """A stage may have no wanted record left."""
    assert await confirmed.send_all(cluster.topics.conversations, []) == []


@pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_of_a_batch_that_the_topic_refuses_only_the_large_record_is_refused(
    confirmed: ConfirmedProducer, cluster: Cluster
) -> None:
    """The batch is split, and every other record of it is in the topic once."""
    topic = f"{cluster.topics.prefix}small"
    await make_topic(cluster, NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "5000"}))
    records = outgoing(30)
    records[7] = records[7]._replace(value=b"x" * 10_000)
    deliveries: list[Delivery] = [Retryable("not sent")] * len(records)
    async with asyncio.timeout(60):
        while left := [n for n, delivery in enumerate(deliveries) if isinstance(delivery, Retryable)]:
            for n, delivery in zip(left, await confirmed.send_all(topic, [records[n] for n in left]), strict=True):
                deliveries[n] = delivery
    assert [n for n, delivery in enumerate(deliveries) if isinstance(delivery, Unprocessable)] == [7]
    found = await records_of(cluster.bootstrap_servers, topic)
    assert {record.offset: record.value for record in found} == {
        delivery: records[n].value for n, delivery in enumerate(deliveries) if isinstance(delivery, int)
    }


@pytest.mark.parametrize("cluster", ["tansu"], indirect=True)
async def test_a_send_waits_for_a_broker_that_is_frozen(
    confirmed: ConfirmedProducer, cluster: Cluster, tansu: Tansu
) -> None:
    """It is confirmed once the broker answers, or asks to be tried again."""
    assert tansu.pid is not None
    stop_tree(tansu.pid)
    try:
        sending = asyncio.create_task(confirmed.send_all(cluster.topics.conversations, outgoing(10)))
        assert not (await asyncio.wait({sending}, timeout=0.3))[0]
    finally:
        continue_tree(tansu.pid)
    assert all(isinstance(delivery, int | Retryable) for delivery in await sending)


@pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_new_partition_is_used_at_once(cluster: Cluster, confirmed: ConfirmedProducer) -> None:
    """aiokafka would fail an assertion until it refreshes its metadata. One that does not exist is refused for now."""
    topic = cluster.topics.insights
    await confirmed.send_all(topic, [Outgoing(b"k", b"v", [], 0)])
    admin = AIOKafkaAdminClient(**cluster.options)
    await admin.start()
    await admin.create_partitions({topic: NewPartitions(PARTITIONS + 1)})
    await admin.close()

    async def is_sent() -> bool:
        return await confirmed.send_all(topic, [Outgoing(b"k", b"v", [], PARTITIONS)]) == [0]

    await eventually(is_sent, what="the new partition has the record")
    assert isinstance((await confirmed.send_all(topic, [Outgoing(b"k", b"v", [], PARTITIONS + 1)]))[0], Retryable)


def outgoing(count: int, *, size: int = 200) -> list[Outgoing]:
    """Records with keys and values of their own."""
    return [Outgoing(b"key %d" % n, (b"value %d " % n).ljust(size, b"."), []) for n in range(count)]


async def make_topic(cluster: Cluster, topic: NewTopic) -> None:
    admin = AIOKafkaAdminClient(**cluster.options)
    await admin.start()
    response = await admin.create_topics([topic])
    await admin.close()
    assert [error[1:3] for error in response.topic_errors] == [(0, None)]
