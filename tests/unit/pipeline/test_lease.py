"""The lease: how long a worker may be sure that the group counts it in."""

import asyncio
import contextlib

from streams.pipeline.lease import GroupLease


class Clock:
    """Seconds, set by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_it_is_not_held_before_the_first_heartbeat() -> None:
    """A worker that never heard of the group pays for nothing."""
    assert not GroupLease(10, Clock()).is_held


def test_it_is_held_for_one_session_timeout_from_when_the_heartbeat_was_sent() -> None:
    """The group counts from when it came, which is later: so the worker never believes longer than the group."""
    clock = Clock()
    lease = GroupLease(10, clock)
    lease.renewed(clock.now_s - 3)
    held = []
    for clock.now_s in (100.0, 106.9, 107.0):
        held.append(lease.is_held)
    assert held == [True, True, False]


async def test_who_waits_goes_on_when_it_is_held_again() -> None:
    """After a freeze, the first heartbeat that the group takes."""
    clock = Clock()
    lease = GroupLease(10, clock)
    waiting = asyncio.create_task(lease.held())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.01)
    assert not waiting.done()
    lease.renewed(clock.now_s)
    await asyncio.wait_for(waiting, 5)


async def test_many_who_wait_are_one_who_looks() -> None:
    """Hundreds of records wait while the brokers are away; one that gives up takes nobody along."""
    lease = GroupLease(10, Clock())
    waiting = [asyncio.create_task(lease.held()) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1 + 100 + 1
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    lease.renewed(100.0)
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
