"""`grok-insights topics` on Apache Kafka: it changes nothing before it has checked everything, and lets topics grow."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.errors import Fatal
from schemas.kafka import Topics
from streams.dev.local.brokers import Kafka
from streams.kafka.admin import check_configs, create_topics, topic_configs
from tests.support.topics import fresh_prefix, topics_with
from tests.support.waiting import eventually

pytestmark = pytest.mark.kafka


class Cluster:
    """Topics whose names no other test uses; none of them exists yet."""

    def __init__(self, kafka: Kafka) -> None:
        self.topics: Topics = topics_with(fresh_prefix())
        self.options = {"bootstrap_servers": kafka.bootstrap_servers}

    async def partitions(self) -> dict[str, int]:
        """Returns the partitions of the existing topics."""
        admin = AIOKafkaAdminClient(**self.options)
        await admin.start()
        try:
            names = [name for name in await admin.list_topics() if name.startswith(self.topics.prefix)]
            described = await admin.describe_topics(names) if names else []
            return {topic["topic"]: len(topic["partitions"]) for topic in described}
        finally:
            await admin.close()

    async def create(self, config: dict[str, str] | None = None, **partitions: int) -> None:
        """Creates topics by attribute of `Topics`, and waits until the broker lists them, which is a moment later."""
        admin = AIOKafkaAdminClient(**self.options)
        await admin.start()
        await admin.create_topics(
            [NewTopic(getattr(self.topics, name), count, 1, topic_configs=config) for name, count in partitions.items()]
        )
        await admin.close()
        wanted = {getattr(self.topics, name): count for name, count in partitions.items()}

        async def are_listed() -> bool:
            return await self.partitions() == wanted

        await eventually(are_listed, what="the broker lists the topics")


@pytest.fixture
def cluster(shared_kafka: Kafka) -> Cluster:
    return Cluster(shared_kafka)


async def test_nothing_is_created_where_a_topic_has_another_number(cluster: Cluster) -> None:
    """The hint says what to do, with the number if there is only one to agree on."""
    await cluster.create(conversations=3)
    with pytest.raises(Fatal) as caught:
        await create_topics(cluster.options, cluster.topics, 4, 1)
    assert caught.value.why == f"{cluster.topics.conversations} has 3"
    assert caught.value.hint == (
        "set TOPIC_PARTITIONS=3, or give all topics the largest number: grok-insights topics --grow"
    )
    assert await cluster.partitions() == {cluster.topics.conversations: 3}


async def test_nothing_is_created_where_the_brokers_would_refuse_a_topic(cluster: Cluster) -> None:
    """There are fewer brokers than replicas; existing topics do not grow either."""
    await cluster.create(conversations=3)
    with pytest.raises(Fatal, match="cannot be created") as caught:
        await create_topics(cluster.options, cluster.topics, 4, 2, grow=True)
    assert "TOPIC_REPLICATION_FACTOR" in caught.value.hint
    assert await cluster.partitions() == {cluster.topics.conversations: 3}


async def test_growing_where_no_topic_exists_creates_all(cluster: Cluster) -> None:
    """As the first start of `up` on Apache Kafka does."""
    await create_topics(cluster.options, cluster.topics, 4, 1, grow=True)
    assert await cluster.partitions() == dict.fromkeys(topic_configs(cluster.topics), 4)


@pytest.mark.parametrize(("asked_for", "largest"), [(4, 6), (8, 8)])
async def test_all_topics_grow_to_the_largest_number(cluster: Cluster, asked_for: int, largest: int) -> None:
    """Those that are missing are created with it; a second time there is nothing to do."""
    await cluster.create(conversations=6, rehomed=4, insights=3)
    grown = await create_topics(cluster.options, cluster.topics, asked_for, 1, grow=True)
    assert await cluster.partitions() == dict.fromkeys(topic_configs(cluster.topics), largest)
    names = {status.name: (status.is_new, status.grown_from) for status in grown}
    assert names[cluster.topics.rehomed] == (False, 4)
    assert names[cluster.topics.dead_letters] == (True, None)
    again = await create_topics(cluster.options, cluster.topics, largest, 1, grow=True)
    assert {(status.partitions, status.is_new, status.grown_from) for status in again} == {(largest, False, None)}


@pytest.mark.parametrize(
    ("topic", "config", "loss"),
    [
        ("answers_changelog", {}, "has cleanup.policy=delete, not compact"),
        ("replay_ledger", {"cleanup.policy": "compact,delete"}, "has cleanup.policy=compact,delete, not compact"),
        ("dead_letters", {"max.message.bytes": "1000000"}, "has max.message.bytes=1000000, less than 2097152"),
        ("rehomed", {"cleanup.policy": "compact"}, "has cleanup.policy=compact, not delete"),
        ("conversations", {"cleanup.policy": "compact"}, "has cleanup.policy=compact, not delete"),
    ],
)
async def test_nothing_is_created_where_a_topic_would_lose_records(
    cluster: Cluster, topic: str, config: dict[str, str], loss: str
) -> None:
    """A program other than `grok-insights topics` made it, with the broker's defaults or its own."""
    await cluster.create(config, **{topic: 4})
    name = getattr(cluster.topics, topic)
    with pytest.raises(Fatal, match="would lose") as caught:
        await create_topics(cluster.options, cluster.topics, 4, 1)
    assert caught.value.why == f"{name} {loss}"
    assert await cluster.partitions() == {name: 4}


async def test_what_is_for_the_operator_to_choose_is_noted(cluster: Cluster) -> None:
    """Larger limits are not."""
    kept = {"max.message.bytes": "3000000", "retention.ms": "604800000"}
    await cluster.create(kept, dead_letters=4)
    await create_topics(cluster.options, cluster.topics, 4, 1)
    retention = "has retention.ms=604800000, less than the recommended 7776000000"
    assert await check_configs(cluster.options, cluster.topics) == [f"{cluster.topics.dead_letters} {retention}"]
    statuses = {status.name: status.notes for status in await create_topics(cluster.options, cluster.topics, 4, 2)}
    replicas = "has 1 replica(s), and TOPIC_REPLICATION_FACTOR is 2"
    assert statuses.pop(cluster.topics.dead_letters) == (retention, replicas)
    assert set(statuses.values()) == {(replicas,)}


async def test_topics_kept_without_end_need_no_note(cluster: Cluster) -> None:
    """Kafka writes that as -1."""
    await cluster.create({"max.message.bytes": "2097152", "retention.ms": "-1"}, dead_letters=4)
    await create_topics(cluster.options, cluster.topics, 4, 1)
    assert await check_configs(cluster.options, cluster.topics) == []
