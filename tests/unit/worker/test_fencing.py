"""No call begins without the lease, or while the assignment ends."""

import asyncio

import pytest

from agents.limits.retry import NoLongerWanted
from streams.engine.membership import GroupLease
from streams.worker.fencing import Fence


def a_fence(*, is_held: bool = True) -> tuple[Fence, GroupLease]:
    """With a lease of 10 s of the test's own clock."""
    clock = asyncio.get_running_loop().time
    lease = GroupLease(10, clock)
    if is_held:
        lease.renew(clock())
    return Fence(lease), lease


async def test_calls_begin_while_the_lease_is_held() -> None:
    """Without any wait."""
    fence, _ = a_fence()
    await fence.wait_open()
    assert asyncio.get_running_loop().time() == 0


async def test_no_call_begins_while_the_assignment_ends() -> None:
    """The drain would cut it off, and the next owner would pay for it again; calls resume with the next assignment."""
    fence, _ = a_fence()
    fence.close()
    with pytest.raises(NoLongerWanted):
        await fence.wait_open()
    fence.open()
    await fence.wait_open()


async def test_calls_wait_for_the_lease() -> None:
    """After a freeze: until the first heartbeat that the group accepts."""
    fence, lease = a_fence(is_held=False)
    waiting = asyncio.create_task(fence.wait_open())
    await asyncio.sleep(60)
    assert not waiting.done()
    lease.renew(60)
    await waiting


async def test_the_end_of_the_assignment_wakes_calls_that_wait_for_the_lease() -> None:
    """Otherwise the drain would wait for them until its deadline."""
    fence, _ = a_fence(is_held=False)
    waiting = asyncio.create_task(fence.wait_open())
    await asyncio.sleep(60)
    fence.close()
    with pytest.raises(NoLongerWanted):
        await waiting


async def test_one_task_looks_for_all_that_wait() -> None:
    """Hundreds of calls wait while the brokers are away; cancelling one of them affects no other."""
    fence, lease = a_fence(is_held=False)
    waiting = [asyncio.create_task(fence.wait_open()) for _ in range(100)]
    await asyncio.sleep(1)
    assert len(asyncio.all_tasks()) == 1 + 100 + 1
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    lease.renew(1)
    await asyncio.gather(*waiting[1:])
