"""Stage: a queue whose workers take all that waits and work on it as one batch.

Records wait in stages, and for a place for a call. One request, statement or wake-up then serves hundreds of them, and
the busier the worker is, the larger the batches become by themselves.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import structlog

from agents.limits.retry import DEFECT_ATTEMPTS, DEFECT_BACKOFF
from schemas.errors import Fatal

T = TypeVar("T")

log = structlog.get_logger()


class Stage(Generic[T]):
    """Calls `work` with batches of at most `max_batch` items; `fail` receives what ends the process.

    `work` deals with every error it expects. After any other one it is called again with the same batch, a few times,
    so it must be able to repeat itself. `linger_s` lets a batch fill up first: it saves CPU where items trickle in.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], Awaitable[None]],
        fail: Callable[[BaseException], None],
        *,
        max_batch: int,
        linger_s: float = 0.0,
        workers: int = 1,
    ) -> None:
        self.name = name
        self._work = work
        self._fail = fail
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._workers = workers
        self._waiting: deque[T] = deque()
        self._working = 0
        self._has_waiting = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or is being worked on."""
        return bool(self._waiting or self._working)

    @property
    def size(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    def put(self, items: Iterable[T]) -> None:
        """Adds items; they are worked on in this order, though two workers may finish them in another."""
        self._waiting.extend(items)
        if self._waiting:
            self._has_waiting.set()
            self._is_idle.clear()

    def clear(self) -> None:
        """Drops the items that wait; those being worked on are finished."""
        self._waiting.clear()
        self._has_waiting.clear()
        if not self._working:
            self._is_idle.set()

    async def wait_idle(self) -> None:
        """Returns when nothing waits and nothing is being worked on."""
        await self._is_idle.wait()

    def start(self) -> None:
        """Starts the workers."""
        self._tasks = [asyncio.create_task(self._run(), name=f"stage-{self.name}") for _ in range(self._workers)]

    async def stop(self) -> None:
        """Cancels the workers; what still waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._has_waiting.wait()
            if self._linger_s and len(self._waiting) < self._max_batch:
                await asyncio.sleep(self._linger_s)
            if batch := self._take():
                self._working += 1
                try:
                    await self._work_on(batch)
                finally:
                    self._working -= 1
                    if not self.is_busy:
                        self._is_idle.set()

    def _take(self) -> list[T]:
        waiting = self._waiting
        if len(waiting) > self._max_batch:
            return [waiting.popleft() for _ in range(self._max_batch)]
        batch = list(waiting)
        waiting.clear()
        self._has_waiting.clear()
        return batch

    async def _work_on(self, batch: list[T]) -> None:
        for attempt in range(DEFECT_ATTEMPTS):
            try:
                await self._work(batch)
                return
            except Fatal as error:
                self._fail(error)
                return
            except Exception as error:  # a defect of ours: the batch is held back, and nothing behind it is lost
                log.exception("stage_failed", stage=self.name, attempt=attempt + 1)
                failure = error
            await asyncio.sleep(DEFECT_BACKOFF.delay_s(attempt, random.random))
        self._fail(failure)
