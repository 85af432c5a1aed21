"""The lease is held exactly as long as the group membership is certain."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import InvalidSessionTimeoutError, KafkaConnectionError, KafkaError

from streams.engine.membership import GroupLease, watch_membership

#: Kafka's error code of a coordinator that still loads its groups, and refuses requests for offsets.
COORDINATOR_LOAD_IN_PROGRESS = 14


class Coordinator:
    """aiokafka's coordinator with a scripted broker: heartbeats are accepted while the group knows the member, and
    always while the broker loads."""

    def __init__(self) -> None:
        self.group_id = "group"
        self._subscription = SimpleNamespace(topics={"conversations", "conversations.rehomed"})
        self.knows_us, self.is_loading, self.is_away = True, False, False
        #: In this layout a broker says it for each partition; in the later one it names no partition.
        self.says_it_for_partitions = True
        self.heartbeats = 0
        self.is_rebalancing = False
        self.refuses_with: KafkaError | None = None
        self._rejoin_needed_fut = asyncio.get_running_loop().create_future()
        self.found()

    def found(self) -> None:
        """Finds another coordinator, or the same one again."""
        self._coordinator_dead_fut = asyncio.get_running_loop().create_future()

    async def _do_heartbeat(self) -> bool:
        self.heartbeats += 1
        if self.is_rebalancing and not self._rejoin_needed_fut.done():
            self._rejoin_needed_fut.set_result(None)
        return self.is_loading or self.knows_us

    async def _do_rejoin_group(self, subscription: object) -> bool:
        if self.refuses_with is not None:
            raise self.refuses_with
        return self.knows_us

    def reset_generation(self) -> None:
        """Does nothing."""

    async def _send_req(self, request: Any) -> Any:
        if self.is_away:
            raise KafkaConnectionError
        [(topic, [partition])] = request._partitions
        code = COORDINATOR_LOAD_IN_PROGRESS if self.is_loading else 0
        is_named = self.says_it_for_partitions or not code
        return SimpleNamespace(topics=[(topic, [(partition, -1, "", code)])] if is_named else [])


def unexpected(error: KafkaError) -> None:
    """No join of these tests is refused for good."""
    raise error


def test_it_is_not_held_before_the_first_join() -> None:
    """A worker that the group does not know makes no paid calls."""
    assert not GroupLease(10, lambda: 100.0).is_held


def test_it_is_held_for_one_session_timeout_from_when_the_heartbeat_was_sent() -> None:
    """The group counts from its arrival, which is later, so the lease never outlasts the membership."""
    now_s = 100.0
    lease = GroupLease(10, lambda: now_s)
    lease.renew(97)
    held = []
    for now_s in (100.0, 106.9, 107.0):  # noqa: B007  the lease's clock
        held.append(lease.is_held)
    assert held == [True, True, False]


async def joined() -> tuple[Coordinator, GroupLease]:
    """A worker that has just joined and lost its lease, as after a freeze."""
    coordinator, lease = Coordinator(), GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    assert await coordinator._do_rejoin_group(None)
    assert lease.is_held
    lease.lose()
    return coordinator, lease


async def test_a_join_that_is_refused_gives_no_lease() -> None:
    coordinator, lease = Coordinator(), GroupLease(10)
    watch_membership(coordinator, lease, unexpected)
    coordinator.knows_us = False
    assert not await coordinator._do_rejoin_group(None)
    assert not lease.is_held


async def test_a_join_that_is_refused_for_good_is_reported() -> None:
    """aiokafka joins no more after it, so the worker has to end."""
    coordinator, lease, refused = Coordinator(), GroupLease(10), list[KafkaError]()
    error = InvalidSessionTimeoutError()
    coordinator.refuses_with = error
    watch_membership(coordinator, lease, refused.append)
    with pytest.raises(InvalidSessionTimeoutError):
        await coordinator._do_rejoin_group(None)
    assert (refused, lease.is_held) == ([error], False)


async def test_only_a_heartbeat_that_is_accepted_renews_the_lease() -> None:
    coordinator, lease = await joined()
    coordinator.knows_us = False
    assert not await coordinator._do_heartbeat()
    assert not lease.is_held
    coordinator.knows_us = True
    assert await coordinator._do_heartbeat()
    assert lease.is_held


async def test_a_heartbeat_that_is_answered_with_a_rebalance_renews_nothing() -> None:
    """It is accepted, but calls that wait for the lease would begin just before the drain that cuts them off."""
    coordinator, lease = await joined()
    coordinator.is_rebalancing = True
    assert await coordinator._do_heartbeat(), "aiokafka continues with heartbeats until the member rejoins"
    assert not lease.is_held


async def test_a_member_that_the_group_does_not_know_loses_its_lease_at_once() -> None:
    coordinator, lease = Coordinator(), GroupLease(10)
    held: list[bool] = []
    coordinator.reset_generation = lambda: held.append(lease.is_held)  # type: ignore[method-assign]
    watch_membership(coordinator, lease, unexpected)
    await coordinator._do_rejoin_group(None)
    assert lease.is_held
    coordinator.reset_generation()
    assert (lease.is_held, held) == (False, [False])


async def test_a_broker_that_loads_the_group_renews_nothing() -> None:
    """The coordinator died while this worker was frozen out, and the next one accepts its heartbeat while it loads."""
    for says_it_for_partitions in (True, False):
        coordinator, lease = await joined()
        coordinator.says_it_for_partitions = says_it_for_partitions
        coordinator.knows_us, coordinator.is_loading = False, True
        coordinator.found()
        assert not await coordinator._do_heartbeat()
        assert (lease.is_held, coordinator.heartbeats) == (False, 0)
        coordinator.is_loading = False
        assert not await coordinator._do_heartbeat()
        assert (lease.is_held, coordinator.heartbeats) == (False, 1)


async def test_a_broker_that_has_loaded_the_group_is_asked_once() -> None:
    coordinator, lease = await joined()
    coordinator.found()
    assert await coordinator._do_heartbeat()
    assert lease.is_held
    coordinator.is_loading = True  # would be refused if it were asked again
    assert await coordinator._do_heartbeat()


async def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    coordinator, lease = await joined()
    coordinator.found()
    coordinator.is_away = True
    assert not await coordinator._do_heartbeat()
    coordinator.is_away = False
    assert await coordinator._do_heartbeat()
    assert lease.is_held


async def test_an_answer_that_another_broker_may_have_given_renews_nothing() -> None:
    """The coordinator was replaced between question and answer."""
    coordinator, lease = Coordinator(), GroupLease(10)
    accept = coordinator._do_heartbeat

    async def replaced_meanwhile() -> bool:
        coordinator.found()
        return await accept()

    coordinator._do_heartbeat = replaced_meanwhile  # type: ignore[method-assign]
    watch_membership(coordinator, lease, unexpected)
    assert await coordinator._do_heartbeat()
    assert not lease.is_held
