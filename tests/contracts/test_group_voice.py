"""A coordinator that is found anew, as after the death of a broker, renews the lease on every broker."""

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from streams.pipeline.group_voice import listen
from streams.pipeline.lease import GroupLease

from streams.dev.local.kafka import Kafka
from streams.dev.local.tansu import Tansu
from streams.kafka.admin import create_topics
from tests.support.topics import TOPICS


async def test_a_member_keeps_its_lease_when_the_coordinator_is_found_anew(broker: Tansu | Kafka) -> None:
    """It is asked for an offset first, and says whether it has read what it took over."""
    options = {"bootstrap_servers": broker.bootstrap_servers}
    await create_topics(options, TOPICS, 1, 1)
    async with AIOKafkaConsumer(TOPICS.conversations, group_id="group-voice", **options) as consumer:
        assert consumer.assignment(), "start() waits for the first one"
        coordinator, lease = consumer._coordinator, GroupLease(10)
        assert isinstance(coordinator, GroupCoordinator)
        listen(coordinator, lease)
        coordinator.coordinator_dead()
        await coordinator.ensure_coordinator_known()
        assert await coordinator._do_heartbeat()
        assert lease.is_held
