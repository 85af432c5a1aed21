"""The gateway's fake publisher and the one on a real broker behave alike."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from schemas.errors import Rejected
from streams.dev.local.brokers import Kafka, Tansu
from streams.gateway.publisher import RETRY_AFTER_S, BrokerUnavailable, KafkaPublisher
from streams.kafka.admin import create_topics
from streams.kafka.producer import Outgoing
from tests.fakes.gateway import FakePublisher
from tests.support.topic_log import records_of
from tests.support.topics import TOPICS


def a_record(id: str = "c-1", key: bytes = b"text-key") -> Outgoing:
    return Outgoing(key, b'{"id": "%s"}' % id.encode(), [("ce_id", id.encode()), ("tenant", b"\xff")])


class FakeOutlet:
    """The fake publisher, its stored records, and an outage."""

    def __init__(self) -> None:
        self.publisher = FakePublisher()

    async def stored(self) -> list[Outgoing]:
        return self.publisher.records

    def go_down(self) -> None:
        self.publisher.failure = BrokerUnavailable("the broker does not answer", retry_after_s=RETRY_AFTER_S)


class RealOutlet:
    """The same for a publisher that is connected to a broker."""

    def __init__(self, publisher: KafkaPublisher, broker: Tansu) -> None:
        self.publisher = publisher
        self._broker = broker

    async def stored(self) -> list[Outgoing]:
        records = await records_of(self._broker.bootstrap_servers, TOPICS.conversations)
        return [Outgoing(record.key, record.value, list(record.headers)) for record in records]

    def go_down(self) -> None:
        assert self._broker.pid is not None
        os.kill(self._broker.pid, signal.SIGKILL)


Outlet = FakeOutlet | RealOutlet


@asynccontextmanager
async def connected(broker: Tansu | Kafka) -> AsyncIterator[KafkaPublisher]:
    def new_producer(is_idempotent: bool) -> AIOKafkaProducer:
        servers = broker.bootstrap_servers
        return AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=is_idempotent)

    publisher = KafkaPublisher(new_producer, TOPICS.conversations, confirm_timeout_s=1)
    publisher.start()
    try:
        await publisher._connection.connected()
        yield publisher
    finally:
        await publisher.close()


@pytest.fixture
async def real(tansu: Tansu) -> AsyncIterator[RealOutlet]:
    await create_topics({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS, 4, 1)
    async with connected(tansu) as publisher:
        yield RealOutlet(publisher, tansu)


@pytest.fixture(params=["fake", "broker"])
def outlet(request: pytest.FixtureRequest) -> Outlet:
    if request.param == "fake":
        return FakeOutlet()
    real: RealOutlet = request.getfixturevalue("real")
    return real


async def test_what_is_published_is_stored(outlet: Outlet) -> None:
    """Key, value and headers byte for byte; equal keys keep their order, and a repeat is stored again."""
    records = [a_record("c-1"), a_record("c-2"), a_record("c-1")]
    for record in records:
        await outlet.publisher.publish(record)
    await outlet.publisher.check()
    assert await outlet.stored() == records


async def test_an_outage_refuses_and_stores_nothing(outlet: Outlet) -> None:
    """The client learns when to retry; the check fails as well."""
    await outlet.publisher.publish(a_record())
    outlet.go_down()
    with pytest.raises(BrokerUnavailable) as refused:
        await outlet.publisher.publish(a_record("c-2"))
    with pytest.raises(BrokerUnavailable):
        await outlet.publisher.check()
    assert refused.value.retry_after_s == 5


async def test_a_record_above_the_producers_limit_is_413(real: RealOutlet) -> None:
    """A retry would not help. Other records are still accepted."""
    with pytest.raises(Rejected) as refused:
        await real.publisher.publish(Outgoing(b"key", b"x" * 2 * 1024 * 1024, []))
    assert (refused.value.code, refused.value.status) == ("too_large", 413)
    await real.publisher._connection.connected()
    await real.publisher.publish(a_record())
    assert await real.stored() == [a_record()]


@pytest.mark.parametrize("broker", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_a_missing_topic_fails_the_check(broker: Kafka) -> None:
    """The error names the command that creates it. Tansu creates a topic on request."""
    async with connected(broker) as publisher:
        with pytest.raises(BrokerUnavailable, match="grok-insights topics"):
            await publisher.check()
