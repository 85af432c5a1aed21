"""Offsets are committed as a member of the generation in which they were finished, or not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.dev.local.brokers import Tansu
from streams.engine import consumer as module
from streams.engine.consumer import MemberThread
from streams.kafka.lag import LagReader
from streams.kafka.offset_reader import OffsetReader
from tests.contracts.conftest import Cluster, a_member
from tests.support.process_tree import continue_tree, stop_tree

ON_TANSU = pytest.mark.parametrize("cluster", ["tansu"], indirect=True)


@pytest.fixture
async def consumer(cluster: Cluster) -> AsyncIterator[AIOKafkaConsumer]:
    """A member of the workers' group."""
    async with a_member(cluster) as consumer:
        assert consumer.assignment(), "start() waits for the first one"
        yield consumer


def thread_of(consumer: AIOKafkaConsumer) -> MemberThread:
    """Returns Faust's consumer thread, reduced to what a commit needs."""
    thread = MemberThread.__new__(MemberThread)
    thread._consumer = consumer
    return thread


def first(cluster: Cluster) -> TopicPartition:
    return TopicPartition(cluster.topics.conversations, 0)


async def test_a_member_commits_in_its_own_generation(
    consumer: AIOKafkaConsumer, cluster: Cluster, offset_reader: OffsetReader
) -> None:
    """Several partitions in one request; the next worker reads from there."""
    offsets = {TopicPartition(cluster.topics.conversations, n): 10 + n for n in range(3)}
    assert await thread_of(consumer).commit_as(consumer._coordinator.generation, offsets)
    assert await offset_reader.committed_offsets(offsets) == offsets


@pytest.mark.parametrize("cluster", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True)
async def test_the_group_can_see_who_has_halted(
    consumer: AIOKafkaConsumer, cluster: Cluster, offset_reader: OffsetReader
) -> None:
    """The note lasts as long as the member, or until its next commit without it. Tansu keeps none with an offset."""
    thread, generation, offsets = thread_of(consumer), consumer._coordinator.generation, {first(cluster): 10}
    reader = LagReader(offset_reader, cluster.topics.inputs)
    assert (await reader.read()).halted == 0
    assert await thread.commit_as(generation, offsets, has_halted=True)
    lag = await reader.read()
    assert (lag.members, lag.halted) == (1, 1)
    assert await thread.commit_as(generation, offsets)
    assert (await reader.read()).halted == 0
    assert await thread.commit_as(generation, offsets, has_halted=True)
    await consumer.stop()
    lag = await reader.read()
    assert (lag.members, lag.halted) == (0, 0)


@pytest.mark.parametrize("other", [-1, 1])
async def test_nothing_is_committed_in_another_generation(
    consumer: AIOKafkaConsumer, cluster: Cluster, offset_reader: OffsetReader, other: int
) -> None:
    """After a rebalance that would take another worker's later offset back."""
    generation = consumer._coordinator.generation + other
    assert not await thread_of(consumer).commit_as(generation, {first(cluster): 1_328})
    assert await offset_reader.committed_offsets([first(cluster)]) == {first(cluster): None}


async def test_a_member_that_the_group_has_replaced_commits_nothing(
    consumer: AIOKafkaConsumer, cluster: Cluster, offset_reader: OffsetReader
) -> None:
    """It was frozen and does not know yet: the broker refuses, and the worker continues."""
    generation = consumer._coordinator.generation
    consumer._coordinator.member_id = "replaced"
    assert not await thread_of(consumer).commit_as(generation, {first(cluster): 1_328})
    assert await offset_reader.committed_offsets([first(cluster)]) == {first(cluster): None}


async def test_a_worker_without_a_generation_commits_nothing(cluster: Cluster, offset_reader: OffsetReader) -> None:
    """Brokers accept that from any client while a group is empty: another worker's offset would move back."""
    group = cluster.topics.consumer_group
    async with AIOKafkaConsumer(group_id=group, enable_auto_commit=False, **cluster.options) as consumer:
        consumer.assign([first(cluster)])
        await consumer._coordinator.ensure_coordinator_known()
        generation = consumer._coordinator.generation
        assert not await thread_of(consumer).commit_as(generation, {first(cluster): 1_328})
        assert await offset_reader.committed_offsets([first(cluster)]) == {first(cluster): None}


@ON_TANSU
async def test_a_broker_that_does_not_answer_is_not_waited_for(
    consumer: AIOKafkaConsumer, cluster: Cluster, tansu: Tansu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be committed is due again, and committed once the broker answers."""
    monkeypatch.setattr(module, "COMMIT_TIMEOUT_S", 0.2)
    thread, generation = thread_of(consumer), consumer._coordinator.generation
    assert tansu.pid is not None
    stop_tree(tansu.pid)
    try:
        assert not await thread.commit_as(generation, {first(cluster): 1_328})
    finally:
        continue_tree(tansu.pid)
    monkeypatch.undo()
    async with asyncio.timeout(30):
        while not await thread.commit_as(generation, {first(cluster): 1_328}):
            await asyncio.sleep(0.05)
