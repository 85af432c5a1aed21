"""Assignments end with nothing left running, and what the broker did not take is due again."""

import asyncio
from collections.abc import Collection, Mapping

from faust.types import TP
from streams.pipeline.assignment import Assignment
from streams.pipeline.committer import Committer

FIRST, SECOND = TP("conversations", 0), TP("conversations", 1)


def an_assignment() -> Assignment:
    """Two partitions of generation 1, each with one finished record."""
    assignment = Assignment()
    for tp in (FIRST, SECOND):
        tracker = assignment.open((tp, 1), expected=5)
        tracker.finish(tracker.admit(5, 1.0))
    return assignment


async def test_the_drain_waits_for_work_and_cancels_what_is_late() -> None:
    """Work that ends in time is finished; no task is left when it returns."""
    assignment, ended = Assignment(), []

    async def work(hangs: bool) -> None:
        await (asyncio.Event().wait() if hangs else asyncio.sleep(0))
        ended.append(hangs)

    tasks = [assignment.spawn(work(hangs)) for hangs in (True, False)]
    await assignment.drain(0.05)
    assert (ended, [task.done() for task in tasks]) == ([False], [True, True])
    assert not assignment.is_open


async def test_only_what_the_broker_took_counts_as_committed() -> None:
    """A partition that was taken away must not keep the others from being committed."""
    assignment = an_assignment()

    async def takes_the_first(offsets: Mapping[TP, int]) -> Collection[TP]:
        return [FIRST]

    await Committer(assignment, takes_the_first).commit_due(1)
    assert [*assignment.due(1)] == [SECOND]


async def test_nothing_of_another_generation_is_committed() -> None:
    """Neither of an older one, nor anything after the end."""
    assignment = an_assignment()
    assert assignment.due(2) == {}
    assignment.revoke()
    assert assignment.due(1) == {}
