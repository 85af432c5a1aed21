"""Group membership: a lease that is renewed by joins and heartbeats, which aiokafka does not expose."""

import time
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest


class GroupLease:
    """Proof that this worker is a member of its group; while it is held, no session timeout has replaced it.

    A member that rejoins too late can lose its partitions while the lease lasts: the fence is closed by then.

    Valid for one session timeout after the latest join or heartbeat that the group accepted, counted from when that
    was sent. A worker that was frozen or cut off for longer may have been replaced: rows and events survive that, but a
    second call to the provider is money spent.

    CLOCK_MONOTONIC stops while the whole machine is suspended, which is noticed only at the next heartbeat.
    """

    def __init__(self, session_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._session_timeout_s = session_timeout_s
        self._clock = clock
        self._renewed_at_s: float | None = None

    def renew(self, sent_at_s: float) -> None:
        """The group accepted what was sent at that time, by the same clock. Safe from any thread."""
        self._renewed_at_s = sent_at_s

    def lose(self) -> None:
        """The group does not know this worker any more. Safe from any thread."""
        self._renewed_at_s = None

    @property
    def is_held(self) -> bool:
        """Whether the group cannot have replaced this worker."""
        renewed_at_s = self._renewed_at_s
        return renewed_at_s is not None and self._clock() - renewed_at_s < self._session_timeout_s


def watch_membership(coordinator: Any, lease: GroupLease, on_refused: Callable[[KafkaError], None]) -> None:
    """Renews the lease on each join and heartbeat, and loses it when the group does not know this member any more.

    Calls `on_refused` when a join is refused for good: aiokafka then waits until its user asks for the error, which
    Faust never does, and joins no more.

    A broker that takes the group over accepts every heartbeat while it loads the group's state, also one of a worker
    that was replaced long ago (Kafka: GroupCoordinatorService.heartbeat, COORDINATOR_LOAD_IN_PROGRESS). Until it has
    answered a question for an offset, which it refuses while it loads, no heartbeat is sent.
    """
    send_heartbeat, rejoin, reset = (
        coordinator._do_heartbeat,
        coordinator._do_rejoin_group,
        coordinator.reset_generation,
    )
    #: The coordinator that has loaded the group; aiokafka makes such a future for each one that it finds.
    loaded: Any = None

    async def heartbeat() -> bool:
        nonlocal loaded
        asked = coordinator._coordinator_dead_fut
        if asked is not loaded:
            if not await _has_loaded(coordinator):
                return False  # aiokafka comes again after its back-off
            loaded = asked
        sent_at_s = time.monotonic()
        was_accepted = bool(await send_heartbeat())
        # One that is answered with a rebalance is accepted, too; renewed by it, waiting calls would begin in the
        # moment before the fence is closed, and be cut off by the drain.
        is_settled = coordinator._coordinator_dead_fut is asked and not coordinator._rejoin_needed_fut.done()
        if was_accepted and is_settled:
            lease.renew(sent_at_s)
        return was_accepted

    async def join(subscription: Any) -> bool:
        nonlocal loaded
        sent_at_s = time.monotonic()
        asked = coordinator._coordinator_dead_fut
        try:
            has_joined = bool(await rejoin(subscription))
        except KafkaError as error:
            on_refused(error)
            raise
        if has_joined:
            lease.renew(sent_at_s)
            loaded = asked
        return has_joined

    def forget_generation() -> None:
        lease.lose()
        reset()

    coordinator._do_heartbeat = heartbeat
    coordinator._do_rejoin_group = join
    coordinator.reset_generation = forget_generation


async def _has_loaded(coordinator: Any) -> bool:
    """Whether the coordinator answers a question for an offset.

    aiokafka's own method takes a refusal for "nothing committed" (tests/contracts/test_offset_reader.py shows it).
    """
    question = OffsetFetchRequest(coordinator.group_id, [(min(coordinator._subscription.topics), [0])])
    try:
        answer = await coordinator._send_req(question)
    except KafkaError:
        return False
    codes = [error_code for _, partitions in answer.topics for *_, error_code in partitions]
    return codes == [0]
