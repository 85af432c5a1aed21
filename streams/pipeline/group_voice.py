"""What the group says to a worker, told to its lease: aiokafka keeps that to itself."""

import time
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest

from streams.pipeline.lease import GroupLease


def listen(coordinator: Any, lease: GroupLease) -> None:
    """The lease begins with a join, is renewed by heartbeats, and is lost when the group does not know us any more.

    A broker that takes the group over accepts every heartbeat while it reads what it took over, also one of a worker
    that was given up long ago (Kafka: GroupCoordinatorService.heartbeat, COORDINATOR_LOAD_IN_PROGRESS). Until it is
    known to have read all, no heartbeat is sent: it would say nothing and prolong nothing.
    """
    send_heartbeat, rejoin, reset = (
        coordinator._do_heartbeat,
        coordinator._do_rejoin_group,
        coordinator.reset_generation,
    )
    #: The coordinator that has read all; aiokafka makes a future of this kind for each one that it finds.
    ready: Any = None

    async def send_and_tell() -> bool:
        nonlocal ready
        asked = coordinator._coordinator_dead_fut
        if asked is not ready:
            if not await _has_read_all(coordinator):
                return False  # aiokafka comes again after its back-off
            ready = asked
        sent_at_s = time.monotonic()
        was_taken = bool(await send_heartbeat())
        if was_taken and coordinator._coordinator_dead_fut is asked:
            lease.renewed(sent_at_s)
        return was_taken

    async def rejoin_and_tell(subscription: Any) -> bool:
        nonlocal ready
        began_s = time.monotonic()
        asked = coordinator._coordinator_dead_fut
        has_joined = bool(await rejoin(subscription))
        if has_joined:
            lease.renewed(began_s)
            ready = asked
        return has_joined

    def reset_and_tell() -> None:
        lease.lost()
        reset()

    coordinator._do_heartbeat = send_and_tell
    coordinator._do_rejoin_group = rejoin_and_tell
    coordinator.reset_generation = reset_and_tell


async def _has_read_all(coordinator: Any) -> bool:
    """Whether it answers a question about an offset: it refuses that as long as it reads.

    aiokafka's own question takes a refusal for "nothing committed" (tests/unit/pipeline/test_log_reader.py).
    """
    question = OffsetFetchRequest(coordinator.group_id, [(min(coordinator._subscription.topics), [0])])
    try:
        answer = await coordinator._send_req(question)
    except KafkaError:
        return False
    codes = [error_code for _, partitions in answer.topics for *_, error_code in partitions]
    return codes == [0]
