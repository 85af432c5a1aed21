"""The fake lag source and the one that asks a broker behave alike."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams.dev.local.brokers import Tansu
from streams.kafka.admin import create_topics
from streams.kafka.lag import ConnectingLagReader, Lag, LagCheck
from tests.fakes.gateway import FakeLag
from tests.support.topics import TOPICS

PARTITIONS = 2


class FakeBacklog:
    """The fake source, and the backlog that it reports."""

    def __init__(self) -> None:
        self.source = FakeLag()
        self._records = 0
        self._update()

    async def add(self, records: int) -> None:
        self._records += records
        self._update()

    def go_down(self) -> None:
        self.source.lag = KafkaConnectionError()

    async def come_back_empty(self) -> None:
        self._records = 0
        self._update()

    def _update(self) -> None:
        by_partition = {0: self._records} | dict.fromkeys(range(1, PARTITIONS), 0)
        self.source.lag = Lag(by_partition, seconds=1.0 if self._records else 0.0, members=0)


class RealBacklog:
    """A broker without workers; all records go to the first partition."""

    def __init__(self, broker: Tansu) -> None:
        self.source = ConnectingLagReader({"bootstrap_servers": broker.bootstrap_servers}, TOPICS)
        self._broker = broker

    async def add(self, records: int) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self._broker.bootstrap_servers, acks="all") as producer:
            for _ in range(records):
                await producer.send_and_wait(TOPICS.conversations, b"{}", partition=0)

    def go_down(self) -> None:
        assert self._broker.pid is not None
        os.kill(self._broker.pid, signal.SIGKILL)

    async def come_back_empty(self) -> None:
        await asyncio.to_thread(self._broker.start)
        await create_topics({"bootstrap_servers": self._broker.bootstrap_servers}, TOPICS, PARTITIONS, 1)


Backlog = FakeBacklog | RealBacklog


@pytest.fixture
async def real(tansu: Tansu) -> AsyncIterator[RealBacklog]:
    backlog = RealBacklog(tansu)
    await create_topics({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS, PARTITIONS, 1)
    yield backlog
    await backlog.source.stop()


@pytest.fixture(params=["fake", "broker"])
def backlog(request: pytest.FixtureRequest) -> Backlog:
    if request.param == "fake":
        return FakeBacklog()
    real: RealBacklog = request.getfixturevalue("real")
    return real


async def test_without_records_the_lag_is_zero(backlog: Backlog) -> None:
    """For every partition, in records and in seconds; the group has no member."""
    assert await backlog.source.read() == Lag({0: 0, 1: 0}, seconds=0.0, members=0)


async def test_each_reading_asks_again(backlog: Backlog) -> None:
    """Records since the last reading count."""
    for expected in (3, 7):
        await backlog.add(expected - (await backlog.source.read()).records)
        lag = await backlog.source.read()
        assert lag.records_by_partition == {0: expected, 1: 0}
        assert (lag.seconds > 0, lag.worker_running) == (True, False)


async def test_an_outage_leaves_no_lag_and_the_source_recovers(backlog: Backlog) -> None:
    """An old value would hide the outage; the source reconnects by itself once the broker is back."""
    lag_check = LagCheck(backlog.source)
    await lag_check.check()
    backlog.go_down()
    for _ in range(2):
        with pytest.raises(KafkaError):
            await lag_check.check()
        assert lag_check.latest is None
    await backlog.come_back_empty()
    await lag_check.check()
    assert lag_check.latest is not None
    assert lag_check.latest.records == 0
