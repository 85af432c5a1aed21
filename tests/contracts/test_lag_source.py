"""The fake lag and the one read from a broker keep the same promises."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams.dev.local.tansu import Tansu
from streams.kafka.admin import make_topics
from streams.kafka.lag import ConnectingLag
from streams.telemetry.lag_view import Lag, LagView
from tests.fakes.gateway_parts import FakeLag
from tests.support.topics import TOPICS

PARTITIONS = 2


class FakeBacklog:
    """The fake, told what the broker would hold."""

    def __init__(self) -> None:
        self.source = FakeLag()
        self._records = 0
        self._tell()

    async def add(self, records: int) -> None:
        self._records += records
        self._tell()

    def go_down(self) -> None:
        self.source.lag = KafkaConnectionError()

    async def come_back_empty(self) -> None:
        self._records = 0
        self._tell()

    def _tell(self) -> None:
        by_partition = {0: self._records} | dict.fromkeys(range(1, PARTITIONS), 0)
        self.source.lag = Lag(by_partition, seconds=1.0 if self._records else 0.0, members=0)


class RealBacklog:
    """A broker without workers, all of whose records go into the first partition."""

    def __init__(self, broker: Tansu) -> None:
        self.source = ConnectingLag({"bootstrap_servers": broker.bootstrap_servers}, TOPICS)
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
        await make_topics({"bootstrap_servers": self._broker.bootstrap_servers}, TOPICS, PARTITIONS, 1)


Backlog = FakeBacklog | RealBacklog


@pytest.fixture
async def real(tansu: Tansu) -> AsyncIterator[RealBacklog]:
    backlog = RealBacklog(tansu)
    await make_topics({"bootstrap_servers": tansu.bootstrap_servers}, TOPICS, PARTITIONS, 1)
    yield backlog
    await backlog.source.stop()


@pytest.fixture(params=["fake", "broker"])
def backlog(request: pytest.FixtureRequest) -> Backlog:
    if request.param == "fake":
        return FakeBacklog()
    real: RealBacklog = request.getfixturevalue("real")
    return real


async def test_nothing_behind_is_zero(backlog: Backlog) -> None:
    """For every partition, in records and in seconds; without workers nobody is in the group."""
    assert await backlog.source.read() == Lag({0: 0, 1: 0}, seconds=0.0, members=0)


async def test_each_reading_is_a_question_of_its_own(backlog: Backlog) -> None:
    """What came since the last one counts."""
    for expected in (3, 7):
        await backlog.add(expected - (await backlog.source.read()).records)
        lag = await backlog.source.read()
        assert lag.records_by_partition == {0: expected, 1: 0}
        assert (lag.seconds > 0, lag.worker_running) == (True, False)


async def test_an_outage_leaves_no_reading_and_passes(backlog: Backlog) -> None:
    """An old value would tell of a broker that may be gone; once it is back the source finds it by itself."""
    view = LagView(backlog.source)
    await view.check()
    backlog.go_down()
    for _ in range(2):
        with pytest.raises(KafkaError):
            await view.check()
        assert view.latest is None
    await backlog.come_back_empty()
    await view.check()
    assert view.latest is not None
    assert view.latest.records == 0
