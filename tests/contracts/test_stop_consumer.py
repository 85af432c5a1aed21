"""aiokafka's consumer may hang when it is stopped; stop_consumer stops it anyway."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.dev.local.brokers import Kafka, Tansu
from streams.kafka.admin import create_topics
from streams.kafka.clients import stop_consumer
from tests.support.topics import TOPICS


async def consumer_that_lost_its_assignment(broker: Tansu | Kafka) -> AIOKafkaConsumer:
    """Its fetching waits for the end of a request that it has just cancelled."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await create_topics(options, TOPICS, 1, 1)
    consumer = AIOKafkaConsumer(**options, group_id=None, fetch_max_wait_ms=5_000)
    await consumer.start()
    consumer.assign([TopicPartition(TOPICS.conversations, 0)])
    await consumer.getmany(timeout_ms=500)  # the next fetch is in flight now
    fetcher = consumer._fetcher

    async def slow_to_be_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    fetcher._pending_tasks.add(asyncio.create_task(slow_to_be_cancelled()))
    consumer.unsubscribe()
    await asyncio.sleep(0.1)
    return consumer


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_the_defect_is_still_there(broker: Tansu | Kafka) -> None:
    """Fails once aiokafka has fixed it: then stop_consumer can go."""
    consumer = await consumer_that_lost_its_assignment(broker)
    stopping = asyncio.ensure_future(consumer.stop())
    assert not (await asyncio.wait({stopping}, timeout=2))[0]
    consumer._fetcher._fetch_task.cancel()
    await stopping


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_it_stops_all_the_same(broker: Tansu | Kafka) -> None:
    """It stops within the test's own time limit."""
    consumer = await consumer_that_lost_its_assignment(broker)
    await stop_consumer(consumer)
    assert consumer._closed


@pytest.mark.parametrize("broker", ["tansu"], indirect=True)
async def test_who_gives_up_stopping_leaves_nothing_running(broker: Tansu | Kafka) -> None:
    """As the worker's thread does when its broker is frozen."""
    consumer, never = await consumer_that_lost_its_assignment(broker), asyncio.Event()
    stopping: list[asyncio.Task[None]] = []
    stop = consumer.stop

    async def hang() -> None:
        stopping.append(asyncio.current_task())  # type: ignore[arg-type]
        await never.wait()

    consumer.stop = hang
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stop_consumer(consumer)
    await asyncio.wait(stopping)
    assert stopping[0].cancelled()
    consumer.stop = stop
    await stop_consumer(consumer)
