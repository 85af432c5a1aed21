"""A stage takes all waiting items as one batch, loses nothing to a failure, and is idle only when nothing is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.limits.retry import DEFECT_ATTEMPTS
from agents.stage import Stage
from schemas.errors import Fatal


class Work:
    """Remembers its batches; raises the given errors first, one per batch; waits while the gate is closed.

    `gates` are those of single batches, by their first item.
    """

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.batches: list[list[int]] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.gates: dict[int, asyncio.Event] = {}

    async def __call__(self, batch: list[int]) -> None:
        self.batches.append(batch)
        await self.gates.get(batch[0], self.gate).wait()
        if self.errors:
            raise self.errors.pop(0)


@asynccontextmanager
async def running(work: Work, *, linger_s: float = 0.0, workers: int = 1) -> AsyncIterator[Stage[int]]:
    stage = Stage("test", work, work.failures.append, max_batch=4, linger_s=linger_s, workers=workers)
    stage.start()
    yield stage
    await stage.stop()


async def test_all_that_waits_is_one_batch() -> None:
    """Up to the largest one, in the order in which it came."""
    work = Work()
    async with running(work) as stage:
        stage.put([1, 2])
        stage.put([3])
        await stage.wait_idle()
        stage.put(range(6))
        await stage.wait_idle()
    assert work.batches == [[1, 2, 3], [0, 1, 2, 3], [4, 5]]


async def test_what_comes_meanwhile_is_the_next_batch() -> None:
    """The busier a stage is, the larger its batches become."""
    work = Work()
    async with running(work) as stage:
        work.gate.clear()
        stage.put([1])
        await asyncio.sleep(1)
        stage.put([2])
        stage.put([3])
        work.gate.set()
        await stage.wait_idle()
    assert work.batches == [[1], [2, 3]]


async def test_a_batch_lingers_unless_it_is_full() -> None:
    """It saves CPU where items trickle in."""
    work, now_s = Work(), asyncio.get_running_loop().time
    async with running(work, linger_s=10) as stage:
        stage.put([1])
        await asyncio.sleep(9)
        stage.put([2])
        await stage.wait_idle()
        assert (work.batches, now_s()) == ([[1, 2]], 10)
        stage.put([3, 4, 5, 6])
        await stage.wait_idle()
        assert now_s() == 10


async def test_workers_work_side_by_side() -> None:
    """And the stage is busy until the last of them is done."""
    work = Work()
    async with running(work, workers=2) as stage:
        work.gate.clear()
        stage.put(range(8))
        await asyncio.sleep(1)
        assert (work.batches, stage.is_busy) == ([[0, 1, 2, 3], [4, 5, 6, 7]], True)
        work.gate.set()
        await stage.wait_idle()
        assert not stage.is_busy


async def test_it_is_idle_when_nothing_waits_and_no_worker_works() -> None:
    """One of two workers that is done, or a batch of several, is not enough: a drain would end too early."""
    for workers in (1, 2):
        work = Work()
        work.gates[4] = asyncio.Event()
        async with running(work, workers=workers) as stage:
            stage.put(range(8))
            idle = asyncio.create_task(stage.wait_idle())
            await asyncio.sleep(1)
            assert (work.batches, idle.done()) == ([[0, 1, 2, 3], [4, 5, 6, 7]], False)
            work.gates[4].set()
            await idle


async def test_a_stage_that_got_nothing_is_idle() -> None:
    """A drain does not wait for it."""
    async with running(Work()) as stage:
        stage.put([])
        await stage.wait_idle()
        assert not stage.is_busy


async def test_a_defect_is_tried_again_with_the_same_batch() -> None:
    """Nothing behind it is lost, and nothing overtakes it."""
    work = Work(*[ZeroDivisionError()] * (DEFECT_ATTEMPTS - 1))
    async with running(work) as stage:
        stage.put([1, 2])
        await asyncio.sleep(0)
        stage.put([3])
        await stage.wait_idle()
    assert (work.batches, work.failures) == ([*[[1, 2]] * DEFECT_ATTEMPTS, [3]], [])


async def test_a_defect_that_stays_ends_the_worker() -> None:
    """A few attempts are made, so that it does not hold up a partition forever."""
    error = ZeroDivisionError()
    work = Work(*[error] * DEFECT_ATTEMPTS)
    async with running(work) as stage:
        stage.put([1])
        await stage.wait_idle()
    assert (len(work.batches), work.failures) == (DEFECT_ATTEMPTS, [error])


async def test_a_fatal_error_ends_the_worker_at_once() -> None:
    """Another attempt would fail as well."""
    fatal = Fatal("the database does not take rows")
    work = Work(fatal)
    async with running(work) as stage:
        stage.put([1])
        await stage.wait_idle()
    assert (work.batches, work.failures) == ([[1]], [fatal])


async def test_stopped_it_drops_what_waits() -> None:
    """Those records are read again by the next owner; no task is left."""
    work = Work()
    async with running(work) as stage:
        work.gate.clear()
        stage.put(range(8))
        await asyncio.sleep(1)
    assert work.batches == [[0, 1, 2, 3]]
    assert asyncio.all_tasks() == {asyncio.current_task()}
