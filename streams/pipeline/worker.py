"""The worker's life: parts are started, the group is joined, assignments end with exact offsets, all is stopped."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from agents.analyse import KEEP_S
from agents.guards.backoff import Backoff
from schemas.errors import Fatal, Retryable
from schemas.kafka import Topics
from streams.pipeline.analyst_app import AnalystApp
from streams.pipeline.assignment import Assignment
from streams.pipeline.committer import Committer
from streams.pipeline.deadline import end_process_within
from streams.pipeline.faust_consumer import OwnOffsetsConsumer
from streams.pipeline.log_reader import LogReader
from streams.pipeline.recovery_watch import watch_recovery
from streams.pipeline.shards import discard_shards_ahead

#: What work in flight gets when its partition is taken away. Calls to Grok take 2 to 5 s, and one that is given up may
#: be paid for twice; with KEEP_S and the last commit it stays below the rebalance timeout.
DRAIN_S = 6.0
#: What a broker that does not answer gets for the last commit; without it the records are read again.
LAST_COMMIT_S = 1.0
#: What each part gets to stop; all of them stop at once.
PART_STOPS_WITHIN_S = 1.0
#: The last resort, half a second below the promise of 10 s.
STOP_WITHIN_S = 9.5
#: The same of a worker that is told to stop. With keeping, the last commit, leaving the group and the parts, each of
#: which takes all of its time when brokers are frozen, and half a second of Faust's, it comes to 9 s.
STOP_DRAIN_S = 5.0
START_BACKOFF = Backoff(base_s=0.5, cap_s=10.0)

T = TypeVar("T")
Watch = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


class Part(Protocol):
    """Something that is started before the first record and stopped after the last."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Worker:
    """Implements streams.pipeline.analyst_app.Worker; `parts` are started in order and stopped at once, and the
    `watches` run in between."""

    def __init__(
        self,
        parts: Sequence[Part],
        log_reader: LogReader,
        topics: Topics,
        assignment: Assignment,
        watches: Sequence[Watch] = (),
    ) -> None:
        self._parts = parts
        self._topics = topics
        self._watches = watches
        self._log_reader = log_reader
        self._assignment = assignment
        self._started: list[Part] = []
        self._loops: list[asyncio.Task[None]] = []
        self.app: AnalystApp | None = None
        #: Partitions of each input topic, known after start.
        self.partitions = 0
        #: What ended the worker or made it take no more records, if it was not a signal from outside.
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self._last_work_ended = asyncio.Event()
        self.halted: Fatal | None = None

    async def start(self, app: AnalystApp) -> None:
        """Starts every part, waiting for servers that are not there yet. Raises Fatal for what waiting cannot mend."""
        self.app = app
        for part in self._parts:
            await _when_possible(part.start, type(part).__name__)
            self._started.append(part)
        self.partitions = await _when_possible(self._check_topics, "topics")
        self.keep_running(Committer(self._assignment, self._commit).run(lambda: app.consumer_generation_id))
        self.keep_running(watch_recovery(app, self._log_reader.check))
        for watch in self._watches:
            self.keep_running(watch())

    async def stop(self) -> None:
        """Stops loops, then all parts at once: one that hangs or fails does not keep the others from stopping."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.gather(*(_stop_in_time(part) for part in reversed(self._started)))
        self._started.clear()

    async def before_recovery(self, assigned: set[TP]) -> None:
        """Looks at what may have changed since the last assignment, then admits records again.

        Shards that cannot be right are discarded, and partitions are counted anew, for homes follow from their number;
        while the broker does not say, nothing is changed.
        """
        assert self.app is not None
        try:
            self.app.answers.store.begin_runs_anew()
            changelog = self._topics.answers_changelog
            await discard_shards_ahead(self.app.answers.store, self._log_reader, changelog, assigned)
            self.partitions = await self._check_topics()
        except KafkaError as error:
            log.warning("log_not_compared", error=type(error).__name__)
        except Exception as error:  # aiokafka would log it and go on: a member that holds its partitions for ever
            hint = "look at DATA_DIR: space, rights, one worker a folder"
            self.fail(
                error if isinstance(error, Fatal) else Fatal("the assignment cannot begin", type(error).__name__, hint)
            )
            return
        self._assignment.reopen()

    async def log_ends(self, partitions: Iterable[TP]) -> Mapping[TP, int]:
        """Offset after the last record of each partition."""
        by_log = {TopicPartition(tp.topic, tp.partition): tp for tp in partitions}
        return {by_log[partition]: end for partition, end in (await self._log_reader.ends(by_log)).items()}

    def keep_running(self, loop: Coroutine[Any, Any, None]) -> None:
        """Runs a loop until the worker stops; one that fails ends the process, for nobody would notice it missing."""
        task = asyncio.create_task(loop)
        task.add_done_callback(self._loop_ended)
        self._loops.append(task)

    def fail(self, error: BaseException) -> None:
        """Tells whoever runs the worker to stop it, in order; the process ends at the latest after STOP_WITHIN_S.

        Not by Faust's own way, a crash: that leaves the group without a last commit and may hang.
        """
        if self.failed.is_set():
            return
        self.failure = error
        self.failed.set()
        if isinstance(error, Fatal):
            log.error("worker_failed", error=error.what, why=error.why, hint=error.hint)
        else:  # a defect's own words may quote what it choked on
            log.error("worker_failed", error=type(error).__name__)
        end_process_within(STOP_WITHIN_S)

    def halt(self, error: Fatal) -> None:
        """Takes no more records and lives on, not ready: a process that ended would be started again, and halt again.

        What is in work may still end well, and is committed. The process fails with `error` when it is told to stop.
        """
        self._assignment.halt()
        self.halted = error
        if not self.failed.is_set():
            self.failure = error
        log.error("worker_halted", error=error.what, why=error.why, hint=error.hint)

    async def check_not_halted(self) -> None:
        """A health check. Raises Retryable with what halted the worker and what to do."""
        if self.halted is not None:
            raise Retryable(f"{self.halted.what}: {self.halted.why}; {self.halted.hint}")

    async def end_assignment(self, consumer: OwnOffsetsConsumer) -> None:
        """A bounded time for work in flight; then the finished runs are committed and every tracker dies."""
        assert self.app is not None
        if self.app.should_stop:
            end_process_within(STOP_WITHIN_S)
        try:
            await self._assignment.drain(STOP_DRAIN_S if self.app.should_stop else DRAIN_S)
            due = self._assignment.due(self.app.consumer_generation_id)
            self._assignment.revoke()
            consumer._unacked_messages.clear()
            if due:
                await self._last_commit(consumer, {tp: offset for tp, (_, offset) in due.items()})
        finally:
            if self.app.should_stop:
                self._last_work_ended.set()

    async def last_work_ended(self) -> None:
        """Returns when the stop has ended the last assignment, or should have."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_DRAIN_S + KEEP_S + LAST_COMMIT_S):
                await self._last_work_ended.wait()

    async def _last_commit(self, consumer: OwnOffsetsConsumer, offsets: Mapping[TP, int]) -> None:
        try:
            async with asyncio.timeout(LAST_COMMIT_S):
                await consumer.commit_offsets(offsets)
        except TimeoutError:
            log.warning("last_commit_not_answered", partitions=len(offsets))

    async def _commit(self, offsets: Mapping[TP, int]) -> Collection[TP]:
        assert self.app is not None
        consumer = self.app.consumer
        assert isinstance(consumer, OwnOffsetsConsumer)
        return await consumer.commit_offsets(offsets)

    async def _check_topics(self) -> int:
        """Agent and table rely on equal partition counts: Faust assigns partition i of all of them to one worker."""
        topics = self._topics
        needed = [*topics.messages, topics.answers_changelog]
        counts = await self._log_reader.partitions(needed)
        missing = [topic for topic in needed if not counts.get(topic)]
        if missing:
            raise Fatal("topics are missing", ", ".join(missing), "make them with: grok-insights topics")
        alike = {topic: counts[topic] for topic in (*topics.inputs, topics.answers_changelog)}
        if len(set(alike.values())) > 1:
            why = ", ".join(f"{topic} has {count}" for topic, count in alike.items())
            raise Fatal("topics differ in their number of partitions", why, "give all of them the largest number")
        return counts[topics.conversations]

    def _loop_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


async def _when_possible(step: Callable[[], Awaitable[T]], name: str) -> T:
    attempt = 0
    while True:
        try:
            return await step()
        except Fatal:
            raise
        except (OSError, KafkaError, Retryable) as error:
            log.warning("waiting_for_start", part=name, error=type(error).__name__)
        await asyncio.sleep(START_BACKOFF.delay_s(attempt, random.random))
        attempt += 1


async def _stop_in_time(part: Part) -> None:
    try:
        async with asyncio.timeout(PART_STOPS_WITHIN_S):
            await part.stop()
    except Exception as error:  # the last step of this part: it is told, and the process ends all the same
        log.warning("part_not_stopped", part=type(part).__name__, error=type(error).__name__)
