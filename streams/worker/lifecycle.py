"""Lifecycle: starts the parts in order, stops them together, and records why the worker failed or halted."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from aiokafka.errors import KafkaError

from agents.limits.retry import Backoff
from schemas.errors import Fatal, Retryable
from streams.kafka.clients import describe_broker_error
from streams.stop_signal import end_process_within
from streams.telemetry.log import LogThrottle
from streams.worker.timings import Timings

START_BACKOFF = Backoff(base_s=0.5, cap_s=10.0)

T = TypeVar("T")

log = structlog.get_logger()


class Part(Protocol):
    """Something that is started before the group is joined and stopped after it was left."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Lifecycle:
    """See streams.engine.app.Lifecycle. `parts` and `on_drain` are set once, before the start."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self.parts: Sequence[Part] = ()
        self.on_drain: Callable[[], Awaitable[None]] | None = None
        self._started: list[Part] = []
        self._loops: list[asyncio.Task[None]] = []
        #: What ended the worker, or made it take no more records, unless it was a signal from outside.
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.halted: Fatal | None = None

    async def start(self) -> None:
        """Starts every part, waiting for servers that are not there yet. Raises Fatal for what waiting cannot fix."""
        for part in self.parts:
            await when_possible(part.start, type(part).__name__)
            self._started.append(part)

    async def drain(self) -> None:
        """Ends the work; from here on the process ends within `stop_s`."""
        end_process_within(self._timings.stop_s)
        if self.on_drain is not None:
            await self.on_drain()

    async def stop(self) -> None:
        """Stops loops, then all parts at once: one that hangs or fails does not keep the others from stopping."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.gather(*(self._stop_in_time(part) for part in reversed(self._started)))
        self._started.clear()

    def keep_running(self, loop: Coroutine[Any, Any, None]) -> None:
        """Runs a loop until the worker stops; one that fails ends the process, since nothing else would notice."""
        task = asyncio.create_task(loop)
        task.add_done_callback(self._loop_ended)
        self._loops.append(task)

    def fail(self, error: BaseException) -> None:
        """Makes the worker stop; the process ends at the latest after `stop_s`.

        Not by a crash of Faust, which leaves the group without a last commit and may hang.
        """
        if self.failed.is_set():
            return
        self.failure = error
        self.failed.set()
        if isinstance(error, Fatal):
            log.error("worker_failed", error=error.what, why=error.why, hint=error.hint)
        else:
            log.error("worker_failed", exc_info=error)
        end_process_within(self._timings.stop_s)

    def halt(self, error: Fatal) -> None:
        """Takes no more records and lives on, not ready: a process that ended would be restarted, and halt again.

        Records in flight may still end well, and are committed. The process fails with `error` when it is stopped.
        """
        self.halted = error
        if not self.failed.is_set():
            self.failure = error
        log.error("worker_halted", error=error.what, why=error.why, hint=error.hint)

    async def check_not_halted(self) -> None:
        """A health check. Raises Retryable with what halted the worker and what to do."""
        if self.halted is not None:
            raise Retryable(f"{self.halted.what}: {self.halted.why}; {self.halted.hint}")

    def _loop_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _stop_in_time(self, part: Part) -> None:
        try:
            async with asyncio.timeout(self._timings.part_stop_s):
                await part.stop()
        except Exception as error:  # the last step of this part: it is logged, and the process ends all the same
            log.warning("part_not_stopped", part=type(part).__name__, error=type(error).__name__)


async def when_possible(step: Callable[[], Awaitable[T]], name: str) -> T:
    """Repeats a step of the start until its server is there, at the earliest when a Retryable error says.

    Raises Fatal at once.
    """
    attempt, throttle = 0, LogThrottle()
    while True:
        try:
            return await step()
        except Fatal:
            raise
        except Retryable as error:
            why, least_s = error.detail, error.retry_after_s or 0.0
        except KafkaError as error:
            why, least_s = describe_broker_error(error), 0.0
        except OSError as error:
            why, least_s = type(error).__name__, 0.0
        if throttle.is_due(why, time.monotonic()):
            log.warning("waiting_for_start", part=name, why=why)
        await asyncio.sleep(max(least_s, START_BACKOFF.delay_s(attempt, random.random)))
        attempt += 1
