"""The cluster that chaos rounds run on: its faults really happen, and none of them costs a confirmed record."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.dev.local.process import ProcessLog as ProcessLog
from tests.chaos.admin import admin_of
from tests.chaos.cluster import NODES, Cluster
from tests.chaos.cluster_view import ClusterView
from tests.support.servers import skip_unless_kafka

pytestmark = pytest.mark.kafka
DEADLINE_S = 60
PARTITIONS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    skip_unless_kafka()
    folder = tmp_path_factory.mktemp("cluster")
    with closing(ProcessLog(folder / "log")) as log, Cluster(folder, log) as cluster:
        yield cluster


@pytest.fixture
async def topic(cluster: Cluster) -> str:
    """A new one, on all nodes."""
    name = f"parcels-{secrets.token_hex(4)}"
    async with admin_of(cluster.bootstrap_servers) as admin:
        await admin.create_topics([NewTopic(name, PARTITIONS, len(NODES))])
    return name


class Feed:
    """Writes one record after the other; `confirmed` are those that all replicas in sync have."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer, self._topic = producer, topic
        self.confirmed: list[bytes] = []

    async def run(self) -> None:
        while True:
            value = str(len(self.confirmed)).encode()
            await self._producer.send_and_wait(self._topic, value, key=value)
            self.confirmed.append(value)

    async def write_more(self) -> None:
        """Returns after twenty more records, so that some went to each partition."""
        wanted = len(self.confirmed) + 20
        async with asyncio.timeout(DEADLINE_S):
            while len(self.confirmed) < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def feeding(cluster: Cluster, topic: str) -> AsyncIterator[Feed]:
    """Records are written meanwhile and afterwards; then each confirmed one must be in the topic, once."""
    async with AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, acks="all", enable_idempotence=True
    ) as producer:
        feed = Feed(producer, topic)
        task = asyncio.create_task(feed.run())
        try:
            await feed.write_more()
            yield feed
            await feed.write_more()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    there = await values_of(cluster, topic)
    assert len(there) == len(set(there))
    assert set(feed.confirmed) <= set(there)


async def values_of(cluster: Cluster, topic: str) -> list[bytes]:
    """Every record of the topic."""
    found: list[bytes] = []
    async with (
        AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest") as consumer,
        asyncio.timeout(DEADLINE_S),
    ):
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while len(found) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += [record.value for record in batch]
    return found


async def are_in_sync(cluster: Cluster, topic: str, *nodes: int) -> None:
    """Returns when these nodes and no other ones are in sync in every partition: a busy machine takes its time."""
    async with asyncio.timeout(DEADLINE_S):
        while _in_sync(await asyncio.to_thread(cluster.view), topic) != {frozenset(nodes)}:
            await asyncio.sleep(0.05)


def _in_sync(view: ClusterView | None, topic: str) -> set[frozenset[int]]:
    partitions = view.partitions if view else ()
    return {partition.in_sync for partition in partitions if partition.topic == topic}


async def test_a_new_topic_has_three_replicas_of_which_two_must_be_in_sync(cluster: Cluster, topic: str) -> None:
    """Else acks=all would promise nothing."""
    async with admin_of(cluster.bootstrap_servers) as admin:
        (reply,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    settings = {entry[0]: entry[1] for entry in reply.resources[0][4]}
    assert (settings["min.insync.replicas"], settings["unclean.leader.election.enable"]) == ("2", "false")
    await are_in_sync(cluster, topic, *NODES)


@pytest.mark.parametrize("end", [Cluster.kill, Cluster.terminate])
async def test_writing_continues_without_one_node_and_it_comes_back_in_sync(
    cluster: Cluster, topic: str, end: Callable[[Cluster, int], None]
) -> None:
    """Afterwards it has all records that were confirmed while it was away."""
    async with feeding(cluster, topic) as feed:
        await asyncio.to_thread(end, cluster, 1)
        assert not cluster.is_alive(1)
        await feed.write_more()
        await are_in_sync(cluster, topic, 2, 3)
        await asyncio.to_thread(cluster.restart, 1)
        assert cluster.is_alive(1)
        await are_in_sync(cluster, topic, *NODES)


async def test_a_frozen_cluster_answers_no_client_and_continues_where_it_was(cluster: Cluster, topic: str) -> None:
    """Its processes stay alive."""
    async with feeding(cluster, topic) as feed:
        await asyncio.to_thread(cluster.freeze)
        count = len(feed.confirmed)
        assert await asyncio.to_thread(cluster.view) is None
        assert len(feed.confirmed) <= count + 1  # a reply may have been on its way
        assert all(cluster.is_alive(number) for number in NODES)
        await asyncio.to_thread(cluster.thaw)


async def test_nothing_confirmed_is_lost_when_all_nodes_are_killed_at_once(cluster: Cluster, topic: str) -> None:
    """They start again together."""
    async with feeding(cluster, topic):
        await asyncio.to_thread(cluster.freeze)
        for number in NODES:
            await asyncio.to_thread(cluster.kill, number)
        assert cluster.view() is None
        await asyncio.to_thread(cluster.restart, *NODES)
        await are_in_sync(cluster, topic, *NODES)
