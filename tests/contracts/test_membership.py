"""The lease on every broker: held by a member, also when its coordinator is found again after a broker's death."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError

from streams.engine.membership import GroupLease, watch_membership
from tests.contracts.conftest import Cluster, a_member


@pytest.fixture
async def coordinator(cluster: Cluster) -> AsyncIterator[GroupCoordinator]:
    """The coordinator of a member."""
    async with a_member(cluster) as consumer:
        assert consumer.assignment(), "start() waits for the first one"
        assert isinstance(consumer._coordinator, GroupCoordinator)
        yield consumer._coordinator


def unexpected(error: KafkaError) -> None:
    """No join of these tests is refused for good."""
    raise error


async def test_a_join_gives_the_lease(coordinator: GroupCoordinator) -> None:
    """A join proves the membership."""
    lease = GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    assert await coordinator._do_rejoin_group(coordinator._subscription.subscription)
    assert lease.is_held


async def test_a_heartbeat_renews_it(coordinator: GroupCoordinator) -> None:
    """After a freeze, this is what lets calls begin again."""
    lease = GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    assert await coordinator._do_heartbeat()
    assert lease.is_held


async def test_a_heartbeat_that_is_answered_with_a_rebalance_does_not(
    cluster: Cluster, coordinator: GroupCoordinator
) -> None:
    """The drain is about to begin, and would cut off the calls that wait for the lease."""
    lease, drained = GroupLease(10), asyncio.Event()
    watch_membership(coordinator, lease, unexpected)
    coordinator._on_join_prepare = lambda _: drained.wait()
    another = a_member(cluster)
    joining = asyncio.create_task(another.start())
    async with asyncio.timeout(30):
        while not coordinator._rejoin_needed_fut.done():
            await asyncio.sleep(0.05)
            await coordinator._do_heartbeat()
    lease.lose()
    was_accepted, is_held = await coordinator._do_heartbeat(), lease.is_held
    drained.set()
    await joining
    await another.stop()
    assert (was_accepted, is_held) == (True, False)


async def test_a_coordinator_that_is_found_again_renews_it(coordinator: GroupCoordinator) -> None:
    """It is asked for an offset first, and so says whether it has loaded the group."""
    lease = GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    coordinator.coordinator_dead()
    await coordinator.ensure_coordinator_known()
    assert await coordinator._do_heartbeat()
    assert lease.is_held


async def test_a_member_that_the_group_does_not_know_loses_it(coordinator: GroupCoordinator) -> None:
    """As after a freeze that was longer than the session timeout."""
    lease = GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    await coordinator._do_heartbeat()
    member_id, coordinator.member_id = coordinator.member_id, "replaced"
    assert not await coordinator._do_heartbeat()
    coordinator.member_id = member_id
    assert not lease.is_held
